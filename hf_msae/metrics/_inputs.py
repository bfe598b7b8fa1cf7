"""Checks that every metric makes of its input, so that a wrong shape never becomes a wrong number."""

from __future__ import annotations

import numpy as np
import torch


def as_matrix(name: str, values: torch.Tensor | np.ndarray, first_row: int = 0) -> torch.Tensor:
    """`values` (B, d) in float64, on their device (on the CPU where the device has no float64).

    Args:
        name: what error messages call the values.
        first_row: number of the first row in the whole data, for error messages.

    Raises:
        ValueError: not a matrix, empty, or not finite.
    """
    values = torch.as_tensor(values).detach()
    if values.ndim != 2:
        raise ValueError(f"{name} must have shape (samples, width), got {tuple(values.shape)}")
    if values.numel() == 0:
        raise ValueError(f"{name} is empty: it has shape {tuple(values.shape)}")
    if values.device.type == "mps":
        values = values.cpu()
    matrix = values.to(torch.float64)
    # One sum instead of a test of every value; a sum of finite float32 values cannot overflow float64.
    if not matrix.sum().isfinite():
        bad = (~matrix.isfinite().all(dim=1)).nonzero()
        if len(bad):
            raise ValueError(f"row {first_row + int(bad[0])} of {name} holds NaN or infinity")
        raise ValueError(f"{name} holds values too large to sum in float64")
    return matrix


def as_pair(
    name_a: str, a: torch.Tensor | np.ndarray, name_b: str, b: torch.Tensor | np.ndarray, first_row: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Two matrices of one and the same shape, in float64.

    Raises:
        ValueError: the shapes differ, or one of them is refused by `as_matrix`.
    """
    shape_a, shape_b = tuple(np.shape(a)), tuple(np.shape(b))
    if shape_a != shape_b:
        raise ValueError(f"{name_a} has shape {shape_a}, but {name_b} has shape {shape_b}")
    return as_matrix(name_a, a, first_row), as_matrix(name_b, b, first_row)


def normalized_rows(x: torch.Tensor) -> torch.Tensor:
    """The rows of a matrix scaled to length 1; those of zeros stay."""
    norms = x.norm(dim=1, keepdim=True)
    return x / norms.masked_fill(norms == 0, 1.0)


def refuse_zero(denominators: torch.Tensor, what: str, metric: str, first_row: int = 0) -> None:
    """Stop where a ratio per sample has no value.

    Raises:
        ValueError: an entry of `denominators` (B,) is zero; the message names the row.
    """
    zero = (denominators == 0).nonzero()
    if len(zero):
        raise ValueError(
            f"{metric} is undefined: row {first_row + int(zero[0])} {what}; leave such rows out of the evaluation"
        )
