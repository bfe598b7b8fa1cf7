"""Explained: a few rows taken apart into concepts, coarse first, and what the full code adds."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...concepts import explain_embedding
from ...metrics.levels import own_levels

if TYPE_CHECKING:
    from ...concepts import Explanation
    from ...concepts.labels import Labels
    from ...model.modeling_msae import MSAEModel
    from ..context import Context

_BARS = 8


def build(context: Context) -> list[tuple[int, list[dict[str, Any]]]]:
    """Explain rows drawn at random, at the MSAE's smallest level and in full: each row with its codes."""
    msae, embeddings, labels, settings = context.msae, context.embeddings, context.labels, context.settings
    number = min(settings.num_explained, len(embeddings))
    rows = np.random.default_rng([settings.seed, 1]).choice(len(embeddings), number, replace=False)
    (levels, of_dictionary), everything = own_levels(msae.config), msae.config.num_latents
    found = []
    for row in rows.tolist():
        full = explain_embedding(msae, embeddings[row], labels.concepts, everything)
        longest = full.frame["activation"].max()
        if len(levels) == 1:
            found.append((row, [_code("The full code", full, labels, longest)]))
            continue
        if of_dictionary:
            coarse, title = (
                _of_prefix(full, msae, embeddings[row], min(levels)),
                f"The first {min(levels)} latents of the dictionary",
            )
        else:
            coarse = explain_embedding(msae, embeddings[row], labels.concepts, everything, min(levels))
            title = f"The {min(levels)} strongest latents"
        codes = [
            _code(title, coarse, labels, longest),
            _code("What the full code adds", full, labels, longest, set(coarse.frame["latent"])),
        ]
        found.append((row, codes))
    return found


@torch.no_grad()
def _of_prefix(full: Explanation, msae: MSAEModel, embedding: torch.Tensor, width: int) -> Explanation:
    """Return the part of an explanation by the whole code that the first latents of the dictionary have."""
    code = msae.encode(embedding[None].to(msae.device))
    code[:, width:] = 0
    x, rebuilt, mean = (each.double() for each in (embedding.to(code.device), msae.decode(code)[0], msae.input_mean))
    frame = full.frame[full.frame["latent"] < width]
    explained = float(1 - (x - rebuilt).square().sum() / (x - mean).square().sum())
    return replace(full, frame=frame, num_active=len(frame), explained=explained)


def _code(
    title: str, explanation: Explanation, labels: Labels, longest: float, known: set[int] = frozenset()
) -> dict[str, Any]:
    """A code's strongest latents that are not known yet, as bars in percent of the longest."""
    new = explanation.frame[~explanation.frame["latent"].isin(known)].head(_BARS)
    bars = [(labels(each.latent), each.activation, 100 * each.activation / longest) for each in new.itertuples()]
    return {"title": title, "explained": explanation.explained, "num_active": explanation.num_active, "bars": bars}
