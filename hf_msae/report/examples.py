"""A few rows taken apart: the coarse code, and what the full one adds to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..concepts import explain_embedding
from ..concepts.labels import Label, Labels

if TYPE_CHECKING:
    from ..concepts import Explanation
    from ..embeddings import EmbeddingDataset
    from ..model.modeling_msae import MSAEModel

_BARS = 8


@dataclass(frozen=True)
class Bar:
    """Attributes:
    label: of a latent.
    activation: of it.
    width: of the bar, in percent of the longest of the example.
    """

    label: Label
    activation: float
    width: float


@dataclass(frozen=True)
class CodeShown:
    """Attributes:
    title: which code.
    explained: share of the distance to the mean that it explains.
    num_active: latents that are active in it.
    bars: of the strongest; of the full code those of them that the coarse one lacks.
    """

    title: str
    explained: float
    num_active: int
    bars: list[Bar]


@dataclass(frozen=True)
class RowExplained:
    """Attributes:
    row: its number.
    codes: the coarse one, where the MSAE has several levels, and the full one.
    """

    row: int
    codes: list[CodeShown]


def explain_rows(
    msae: MSAEModel, acts: EmbeddingDataset, labels: Labels, number: int, seed: int
) -> list[RowExplained]:
    """Rows drawn at random, explained at the MSAE's smallest level and in full."""
    rows = np.random.default_rng([seed, 1]).choice(len(acts), min(number, len(acts)), replace=False)
    levels, everything = msae.config.nesting_ks, msae.config.num_latents
    found = []
    for row in rows.tolist():
        full = explain_embedding(msae, acts[row], labels.concepts, everything)
        longest = max(1e-12, full.frame["activation"].max()) if len(full.frame) else 1.0
        if len(levels) == 1:
            found.append(RowExplained(row, [_shown("The full code", full, labels, longest)]))
            continue
        coarse = explain_embedding(msae, acts[row], labels.concepts, everything, min(levels))
        codes = [
            _shown(f"The {min(levels)} strongest latents", coarse, labels, longest),
            _shown("What the full code adds", full, labels, longest, set(coarse.frame["latent"])),
        ]
        found.append(RowExplained(row, codes))
    return found


def _shown(
    title: str, explanation: Explanation, labels: Labels, longest: float, known: set[int] = frozenset()
) -> CodeShown:
    new = explanation.frame[~explanation.frame["latent"].isin(known)].head(_BARS)
    bars = [
        Bar(labels(each.latent), each.activation, 100 * each.activation / longest)
        for each in new.itertuples(index=False)
    ]
    return CodeShown(title, explanation.explained, explanation.num_active, bars)
