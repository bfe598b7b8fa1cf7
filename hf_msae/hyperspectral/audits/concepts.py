"""Concepts: which ones a classifier depends on, and what changing a few of them does to it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..subject import Subject
from .attacks import NUM_ATTACKED, ROWS_PER_PATCH
from .outcome import Outcome, interval, score_draws, score_name
from .worst_concepts import worst_concepts

if TYPE_CHECKING:
    import torch

    from ..concept_space import ConceptSpace

EFFECT_COLUMNS = ["target", "concept", "latent", "name", "validated", "expected", "effect", "low", "high", "flip_rate"]
EFFECT_COLUMNS += ["log_odds", "null_spread", "z", "q_effect", "drives"]
ATTACK_COLUMNS = ["concept", "latent", "name", "validated", "expected", "attack", "dose", "target", "metric", "score"]
ATTACK_COLUMNS += ["loss", "low", "high", "flip_rate"]
_NUM_NULL = 100


def concepts(subject: Subject) -> Outcome:
    """Intervene on concepts of held-out rows, attack them, and search for the worst change of a few.

    Tested are the latents that a bias report tests: the best one of each validated name and, if these are fewer than
    ten, the most active ones. Concepts that are expected to matter are measured, but are no finding.

    Table `concepts`, by target and concept: as in a bias report, how the probability changes when the latent goes from
    absent to strong, against what random latents do. Table `concept_attacks`: what happens when all latents of the
    concept are removed, doubled, or swapped between rows: the dose (mean change of what the model is given, relative
    to its length), the AUROC and how much is lost, and the share of predictions that flip. Table `worst_concepts`: see
    `worst_concepts`.
    """
    space = subject.space
    if space is None:
        return Outcome({}, [], ["No concepts are known: pass msae=, or a ConceptTable as features."])
    if subject.classes is None:
        return Outcome({}, [], ["Concepts are only tested for classifiers."])
    from ...bias.interventions import driver_candidates  # here, since it imports torch

    places = space.tested(subject.X)
    named = space.names.iloc[places]
    remarks = []
    if not named["validated"].all():
        unnamed = f"{int((~named['validated']).sum())} of {len(named)}"
        remarks.append(f"{unnamed} latents that were tested have no validated name, so they go by their numbers.")
    frames, tests = [], []
    for place, target in enumerate(subject.targets):
        frame = _effects(subject, space, places, place)
        known = {name: named[name].to_numpy() for name in ("expected", "concept")}
        frame = frame.assign(target=target, **known)
        frames.append(frame.sort_values("effect", key=abs, ascending=False, kind="stable")[EFFECT_COLUMNS])
        tests += driver_candidates(frame[~frame["expected"]], target, "concepts")
    rng, number = np.random.default_rng(subject.seed), subject.limits.get("num_attacked", NUM_ATTACKED)
    rows = np.sort(rng.permutation(len(subject.X))[: ROWS_PER_PATCH * number])
    unexpected = [place for place in places if not space.names["expected"].iloc[place]]
    worst, more = worst_concepts(subject, rows, unexpected)
    tables = {
        "concepts": pd.concat(frames, ignore_index=True),
        "concept_attacks": _attacks(subject, rows, places),
        "worst_concepts": worst,
    }
    return Outcome(tables, tests + more, remarks)


def _effects(subject: Subject, space: ConceptSpace, places: np.ndarray, target: int) -> pd.DataFrame:
    """Intervene on rows of the first fold with the model that was fitted to the others."""
    import torch

    from ...bias.interventions import intervene

    _, test, fitted = subject.fold_models[0]
    rng, m = np.random.default_rng((subject.seed, target)), len(space.latents)
    rows = np.sort(rng.permutation(test)[: subject.limits["num_explained"]])

    def ask(x: torch.Tensor) -> np.ndarray:
        return fitted.predict(x.double().numpy())[:, target]

    found = intervene(
        ask,
        torch.from_numpy(subject.inputs[rows]),
        torch.from_numpy(subject.X[rows, :m]),
        torch.from_numpy(space.steps),
        places,
        subject.X[:, places],
        (subject.X[:, :m] > 0).mean(axis=0),
        _NUM_NULL,
        rng,
    )
    low, high = found.intervals(0.05, subject.num_resamples, rng)
    return replace(found, latents=space.latents[places]).to_pandas(space.table, low[:, 0], high[:, 0], 0.05)


def _attacks(subject: Subject, rows: np.ndarray, places: np.ndarray) -> pd.DataFrame:
    """Remove, double and swap each concept in some rows."""
    space, X, before = subject.space, subject.X[rows], subject.predictions[rows]
    inputs = subject.inputs[rows]
    length = np.linalg.norm(inputs, axis=1)
    order = np.random.default_rng((subject.seed, 2)).permutation(len(rows))
    kept, after = [], []
    for place in places:
        columns = space.of_same_name(place)
        own = X[:, columns]
        for attack, values in (("removed", 0 * own), ("doubled", 2 * own), ("swapped", own[order])):
            change = (values - own) @ space.steps[columns]
            after.append(subject.predict_inputs(inputs + change, rows))
            kept.append((place, attack, float((np.linalg.norm(change, axis=1) / length).mean())))
    some = replace(subject, X=X, Y=subject.Y[rows])
    scores, draws = score_draws(some, before, *after)
    metric, records = score_name(subject).lower(), []
    for i, (place, attack, dose) in enumerate(kept):
        row = space.names.iloc[place]
        for t, target in enumerate(subject.targets):
            loss = draws[0, :, t] - draws[1 + i, :, t]
            flips = ((after[i][:, t] > 0.5) != (before[:, t] > 0.5)).mean()
            found = (target, metric, scores[1 + i, t], scores[0, t] - scores[1 + i, t], *interval(loss), flips)
            records.append((*row[["concept", "latent", "name", "validated", "expected"]], attack, dose, *found))
    return pd.DataFrame(records, columns=ATTACK_COLUMNS)
