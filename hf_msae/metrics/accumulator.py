"""Sums that grow batch by batch and add up over processes: what every streamed metric is made of."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from accelerate import Accelerator
    from typing_extensions import Self


class SumAccumulator:
    """Named float64 sums over samples; a subclass adds to them in `update` and divides them in `compute`.

    Counts are kept in float64 too, exact up to 2**53, so that all sums travel between processes together. The sums
    move to the device of the first batch.
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
        """A sum that is a single number."""
        return float(self._sums[name])

    def merge(self, other: Self) -> None:
        """Count everything `other` has counted (another part of the data)."""
        self.add(**other._sums)

    def reduce(self, accelerator: Accelerator | None) -> Self:
        """A new accumulator with the sums over all processes; this one stays as it is. Every process must call it."""
        result = copy.deepcopy(self)
        if accelerator is not None and accelerator.num_processes > 1:
            packed = torch.cat([each.reshape(-1).to(accelerator.device) for each in self._sums.values()])
            parts = accelerator.reduce(packed, reduction="sum").split([each.numel() for each in self._sums.values()])
            for (name, each), part in zip(self._sums.items(), parts, strict=True):
                result._sums[name] = part.reshape(each.shape)
        return result

    def require_samples(self) -> None:
        """Raises:
        ValueError: nothing was counted yet.
        """
        if self.value("samples") == 0:
            raise ValueError(f"{type(self).__name__} has seen no sample: there is nothing to compute")
