"""The cosine of two embeddings, taken apart into concepts that add up to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ....concepts import explain_similarity
from ...inputs import MAX_TEXT, VisitorError

if TYPE_CHECKING:
    from ...explorer import Explorer

SHOWN = 12
_SAME = 1 - 1e-6


@dataclass(frozen=True)
class Part:
    """What a concept of the picture contributes to the cosine.

    Attributes:
        latent, name, validated: which, as `Explorer.label` says.
        only: whether no other latent that visitors can choose has the name.
        contribution: to the cosine; negative where it speaks against the match.
        is_guess: whether it has a name that may be chance; a number is none.
    """

    latent: int
    name: str
    validated: bool
    only: bool
    contribution: float

    @property
    def is_guess(self) -> bool:
        return not self.validated and self.name != f"latent {self.latent}"


@dataclass(frozen=True)
class Match:
    """What `match` found: the contributions of `parts`, `others`, `bias` and `unexplained` add up to `cosine`.

    Attributes:
        cosine: of the two raw embeddings.
        parts: largest in size first, `SHOWN` of them at most.
        num_others, others: how many more there are, and what they contribute.
        bias: what the mean and the bias of the model, which all pictures share, contribute.
        unexplained: what the code leaves of the picture's embedding.
        num_closer, num_pictures: of so many pictures of the collection, how many have a larger cosine with the second.
    """

    cosine: float
    parts: tuple[Part, ...]
    num_others: int
    others: float
    bias: float
    unexplained: float
    num_closer: int
    num_pictures: int


def match(explorer: Explorer, picture: torch.Tensor, other: torch.Tensor) -> Match:
    """Take the cosine of a picture's embedding with another apart, `hf_msae.concepts.explain_similarity`.

    Args:
        explorer: with the model.
        picture: raw embedding (d,), which is taken apart.
        other: raw embedding (d,) of words or of a picture, taken as it is.

    Raises:
        VisitorError: one of them is zero.
    """
    if not (picture.norm() > 0 and other.norm() > 0):
        raise VisitorError("The model gives one of the two an embedding of zeros, which is like nothing: try another.")
    found = explain_similarity(explorer.msae, picture, other, explorer.model.concepts)
    shown = found.top(SHOWN)
    parts = tuple(
        _part(explorer, latent, contribution)
        for latent, contribution in zip(shown["latent"].tolist(), shown["contribution"].tolist(), strict=True)
    )
    others = float(found.frame["contribution"].iloc[SHOWN:].sum())
    direction = other / other.norm()
    cosines = torch.cat([(x @ direction.cpu()) / x.norm(dim=1) for x in explorer.embeddings.batches(4096)])
    # The second picture may be one of the collection: that it is closest to itself says nothing.
    closer = int(((cosines > found.similarity) & (cosines < _SAME)).sum())
    return Match(
        found.similarity,
        parts,
        max(0, len(found.frame) - SHOWN),
        others,
        found.bias,
        found.not_reconstructed,
        closer,
        len(cosines),
    )


def _part(explorer: Explorer, latent: int, contribution: float) -> Part:
    label = explorer.label(latent)
    chosen = explorer.concepts.get(str(label))
    return Part(latent, str(label), label.validated, chosen is None or chosen.latent == latent, contribution)


def fitting_words(explorer: Explorer, row: int) -> str:
    """Words that fit a picture of the collection: its caption, or else the concept that is most active in it.

    Args:
        explorer: with the collection.
        row: of it.

    Returns:
        At most `MAX_TEXT` characters; "a picture" where there are no captions, and no names either.
    """
    caption = explorer.caption(row)
    if caption != f"picture {row}" and len(caption) <= MAX_TEXT:
        return caption
    active = [(explorer.codes[row, each.latent], each.name) for each in explorer.concepts.values() if each.validated]
    return max(active)[1] if active and max(active)[0] > 0 else "a picture"
