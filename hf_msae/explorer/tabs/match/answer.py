"""The cosine of two embeddings, split into concepts that add up to it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ....concepts import SimilarityExplanation, explain_similarity
from ...explorer import Explorer
from ...inputs import MAX_TEXT, VisitorError

_ROUNDING = 1e-6
"""What cosines in single precision may be wrong by."""


@dataclass(frozen=True, eq=False)
class Match:
    """What `match` found."""

    # The cosine of the two raw embeddings, and what each concept of the picture contributes to it.
    explanation: SimilarityExplanation
    num_closer: int  # how many pictures of the collection are closer to the second embedding than the picture is
    num_pictures: int  # how many pictures the collection has


def match(explorer: Explorer, picture: torch.Tensor, other: torch.Tensor) -> Match:
    """Explain the cosine of two raw embeddings (d,), and compare it with those of the collection's pictures.

    That of the picture is split into concepts; the other, of words or a picture, stays whole.
    """
    if not (picture.norm() > 0 and other.norm() > 0):
        raise VisitorError("The model's embedding of one of the two is zero, so it cannot be compared: try another.")
    found = explain_similarity(explorer.msae, picture, other, explorer.model.concepts)
    cosines = explorer.index.by_embedding(other, len(explorer.images))["similarity"]
    # The second picture may be one of the collection: that it is closest to itself says nothing.
    num_closer = int(((cosines > found.similarity + _ROUNDING) & (cosines < 1 - _ROUNDING)).sum())
    return Match(found, num_closer, len(cosines))


def fitting_words(explorer: Explorer, row: int) -> str:
    """Words of at most `MAX_TEXT` characters that fit a picture of the collection.

    They are its caption, or else the validated concept that is most active in it, or else "a picture".
    """
    caption = explorer.caption(row)
    if caption != f"picture {row}" and len(caption) <= MAX_TEXT:
        return caption
    active = {each.name: explorer.codes[row, each.latent] for each in explorer.concepts.values() if each.validated}
    name = max(active, key=lambda each: active[each], default="")
    return name if active.get(name, 0) > 0 else "a picture"
