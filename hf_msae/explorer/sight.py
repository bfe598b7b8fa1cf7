"""What a model sees in a picture: its embedding as concepts, from coarse to fine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from .inputs import read_choice

if TYPE_CHECKING:
    from .explorer import Explorer

ALL = "all"
DEFAULT = "16"
SHOWN = 16
STEPS = tuple(str(2**step) for step in range(3, 11))


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


@dataclass(frozen=True)
class Level:
    """How well a code of so many concepts rebuilds the embedding.

    Attributes:
        granularity: "8", ..., "all".
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
        granularity: that was asked for.
        concepts: those with the largest part in size first, `SHOWN` of them at most.
        num_others, others: how many more there are, and their parts.
        bias: the part of the model's bias.
        unexplained: the part that the code leaves.
        levels: one for each granularity, coarse to fine.
    """

    granularity: str
    concepts: tuple[SeenConcept, ...]
    num_others: int
    others: float
    bias: float
    unexplained: float
    levels: tuple[Level, ...]


def granularities(explorer: Explorer) -> tuple[str, ...]:
    """Numbers of concepts to choose from: powers of two that leave some out of a picture's code, and all of them."""
    most = int((explorer.codes > 0).sum(axis=1).max())
    return (*(step for step in STEPS if int(step) < most), ALL)


@torch.no_grad()
def see(explorer: Explorer, embedding: torch.Tensor, granularity: Any) -> Sight:
    """Take an embedding apart into concepts.

    With x the embedding minus the mean of all pictures, z the code of the granularity, d the dictionary and e what it
    leaves, x = sum_j z_j d_j + b + e, and the part of a concept is z_j <d_j, x> / <x, x>. It is the same at every
    granularity that has the concept.

    Args:
        explorer: with the model.
        embedding: raw, (d,).
        granularity: one of `granularities`.

    Raises:
        VisitorError: it is none of them.
    """
    choices = granularities(explorer)
    granularity = read_choice(granularity, choices, "granularity")
    msae = explorer.msae
    embedding = embedding.to(msae.device)
    mean = msae.input_mean.double()
    x = embedding.double() - mean
    size = (x @ x).clamp(min=1e-300)
    levels = []
    for each in choices:
        code = msae.encode(embedding[None], None if each == ALL else int(each))
        rebuilt = msae.decode(code)[0].double()
        cosines = (F.cosine_similarity(rebuilt, embedding.double(), 0), F.cosine_similarity(rebuilt - mean, x, 0))
        levels.append(Level(each, int((code > 0).sum()), *map(float, cosines)))
        if each == granularity:
            chosen, residual = code[0].double(), embedding.double() - rebuilt
    active = chosen.nonzero().flatten()
    parts = chosen[active] * (msae.dictionary[active].double() @ x) / msae.input_scale.double() / size
    order = parts.abs().argsort(descending=True, stable=True)
    active, parts = active[order], parts[order]
    unexplained = float(residual @ x / size)
    found = zip(active[:SHOWN].tolist(), chosen[active[:SHOWN]].tolist(), parts[:SHOWN].tolist(), strict=True)
    return Sight(
        granularity,
        tuple(_concept(explorer, latent, activation, part) for latent, activation, part in found),
        max(0, len(active) - SHOWN),
        float(parts[SHOWN:].sum()),
        float(1 - parts.sum()) - unexplained,
        unexplained,
        tuple(levels),
    )


def _concept(explorer: Explorer, latent: int, activation: float, part: float) -> SeenConcept:
    label = explorer.label(latent)
    chosen = explorer.concepts.get(str(label))
    key = str(label) if chosen is not None and chosen.latent == latent else f"latent {latent}"
    return SeenConcept(latent, str(label), key, label.validated, activation, part)
