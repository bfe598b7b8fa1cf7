"""Interventions: what a classifier says when one latent of its embeddings is set to a value and all else stays.

Bias reports and red teams stand on these: both set latents, compare with what random latents do, and report what
drives a classifier as findings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from ..concepts.table import ConceptTable, display_name, name_columns
from ..statistics import (
    SEVERITIES,
    Finding,
    benjamini_hochberg,
    bootstrap_interval,
    log_odds,
    matched_null,
    robust_spread,
)
from .probabilities import Classifier, probabilities

if TYPE_CHECKING:
    from ..model.modeling_msae import MSAEModel

DOSES = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
"""Quantiles of a latent's positive activations that it is set to; the first one is zero activation."""
STRONG = 0.9
"""The quantile that is called strong: effects are those of going from absent to strong."""
FEWEST_NAMED = 10
"""With fewer validated names than this, the strongest latents are tested too."""
EFFECTS = (0.0, 0.1, 0.25)
"""Changes of the mean probability from which a driver is a minor, moderate and severe finding."""
_MOST_UNNAMED = 50
_MOST_ENTRIES = 2**24  # of moved copies of the rows, at a time


@dataclass(frozen=True)
class Interventions:
    """What a classifier answers when latents (m,) are set to levels (m, doses): probabilities (m, doses, rows).

    `null_spread` is the spread of the changes of the log-odds that random latents cause (m,), moved by as much.
    """

    latents: np.ndarray
    levels: np.ndarray
    answers: np.ndarray
    null_spread: np.ndarray

    def to_pandas(
        self, concepts: ConceptTable | None, low: np.ndarray, high: np.ndarray, alpha: float
    ) -> pd.DataFrame:
        """Return one row per latent, in their order: the columns of `BiasReport.frame` without associations.

        `low` and `high` are the ends of the intervals of the effects (m,).
        """
        absent, strong = self.answers[:, 0], self.strong
        change_of_odds = (log_odds(strong) - log_odds(absent)).mean(axis=1)
        z = change_of_odds / np.maximum(self.null_spread, 1e-12)
        frame = pd.DataFrame(
            {
                "latent": self.latents,
                **name_columns(concepts, self.latents.tolist()),
                "effect": (strong - absent).mean(axis=1),
                "low": low,
                "high": high,
                "flip_rate": ((strong > 0.5) != (absent > 0.5)).mean(axis=1),
                "log_odds": change_of_odds,
                "null_spread": self.null_spread,
                "z": z,
                "q_effect": benjamini_hochberg(_p_values(z)),
            }
        )
        frame["drives"] = (frame["q_effect"] <= alpha) & ((frame["low"] > 0) | (frame["high"] < 0))
        return frame

    @property
    def strong(self) -> np.ndarray:
        """Answers when the latents are strong (m, rows)."""
        return self.answers[:, DOSES.index(STRONG)]

    def intervals(
        self, alpha: float, num_bootstrap: int, seed: int | np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return bootstrap intervals over rows: ends (m, 1 + doses), of the effect and of the answers at each dose."""
        effects = (self.strong - self.answers[:, 0])[:, None]
        values = np.concatenate([effects, self.answers], axis=1)
        return bootstrap_interval(values, level=1 - alpha, num_resamples=num_bootstrap, seed=seed)


def intervene(
    ask: Classifier,
    x: torch.Tensor,
    own: torch.Tensor,
    directions: torch.Tensor,
    latents: np.ndarray,
    activations: np.ndarray,
    frequency: np.ndarray,
    num_null: int,
    rng: np.random.Generator,
    progress: bool = False,
) -> Interventions:
    """Set latents (m,) from zero to ever larger values, and move as many random latents by as much.

    Random latents are drawn from those that are not tested and active about as often. The spread of their effects is
    estimated by the median of their sizes, since some of them carry the classifier's own concepts.

    `own` are the codes (rows, n) of the embeddings x that are changed, `directions` what one unit of each latent adds
    to an embedding (n, d), `activations` those of the tested latents in all data (N, m), each positive somewhere, and
    `frequency` the share of the data that each latent is active in (n,).
    """
    others = np.setdiff1d(np.flatnonzero(frequency > 0), latents)
    if len(others) < max(10, num_null // 5):
        raise ValueError(
            f"only {len(others)} latents are left to compare with: test fewer than {len(latents)} of the "
            f"{len(frequency)} latents"
        )
    before = log_odds(probabilities(ask, x))
    levels = np.zeros((len(latents), len(DOSES)))
    answers, spreads = np.empty((len(latents), len(DOSES), len(x))), np.empty(len(latents))
    for place, latent in enumerate(tqdm(latents, desc="intervening", unit="concept", disable=not progress)):
        values = activations[:, place].astype(np.float64)
        levels[place, 1:] = np.quantile(values[values > 0], DOSES[1:])
        for dose, level in enumerate(levels[place]):  # what the MSAE does not reconstruct stays
            answers[place, dose] = probabilities(ask, x + (level - own[:, latent])[:, None] * directions[latent])
        controls = others[matched_null(frequency[latent], frequency[others], num_null, rng)]
        # Moved by as much as the concept itself, from wherever they are.
        step = float(levels[place, DOSES.index(STRONG)])
        spreads[place] = robust_spread(_null_effects(ask, x, directions[controls], step, before))
    return Interventions(latents, levels, answers, spreads)


def latent_directions(msae: MSAEModel) -> torch.Tensor:
    """Return what one unit of each latent adds to a raw embedding, float32 (n, d) on the CPU."""
    return (msae.dictionary.detach().double() / msae.input_scale.double()).float().cpu()


def latents_to_test(total: np.ndarray, concepts: ConceptTable | None) -> np.ndarray:
    """Choose the best latent of each validated name and, if these are few, those with the largest totals."""
    named = validated_latents(concepts)
    if len(named) >= FEWEST_NAMED:
        return np.sort(named)
    number = min(_MOST_UNNAMED, int((total > 0).sum()) // 2)  # the others are compared with
    strongest = np.argsort(-total, kind="stable")[:number]
    unnamed = strongest[~np.isin(strongest, named)]
    return np.sort(np.concatenate([named, unnamed[: max(0, number - len(named))]]))


def validated_latents(concepts: ConceptTable | None) -> np.ndarray:
    """Return the best latent of each validated name."""
    if concepts is None or not concepts.has_q_values:
        return np.empty(0, np.int64)
    return concepts.best_validated()["latent"].to_numpy(np.int64)


def driver_candidates(frame: pd.DataFrame, target: str, audit: str) -> list[Finding]:
    """Turn interventions into tests of a report: whether each concept moves the classifier more than chance.

    The p-value is that of the z-score, the severity that of the end of the effect's interval that is nearer to zero.
    """
    found = []
    for row in frame.itertuples():
        sign, validated = (1 if row.effect >= 0 else -1), bool(row.validated)
        nearer = row.low if sign > 0 else -row.high
        passed = [name for name, limit in zip(SEVERITIES[::-1], EFFECTS, strict=True) if nearer > limit]
        concept = display_name(row.name, row.latent, validated)
        evidence = (
            f"When {concept} goes from absent to strong and all else stays, the probability of {target} changes by "
            f"{row.effect:+.3f} on average, {row.flip_rate:.1%} of predictions flip, and the log-odds change "
            f"{abs(row.z):.1f} times as much as with random latents that are as frequent and moved by as much."
        )
        if not validated:
            evidence += " Its name is not validated: look at the pictures that activate it."
        title = f"{concept[:1].upper()}{concept[1:]} {'raises' if sign > 0 else 'lowers'} predictions of {target}"
        found.append(
            Finding(
                passed[-1] if passed else None,
                title,
                "effect",
                float(row.effect),
                float(row.low),
                float(row.high),
                evidence,
                _ADVICE.format(concept=concept, target=target),
                float(_p_values(np.array([row.z]))[0]),
                audit,
                f"concept {row.latent}",
                target,
            )
        )
    return found


_ADVICE = (
    "Ask whether {target} should depend on {concept}. If not, balance it in the training data or erase it "
    "(hf_msae.steering), and check again; if so, name it as expected."
)


def _p_values(z: np.ndarray) -> np.ndarray:
    from scipy.stats import norm  # here, since it takes most of a second

    return 2 * norm.sf(np.abs(z))


def _null_effects(
    ask: Classifier, x: torch.Tensor, directions: torch.Tensor, step: float, before: np.ndarray
) -> np.ndarray:
    found, at_once = [], max(1, _MOST_ENTRIES // x.numel())
    for some in directions.split(at_once):
        moved = (x[None] + step * some[:, None]).reshape(-1, x.shape[1])
        after = log_odds(probabilities(ask, moved)).reshape(len(some), len(x))
        found.append(after.mean(axis=1) - before.mean())
    return np.concatenate(found)
