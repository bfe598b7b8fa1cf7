"""What a model sees in a picture: its embedding as concepts, from coarse to fine."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pandas as pd
import torch
from torch.nn import functional as F

from ....concepts import explain_embedding
from ...explorer import Explorer
from ...inputs import read_whole_number

ALL = "all"
DEFAULT = 16
LEAST = 8


@dataclass(frozen=True, eq=False)
class Sight:
    """What `see` found. The shares of all concepts, `bias` and `not_reconstructed` add up to 1."""

    granularity: str  # the granularity that was asked for: "8", "11", ..., "all"
    # All active concepts, the largest share first: latent, name, activation, level and share, as `explain_embedding`
    # gives them.
    concepts: pd.DataFrame
    bias: float  # the share of the model's bias
    not_reconstructed: float  # the share of what the MSAE does not reconstruct
    # How well the concepts of each of `granularities`, and of the one that was asked for, rebuild the embedding,
    # coarse to fine: granularity, num_active (how many concepts there are), cosine (of the embedding and its
    # reconstruction) and centered_cosine (the same with the mean of all pictures subtracted from both, which is
    # stricter).
    levels: list[dict[str, Any]]


@lru_cache(maxsize=1)
def granularity_bounds(explorer: Explorer) -> tuple[int, int]:
    """The smallest and the largest number of concepts that can be asked for.

    The largest is the most concepts that any picture of the collection has, and stands for all of a picture's. The
    smallest is `LEAST`, or 1 if the largest is no larger than that.
    """
    most = max(2, int((explorer.codes > 0).sum(axis=1).max()))
    return LEAST if most > LEAST else 1, most


def read_granularity(explorer: Explorer, value: Any) -> int | None:
    """Read how many concepts a visitor wants; None for all, which "all" and the upper bound mean.

    `value` is a whole number within `granularity_bounds`, as a number or in digits, or "all".
    """
    if isinstance(value, str):
        if value == ALL:
            return None
        if value.isascii() and value.isdecimal() and len(value) < 10:
            value = int(value)
    least, most = granularity_bounds(explorer)
    number = read_whole_number(value, least, most, f'The granularity (a number of concepts, or "{ALL}")')
    return None if number == most else number


def granularities(explorer: Explorer) -> tuple[str, ...]:
    """The granularities that are always compared: the powers of two within the bounds, and all."""
    least, most = granularity_bounds(explorer)
    return (*(str(2**step) for step in range(most.bit_length()) if least <= 2**step < most), ALL)


def see(explorer: Explorer, embedding: torch.Tensor, granularity: Any) -> Sight:
    """Split a raw embedding (d,) into concepts, at any granularity that `read_granularity` takes.

    The code of k concepts keeps the k largest activations of the full code. That is exact for every k, since codes
    nest, but the model was trained to reconstruct well only at its own levels (`MSAEConfig.nesting_ks`).
    """
    k, msae = read_granularity(explorer, granularity), explorer.msae
    chosen = ALL if k is None else str(k)
    found = explain_embedding(msae, embedding, explorer.model.concepts, msae.config.num_latents, k)
    compared = sorted({*granularities(explorer), chosen} - {ALL}, key=int)
    return Sight(
        chosen,
        found.frame.sort_values("share", key=abs, ascending=False, kind="stable", ignore_index=True),
        found.bias,
        found.not_reconstructed,
        [_level(explorer, embedding, each) for each in (*compared, ALL)],
    )


@torch.no_grad()
def _level(explorer: Explorer, embedding: torch.Tensor, granularity: str) -> dict[str, Any]:
    msae = explorer.msae
    x, mean = embedding.to(msae.device), msae.input_mean.double()
    code = msae.encode(x[None], None if granularity == ALL else int(granularity))
    x, rebuilt = x.double(), msae.decode(code)[0].double()
    return {
        "granularity": granularity,
        "num_active": int((code > 0).sum()),
        "cosine": float(F.cosine_similarity(rebuilt, x, 0)),
        "centered_cosine": float(F.cosine_similarity(rebuilt - mean, x - mean, 0)),
    }
