"""What every metric is built on: sums that grow batch by batch and across processes, and checks of the input."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import torch

from .._utils.tensors import as_tensor

if TYPE_CHECKING:
    from accelerate import Accelerator
    from typing_extensions import Self


class SumAccumulator:
    """Named float64 sums over samples. A subclass adds to them in `update` and divides them in `compute`.

    Counts are float64 too, exact up to 2**53, so that all sums travel between processes together. The sums move to
    the device of the first batch.
    """

    def __init__(self, **sizes: int) -> None:
        self._sums = {name: torch.zeros(size, dtype=torch.float64) for name, size in sizes.items()}

    def add(self, **terms: torch.Tensor | float) -> None:
        """Add to the sums of these names."""
        for name, term in terms.items():
            if not isinstance(term, torch.Tensor):
                term = torch.tensor(term, dtype=torch.float64)  # torch would make it float32
            term = (term.cpu() if term.device.type == "mps" else term).to(torch.float64)  # mps has no float64
            self._sums[name] = self._sums[name].to(term.device) + term

    def value(self, name: str) -> float:
        """Return a sum that is a single number."""
        return float(self._sums[name])

    def first_row(self, given: int | None) -> int:
        """Return the index of a batch's first row in the whole data: the given one, or the number of rows so far."""
        return int(self.value("samples")) if given is None else given

    def merge(self, other: Self) -> None:
        """Add everything `other` has counted (another part of the data)."""
        self.add(**other._sums)

    def reduce(self, accelerator: Accelerator | None) -> Self:
        """Return a new accumulator with the sums of all processes. Every process must call this."""
        result = copy.deepcopy(self)
        if accelerator is not None and accelerator.num_processes > 1:
            packed = torch.cat([each.reshape(-1).to(accelerator.device) for each in self._sums.values()])
            parts = accelerator.reduce(packed, reduction="sum").split([each.numel() for each in self._sums.values()])
            for (name, each), part in zip(self._sums.items(), parts, strict=True):
                result._sums[name] = part.reshape(each.shape)
        return result

    def require_samples(self) -> None:
        """Raise ValueError if nothing has been counted yet."""
        if self.value("samples") == 0:
            raise ValueError(f"{type(self).__name__} has seen no samples: there is nothing to compute")


def as_matrix(name: str, values: torch.Tensor | np.ndarray, first_row: int = 0) -> torch.Tensor:
    """Return `values` (B, d) in float64 on their device (on the CPU if the device has no float64).

    Raises:
        ValueError: The values are not a matrix, empty or not finite; names them and the row, counted from `first_row`.
    """
    values = as_tensor(values).detach()
    if values.ndim != 2:
        raise ValueError(f"{name} must have shape (samples, width), got {tuple(values.shape)}")
    if values.numel() == 0:
        raise ValueError(f"{name} is empty: it has shape {tuple(values.shape)}")
    if values.device.type == "mps":
        values = values.cpu()
    matrix = values.to(torch.float64)
    # One sum instead of a test of every value: a sum of finite float32 values cannot overflow float64.
    if not matrix.sum().isfinite():
        bad = (~matrix.isfinite().all(dim=1)).nonzero()
        if len(bad):
            raise ValueError(f"row {first_row + int(bad[0])} of {name} holds NaN or infinity")
        raise ValueError(f"{name} holds values too large to sum in float64")
    return matrix


def as_pair(
    name_a: str, a: torch.Tensor | np.ndarray, name_b: str, b: torch.Tensor | np.ndarray, first_row: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return two matrices of the same shape in float64; raise ValueError if the shapes differ or as `as_matrix`."""
    shape_a, shape_b = tuple(np.shape(a)), tuple(np.shape(b))
    if shape_a != shape_b:
        raise ValueError(f"{name_a} has shape {shape_a}, but {name_b} has shape {shape_b}")
    return as_matrix(name_a, a, first_row), as_matrix(name_b, b, first_row)


def normalized_rows(x: torch.Tensor) -> torch.Tensor:
    """Scale the rows of a matrix to length 1; rows of zeros stay."""
    norms = x.norm(dim=1, keepdim=True)
    return x / norms.masked_fill(norms == 0, 1.0)


def refuse_zero(denominators: torch.Tensor, problem: str, metric: str, first_row: int = 0) -> None:
    """Raise ValueError, naming the row, if an entry of `denominators` (B,) is zero."""
    zero = (denominators == 0).nonzero()
    if len(zero):
        raise ValueError(f"{metric} is undefined: row {first_row + int(zero[0])} {problem}; leave it out")
