"""Sparsity: how many latents fire per sample, and which never do.

All functions take codes z (N, n) and raise ValueError if they are not a matrix, empty or not finite.
"""

from __future__ import annotations

import numpy as np
import torch

from .._utils.tensors import as_tensor
from .accumulator import SumAccumulator, as_matrix


class SparsityAccumulator(SumAccumulator):
    """Sparsity metrics of codes that arrive batch by batch.

    Args:
        num_latents: Width n of the codes.
    """

    def __init__(self, num_latents: int) -> None:
        super().__init__(samples=(), firings=num_latents)
        self.num_latents = num_latents

    def update(self, latents: torch.Tensor, first_row: int | None = None) -> None:
        """Add a batch of codes z (B, n); errors count rows from `first_row`. A latent fires where it is not zero.

        Raises:
            ValueError: The shape is not (B, n), there are no rows, or a value is not finite.
        """
        latents = as_tensor(latents)
        if latents.ndim != 2 or latents.shape[1] != self.num_latents or len(latents) == 0:
            raise ValueError(f"latents must have shape (samples, {self.num_latents}), got {tuple(latents.shape)}")
        if not latents.sum().isfinite():  # possibly just an overflow of a half-precision sum: check every value
            as_matrix("latents", latents, self.first_row(first_row))
        self.add(samples=len(latents), firings=_count_nonzero(latents))

    @property
    def firings(self) -> torch.Tensor:
        """How often each latent fired, int64 (n,)."""
        return self._sums["firings"].to(torch.int64)

    def compute(self) -> dict[str, float]:
        """Return l0, sparsity, dead_latents and dead_fraction of all batches so far."""
        self.require_samples()
        l0 = float(self._sums["firings"].sum()) / self.value("samples")
        dead = int((self._sums["firings"] == 0).sum())
        return {
            "l0": l0,
            "sparsity": 1.0 - l0 / self.num_latents,
            "dead_latents": dead,
            "dead_fraction": dead / self.num_latents,
        }


def l0(latents: torch.Tensor) -> float:
    """Mean number of latents that fire per sample, mean_i #{j: z_ij != 0}."""
    return _one_shot("l0", latents)


def sparsity(latents: torch.Tensor) -> float:
    """Mean fraction of zeros in a code, 1 - l0 / n, as in the MSAE paper (arXiv 2502.20578)."""
    return _one_shot("sparsity", latents)


def dead_latents(latents: torch.Tensor) -> int:
    """Number of latents that never fire, #{j: z_ij = 0 for all i}. Depends on the number of samples."""
    return int(_one_shot("dead_latents", latents))


def dead_fraction(latents: torch.Tensor) -> float:
    """Fraction of latents that never fire, `dead_latents` / n."""
    return _one_shot("dead_fraction", latents)


def _count_nonzero(latents: torch.Tensor) -> torch.Tensor:
    """Count as `count_nonzero(dim=0)` does, on a CPU in a tenth of its time."""
    if latents.device.type == "cpu" and latents.dtype in (torch.float32, torch.float64):
        return torch.from_numpy(np.count_nonzero(latents.detach().numpy(), axis=0))
    return latents.count_nonzero(dim=0)


def _one_shot(name: str, latents: torch.Tensor) -> float:
    latents = as_matrix("latents", latents)
    accumulator = SparsityAccumulator(latents.shape[1])
    accumulator.update(latents)
    return accumulator.compute()[name]
