"""Levels that are prefixes of the dictionary, the other sense of Matryoshka (arXiv 2503.17547)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch

from .products import product


def prefix_reconstructions(
    code: torch.Tensor, widths: Sequence[int], dictionary: torch.Tensor, pre_bias: torch.Tensor, dtype: torch.dtype
) -> list[torch.Tensor]:
    """Decode the first `width` latents of the full code (..., n) for ascending widths, in normalized space."""
    code = code.to(dictionary.dtype)
    levels, decoded = [], pre_bias.to(dtype)
    for begin, end in pairwise([0, *widths]):
        decoded = decoded + product(code[..., begin:end], dictionary[begin:end]).to(dtype)
        levels.append(decoded)
    return levels


def draw_prefixes(number: int, n: int) -> list[int]:
    """Draw the widths of one training step: at most `number`, ascending, the last one n.

    They follow a Pareto distribution with exponent 1/2 between 1 and n, so small widths are drawn most often. Torch's
    CPU generator draws them, to which training gives the same seed for a step in all processes.
    """
    uniform = torch.rand(number - 1, dtype=torch.float64)
    widths = (1 - uniform * (1 - n**-0.5)) ** -2.0
    return sorted({n, *(min(n, int(width)) for width in widths.tolist())})
