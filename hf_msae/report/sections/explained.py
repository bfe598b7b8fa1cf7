"""Explained: a few rows taken apart into concepts, coarse first, and what the full code adds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...concepts import explain_embedding
from ...concepts.labels import Label, Labels

if TYPE_CHECKING:
    from ...concepts import Explanation
    from ..context import Context

_BARS = 8


@dataclass(frozen=True)
class Bar:
    """A latent's activation.

    Attributes:
        label: The latent.
        activation: Its activation.
        width: Width of the bar, in percent of the longest of the example.
    """

    label: Label
    activation: float
    width: float


@dataclass(frozen=True)
class CodeShown:
    """A code of a row.

    Attributes:
        title: Which code.
        explained: Share of the embedding's distance from the mean that it explains.
        num_active: Latents active in it.
        bars: The strongest latents; of the full code, those that the coarse one lacks.
    """

    title: str
    explained: float
    num_active: int
    bars: list[Bar]


@dataclass(frozen=True)
class RowExplained:
    """A row and its codes.

    Attributes:
        row: Number of the row.
        codes: The coarse code, if the MSAE has several levels, and the full one.
    """

    row: int
    codes: list[CodeShown]


def build(context: Context) -> list[RowExplained]:
    """Explain rows drawn at random, at the MSAE's smallest level and in full."""
    msae, embeddings, labels, settings = context.msae, context.embeddings, context.labels, context.settings
    number = min(settings.num_explained, len(embeddings))
    rows = np.random.default_rng([settings.seed, 1]).choice(len(embeddings), number, replace=False)
    levels, everything = msae.config.nesting_ks, msae.config.num_latents
    found = []
    for row in rows.tolist():
        full = explain_embedding(msae, embeddings[row], labels.concepts, everything)
        longest = max(1e-12, full.frame["activation"].max()) if len(full.frame) else 1.0
        if len(levels) == 1:
            found.append(RowExplained(row, [_shown("The full code", full, labels, longest)]))
            continue
        coarse = explain_embedding(msae, embeddings[row], labels.concepts, everything, min(levels))
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
