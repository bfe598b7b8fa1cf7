"""Which concepts drive a classifier: association, intervention, and what random latents would do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import false_discovery_control, mannwhitneyu, norm
from tqdm.auto import tqdm

from ..concepts.table import names_of
from .probabilities import Classifier, as_classifier, log_odds, probabilities
from .result import BiasReport

if TYPE_CHECKING:
    from ..concepts.table import ConceptTable
    from ..embeddings import EmbeddingDataset
    from ..model.modeling_msae import MSAEModel

DOSES = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
"""Shares of the samples that activate a latent: the quantiles it is set to, after zero."""
STRONG = 0.9
"""Of them the one that is called strong: effects are those from absent to strong."""
_BOX_SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)
_NORMAL_MEDIAN = 1.4826  # the standard deviation of normal values, by the median of their sizes


@torch.no_grad()
def bias_report(
    msae: MSAEModel,
    acts: EmbeddingDataset,
    classifier: Any,
    positive: int | str = 1,
    concepts: ConceptTable | None = None,
    latents: Sequence[int] | None = None,
    target: str | None = None,
    num_samples: int = 500,
    num_null: int = 100,
    num_bootstrap: int = 1000,
    alpha: float = 0.05,
    seed: int = 0,
    progress: bool = True,
) -> BiasReport:
    """Which concepts drive a classifier of embeddings?

    What goes along with a prediction need not cause it. So each concept is intervened on: its latent is set from zero
    to the 90th percentile of its activations, all else kept, what the MSAE does not reconstruct too, and the change of
    the mean probability is the effect. A concept drives the classifier where the bootstrap interval of its effect
    leaves out zero and the effect on the log-odds, which do not saturate as probabilities do, is more than that of
    latents at random: of the others, those that are active about as often, moved by as much. The spread of these (by
    their median size, since some have the classifier's own concepts in them) makes a z-score, and z-scores q-values
    (Benjamini-Hochberg). Beside it stands the association: the rank-biserial correlation of the concept's activation
    with the prediction, with Holm-corrected p-values of Mann and Whitney's test.

    Args:
        msae: the MSAE.
        acts: its embeddings, of data that the classifier was not trained on and that it is to be judged on.
        classifier: what `as_classifier` takes. A probe that is trained for this is best trained with
            `LinearClassifier.fit(..., regularization="cv")`: one that leans on everything a little hides what it
            relies on.
        positive: the class.
        concepts: names of the latents.
        latents: those to ask about; by default the best latent of each validated name.
        target: what the class is called in print.
        num_samples: that are intervened on, drawn from `acts`.
        num_null: random latents for each concept.
        num_bootstrap: resamples for the intervals.
        alpha: level of the tests and intervals.
        seed: of the draws.
        progress: show a progress bar.

    Raises:
        ValueError: there are no validated names and no `latents` either, too few latents are left for a null, the
            classifier predicts one class alone, or it returns something else than probabilities.
    """
    for name, value, least in (
        ("num_samples", num_samples, 2),
        ("num_null", num_null, 20),
        ("num_bootstrap", num_bootstrap, 20),
    ):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}: fewer tell nothing")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is a share between 0 and 1, got {alpha}")
    ask = as_classifier(classifier, positive)
    n, rng = msae.config.num_latents, np.random.default_rng(seed)
    if latents is None:
        latents = _named(concepts)
    chosen = np.unique(np.asarray(list(latents), dtype=np.int64))
    if not len(chosen) or not 0 <= chosen[0] <= chosen[-1] < n:
        raise ValueError(f"latents are numbers from 0 to {n - 1}, at least one; got {chosen.tolist()[:5]}")

    predictions, codes, frequency = [], [], np.zeros(n)
    for x in tqdm(acts.batches(4096), desc="reading", disable=not progress, total=-(-len(acts) // 4096)):
        code = msae.encode(x.to(msae.device)).float().cpu().numpy()
        codes.append(code[:, chosen])
        frequency += (code > 0).sum(axis=0)
        predictions.append(probabilities(ask, x))
    predicted, activations = np.concatenate(predictions), np.concatenate(codes).astype(np.float64)
    frequency /= len(acts)
    guess = predicted > 0.5
    if guess.all() or not guess.any():
        raise ValueError(
            f"the classifier predicts {'the class' if guess.all() else 'another class'} for all {len(acts)} samples: "
            "there is nothing to explain"
        )
    alive = (activations > 0).any(axis=0)
    chosen, activations = chosen[alive], activations[:, alive]
    others = np.setdiff1d(np.flatnonzero(frequency > 0), chosen)
    if len(others) < max(10, num_null // 5):
        raise ValueError(
            f"only {len(others)} latents are left to compare with: ask about fewer than {len(chosen)} of the {n}"
        )
    rank = mannwhitneyu(activations[guess], activations[~guess], axis=0, method="asymptotic")
    association = 2 * rank.statistic / (guess.sum() * (~guess).sum()) - 1

    rows = np.sort(rng.choice(len(acts), min(num_samples, len(acts)), replace=False))
    x = acts[rows]
    before = probabilities(ask, x)
    own = msae.encode(x.to(msae.device)).float().cpu()
    directions = (msae.dictionary.detach().double() / msae.input_scale.double()).float().cpu()
    resample = rng.integers(0, len(rows), (num_bootstrap, len(rows)))
    tails = [alpha / 2, 1 - alpha / 2]
    records, curves, boxes = [], [], []
    for place, latent in enumerate(tqdm(chosen, desc="intervening", unit="concept", disable=not progress)):
        positive_part = activations[:, place][activations[:, place] > 0]
        levels = np.concatenate([[0.0], np.quantile(positive_part, DOSES[1:])])
        at_dose = [_set_to(ask, x, own[:, latent], directions[latent], level) for level in levels]
        strong, absent = at_dose[DOSES.index(STRONG)], at_dose[0]
        change = strong - absent
        low, high = np.quantile(change[resample].mean(axis=1), tails)
        nearest = others[np.argsort(np.abs(frequency[others] - frequency[latent]), kind="stable")]
        nulls = rng.permutation(nearest[: 2 * num_null])[:num_null]
        # As much as the concept's own latent is moved, from where they are: no more, no less.
        step = float(levels[DOSES.index(STRONG)])
        effects = _null_effects(ask, x, directions[nulls], step)
        # Of most of them: some have the classifier's own concepts in them, and would hide everything else.
        spread = float(_NORMAL_MEDIAN * np.median(np.abs(effects)))
        change_of_odds = float((log_odds(strong) - log_odds(absent)).mean())
        records.append(
            {
                "latent": int(latent),
                "association": float(association[place]),
                "p_association": float(rank.pvalue[place]),
                "effect": float(change.mean()),
                "low": float(low),
                "high": float(high),
                "flip_rate": float(((strong > 0.5) != (absent > 0.5)).mean()),
                "log_odds": change_of_odds,
                "null_spread": spread,
                "z": change_of_odds / max(spread, 1e-12),
            }
        )
        for quantile, level, answers in zip(DOSES, levels, at_dose, strict=True):
            ends = np.quantile(answers[resample].mean(axis=1), tails)
            curves.append((int(latent), float(level), quantile, float(answers.mean()), *map(float, ends)))
        for predicted in (True, False):
            some = activations[guess == predicted, place]
            box = map(float, np.quantile(some, _BOX_SHARES))
            boxes.append((int(latent), predicted, len(some), float((some > 0).mean()), *box))
    frame = pd.DataFrame(records)
    frame.insert(1, "name", names_of(concepts, frame["latent"].tolist()))
    frame["p_association"] = holm(frame["p_association"].to_numpy())
    frame["q_effect"] = false_discovery_control(2 * norm.sf(frame["z"].abs().to_numpy()))
    frame["drives"] = (frame["q_effect"] <= alpha) & ((frame["low"] > 0) | (frame["high"] < 0))
    frame = frame.sort_values("effect", key=abs, ascending=False, kind="stable")
    frame = frame.sort_values("drives", ascending=False, kind="stable", ignore_index=True)
    curves = pd.DataFrame(curves, columns=["latent", "dose", "quantile", "probability", "low", "high"])
    columns = ["latent", "predicted", "num_samples", "active", "low", "q1", "median", "q3", "high"]
    name = target or (positive if isinstance(positive, str) else f"class {positive}")
    return BiasReport(
        frame, curves, pd.DataFrame(boxes, columns=columns), float(before.mean()), name, len(rows), alpha
    )


def _named(concepts: ConceptTable | None) -> Sequence[int]:
    """The best latent of each validated name."""
    found = [] if concepts is None else concepts.validated().drop_duplicates("name")["latent"].tolist()
    if not found:
        problem = "the latents have no names" if concepts is None else "none of the names is validated"
        raise ValueError(f"{problem}: say which latents to ask about, or name them by a vocabulary that fits")
    return found


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's step-down correction: p-values under which the family-wise error rate is kept."""
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected


def _set_to(ask: Classifier, x: torch.Tensor, own: torch.Tensor, direction: torch.Tensor, level: float) -> np.ndarray:
    """Predictions with one latent at a level; what the MSAE does not reconstruct stays."""
    return probabilities(ask, x + (level - own)[:, None] * direction)


def _null_effects(ask: Classifier, x: torch.Tensor, directions: torch.Tensor, step: float) -> np.ndarray:
    """Mean change of the log-odds along each of several directions, by one step from where it is."""
    before = log_odds(probabilities(ask, x))
    moved = (x[None] + step * directions[:, None]).reshape(-1, x.shape[1])
    return log_odds(probabilities(ask, moved)).reshape(len(directions), len(x)).mean(axis=1) - before.mean()
