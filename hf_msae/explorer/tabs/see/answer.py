"""What a model sees in a picture: its embedding as concepts, from coarse to fine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch.nn import functional as F

from ....concepts.explanation import concept_shares
from ...inputs import read_whole_number

if TYPE_CHECKING:
    from ...explorer import Explorer

ALL = "all"
DEFAULT = 16
LEAST = 8
SHOWN = 16
_bounds: WeakKeyDictionary[Explorer, tuple[int, int]] = WeakKeyDictionary()


@dataclass(frozen=True)
class SeenConcept:
    """A latent that is active in a picture.

    Attributes:
        latent, name, validated: which, as `Explorer.label` says.
        key: what `Explorer.latent_of` takes: the name, or "latent 417" where another latent has the name.
        activation: of the latent.
        part: of what sets the picture apart from the average picture, 1 in all; may be negative.
    """

    latent: int
    name: str
    key: str
    validated: bool
    activation: float
    part: float

    @property
    def is_guess(self) -> bool:
        """Whether it has a name that may be chance; a number is none."""
        return not self.validated and self.name != f"latent {self.latent}"


@dataclass(frozen=True)
class Level:
    """How well a code of so many concepts rebuilds the embedding.

    Attributes:
        granularity: "8", "11", ..., "all".
        num_active: concepts that it has.
        cosine: of the embedding and its reconstruction.
        centred_cosine: the same after the mean of all pictures was taken off both, which is stricter.
    """

    granularity: str
    num_active: int
    cosine: float
    centred_cosine: float


@dataclass(frozen=True)
class Sight:
    """What `see` found: the parts of `concepts`, `others`, `bias` and `unexplained` add up to 1.

    Attributes:
        granularity: that was asked for: "8", "11", ..., "all".
        concepts: those with the largest part in size first, `SHOWN` of them at most.
        num_others, others: how many more there are, and their parts.
        bias: the part of the model's bias.
        unexplained: the part that the code leaves.
        levels: one for each of the `granularities`, and for the one that was asked for; coarse to fine.
    """

    granularity: str
    concepts: tuple[SeenConcept, ...]
    num_others: int
    others: float
    bias: float
    unexplained: float
    levels: tuple[Level, ...]


def granularity_bounds(explorer: Explorer) -> tuple[int, int]:
    """The coarsest and the finest number of concepts that can be asked for.

    The finest is the most concepts that a picture of the collection has active, and means all of a picture's. The
    coarsest is `LEAST`, or 1 where that would leave nothing between them.
    """
    if explorer not in _bounds:
        most = max(2, int((explorer.codes > 0).sum(axis=1).max()))
        _bounds[explorer] = (LEAST if most > LEAST else 1, most)
    return _bounds[explorer]


def read_granularity(explorer: Explorer, value: Any) -> int | None:
    """How many concepts a visitor or a client wants; None for all.

    Args:
        explorer: with the collection.
        value: a whole number within `granularity_bounds`, the same in digits, or "all". The upper bound means all too.

    Raises:
        VisitorError: it is none of these.
    """
    if isinstance(value, str):
        if value == ALL:
            return None
        if value.isascii() and value.isdecimal() and len(value) < 10:
            value = int(value)
    least, most = granularity_bounds(explorer)
    number = read_whole_number(value, least, most, f'The granularity, a number of concepts or "{ALL}",')
    return None if number == most else number


def granularities(explorer: Explorer) -> tuple[str, ...]:
    """The granularities that are always compared: powers of two within the bounds, and all."""
    least, most = granularity_bounds(explorer)
    return (*(str(2**step) for step in range(most.bit_length()) if least <= 2**step < most), ALL)


@torch.no_grad()
def see(explorer: Explorer, embedding: torch.Tensor, granularity: Any) -> Sight:
    """Take an embedding apart into concepts.

    With x the embedding minus the mean of all pictures, z the code of the granularity, d the dictionary and e what it
    leaves, x = sum_j z_j d_j + b + e, and the part of a concept is z_j <d_j, x> / <x, x>. It is the same at every
    granularity that has the concept.

    The code of k concepts is the full code's k largest activations, whatever k is. That is exact at every k: the codes
    nest. But only at the levels it was trained at (`MSAEConfig.nesting_ks`) was the model asked to rebuild well.

    Args:
        explorer: with the model.
        embedding: raw, (d,).
        granularity: as `read_granularity` takes it, e.g. 11, "11" or "all".

    Raises:
        VisitorError: it is none of them.
    """
    k = read_granularity(explorer, granularity)
    granularity = ALL if k is None else str(k)
    compared = {*granularities(explorer), granularity}
    msae = explorer.msae
    embedding = embedding.to(msae.device)
    mean = msae.input_mean.double()
    x = embedding.double() - mean
    levels = []
    for each in (*sorted(compared - {ALL}, key=int), ALL):
        code = msae.encode(embedding[None], None if each == ALL else int(each))
        rebuilt = msae.decode(code)[0].double()
        cosines = (F.cosine_similarity(rebuilt, embedding.double(), 0), F.cosine_similarity(rebuilt - mean, x, 0))
        levels.append(Level(each, int((code > 0).sum()), *map(float, cosines)))
        if each == granularity:
            chosen = code[0].double()
    shares = concept_shares(msae, embedding, k)
    order = shares.shares.abs().argsort(descending=True, stable=True)
    active, parts = shares.latents[order], shares.shares[order]
    found = zip(active[:SHOWN].tolist(), chosen[active[:SHOWN]].tolist(), parts[:SHOWN].tolist(), strict=True)
    return Sight(
        granularity,
        tuple(_concept(explorer, latent, activation, part) for latent, activation, part in found),
        max(0, len(active) - SHOWN),
        float(parts[SHOWN:].sum()),
        shares.bias,
        shares.not_reconstructed,
        tuple(levels),
    )


def _concept(explorer: Explorer, latent: int, activation: float, part: float) -> SeenConcept:
    label = explorer.label(latent)
    return SeenConcept(latent, str(label), explorer.key_of(latent), label.validated, activation, part)
