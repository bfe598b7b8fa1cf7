"""Explained: a few rows taken apart into concepts, coarse first, and what the full code adds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ...concepts import explain_embedding

if TYPE_CHECKING:
    from ...concepts import Explanation
    from ...concepts.labels import Labels
    from ..context import Context

_BARS = 8


def build(context: Context) -> list[tuple[int, list[dict[str, Any]]]]:
    """Explain rows drawn at random, at the MSAE's smallest level and in full: each row with its codes."""
    msae, embeddings, labels, settings = context.msae, context.embeddings, context.labels, context.settings
    number = min(settings.num_explained, len(embeddings))
    rows = np.random.default_rng([settings.seed, 1]).choice(len(embeddings), number, replace=False)
    levels, everything = msae.config.nesting_ks, msae.config.num_latents
    found = []
    for row in rows.tolist():
        full = explain_embedding(msae, embeddings[row], labels.concepts, everything)
        longest = full.frame["activation"].max()
        if len(levels) == 1:
            found.append((row, [_code("The full code", full, labels, longest)]))
            continue
        coarse = explain_embedding(msae, embeddings[row], labels.concepts, everything, min(levels))
        codes = [
            _code(f"The {min(levels)} strongest latents", coarse, labels, longest),
            _code("What the full code adds", full, labels, longest, set(coarse.frame["latent"])),
        ]
        found.append((row, codes))
    return found


def _code(
    title: str, explanation: Explanation, labels: Labels, longest: float, known: set[int] = frozenset()
) -> dict[str, Any]:
    """A code's strongest latents that are not known yet, as bars in percent of the longest."""
    new = explanation.frame[~explanation.frame["latent"].isin(known)].head(_BARS)
    bars = [(labels(each.latent), each.activation, 100 * each.activation / longest) for each in new.itertuples()]
    return {"title": title, "explained": explanation.explained, "num_active": explanation.num_active, "bars": bars}
