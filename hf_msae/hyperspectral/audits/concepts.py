"""Concepts: which ones a classifier depends on, and what changing a few of them does to it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ...statistics import Finding, candidate, percentiles, resampled_means
from ..subject import Subject
from .attacks import LITTLE, NO_ERROR, NUM_ATTACKED, ROWS_PER_PATCH, WORST, loss_over
from .outcome import Outcome, score_draws, score_name

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
            found = (target, metric, scores[1 + i, t], scores[0, t] - scores[1 + i, t], *percentiles(loss), flips)
            records.append((*row[["concept", "latent", "name", "validated", "expected"]], attack, dose, *found))
    return pd.DataFrame(records, columns=ATTACK_COLUMNS)


BUDGET = 3
"""Concepts that are changed at most."""
SHARE = 0.05
"""How far each of them may move an embedding, relative to the embedding's length."""
COLUMNS = ["target", "search", "concepts", "dose", "loss", "low", "high"]
_NUM_RANDOM = 20
_ADVICE = "Train on rows in which these concepts vary independently of the class, or erase them (hf_msae.steering)."
Choice = tuple[tuple[int, int], ...]  # places of latents, and whether there is more (1) or less (-1) of them


def worst_concepts(subject: Subject, rows: np.ndarray, places: list[int]) -> tuple[pd.DataFrame, list[Finding | None]]:
    """Search for the few concepts whose change makes the errors of each target largest.

    Up to three concepts at `places` get more or less active, in all `rows` alike, each by 5% of the embedding's length
    at most. They are searched for greedily on one half of the rows and measured on the other, beside the mean over
    random choices. In the table, dose is the mean change of what the model is given, relative to its length, and loss
    the mean squared error over that without a change.
    """
    rng = np.random.default_rng((subject.seed, 1))
    half = rng.random(len(rows)) < 0.5
    search, judge = _Changes(subject, rows[half]), _Changes(subject, rows[~half])
    number = min(BUDGET, len(places))
    if not number:
        return pd.DataFrame(columns=COLUMNS), []
    options = [(place, sign) for place in places for sign in (-1, 1)]
    orders = [rng.permutation(len(places))[:number] for _ in range(_NUM_RANDOM)]
    picks = [tuple((places[i], int(rng.choice((-1, 1)))) for i in order) for order in orders]
    usual = np.mean([judge.errors(each) for each in picks], axis=0)
    usual_dose, clean = float(np.mean([judge.dose(each) for each in picks])), judge.errors(())
    records, tests = [], []
    for t, target in enumerate(subject.targets):
        choice = search.worst(options, number, t)
        columns = np.stack([judge.errors(choice)[:, t], usual[:, t], clean[:, t]], axis=1) / subject.Y[:, t].var()
        means, draws = columns.mean(axis=0), resampled_means(columns, subject.num_resamples, subject.seed)
        loss, usual_loss = (loss_over(means[i], means[2], columns) for i in (0, 1))
        worst, random = (loss_over(draws[:, i], draws[:, 2], columns) for i in (0, 1))
        shown = subject.space.names["concept"].iloc[[place for place, _ in choice]]
        signs = ["more" if sign > 0 else "less" for _, sign in choice]
        what, dose = ", ".join(f"{sign} {name}" for sign, name in zip(signs, shown, strict=True)), judge.dose(choice)
        records.append((target, "worst", what, dose, loss, *percentiles(worst)))
        records.append((target, "random", "", usual_dose, usual_loss, *percentiles(random)))
        evidence = (
            f"With {what}, found on other rows, which moves what the model is given by {dose:.1%} of its length, the "
            f"{subject.error_name} of {target} is {loss:.2f} times as large; random concepts, moved as far, make it "
            f"{usual_loss:.2f} times as large on average.{'' if means[2] else NO_ERROR}"
        )
        title = f"Small changes of {number} concepts mislead predictions of {target}"
        limits = WORST if means[0] - means[2] >= LITTLE else WORST[:1]
        arguments = ("concepts", "few concepts", target, title, "worst_case_loss", loss, worst, limits)
        tests.append(candidate(*arguments, evidence, _ADVICE, log=True))
    return pd.DataFrame(records, columns=COLUMNS), tests


class _Changes:
    def __init__(self, subject: Subject, rows: np.ndarray) -> None:
        self.subject, self.rows, self.X = subject, rows, subject.X[rows]
        self.inputs, self.steps = subject.inputs[rows], subject.space.steps
        self.length = np.linalg.norm(self.inputs, axis=1)

    def change(self, choice: Choice) -> np.ndarray:
        """Return what is added to what the model is given."""
        found = np.zeros_like(self.inputs)
        for place, sign in choice:
            step = sign * SHARE * self.length / np.linalg.norm(self.steps[place])
            found += np.maximum(-self.X[:, place], step)[:, None] * self.steps[place]  # none gets less than inactive
        return found

    def errors(self, choice: Choice) -> np.ndarray:
        """Return squared errors (rows, t), each by the model of the fold that did not see the row."""
        predicted = self.subject.predict_inputs(self.inputs + self.change(choice), self.rows)
        return (self.subject.Y[self.rows] - predicted) ** 2

    def dose(self, choice: Choice) -> float:
        """Return how far the choice moves the inputs, relative to their length."""
        return float((np.linalg.norm(self.change(choice), axis=1) / self.length).mean())

    def worst(self, options: list[tuple[int, int]], number: int, target: int) -> Choice:
        """Add the worst option, again and again."""
        choice: Choice = ()
        for _ in range(number):
            taken = {place for place, _ in choice}
            left = [(*choice, each) for each in options if each[0] not in taken]
            choice = max(left, key=lambda each: self.errors(each)[:, target].mean())
        return choice
