"""Mean and spread of embeddings, in one pass that also checks every row."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from tqdm.auto import tqdm

if TYPE_CHECKING:
    from .dataset import EmbeddingDataset

# Numbers held in float64 at a time: 32 MiB.
_BLOCK_ENTRIES = 2**22


@dataclass(frozen=True, eq=False)
class EmbeddingStatistics:
    """What normalisation and the fraction of variance unexplained need to know about a data set.

    Attributes:
        mean: per-dimension mean, float64 of shape (d,).
        variance: per-dimension variance, float64 of shape (d,).
        num_samples: embeddings counted.
    """

    mean: torch.Tensor
    variance: torch.Tensor
    num_samples: int

    @classmethod
    def from_moments(cls, moments: RunningMoments, source: str) -> EmbeddingStatistics:
        """Raises:
        ValueError: all embeddings of `source` are equal, so that no scale would bring them to unit variance.
        """
        # Exact: sums of this many equal float32 values round to nothing in float64, so equal rows have distance 0.
        if moments.sum_squared_distance == 0.0:
            raise ValueError(
                f"all {moments.num_samples} embeddings of {source} are equal: they have no variance to explain"
            )
        return cls(moments.mean, moments.sum_squared_deviations / moments.num_samples, moments.num_samples)

    @property
    def mean_squared_distance(self) -> float:
        """E||x - mean||^2, the total variance over dimensions."""
        return float(self.variance.sum())

    @property
    def input_scale(self) -> float:
        """sqrt(d) / sqrt(E||x - mean||^2): scaled by it, centred embeddings have mean squared entry 1."""
        return math.sqrt(len(self.mean)) / math.sqrt(self.mean_squared_distance)


class RunningMoments:
    """Mean and summed squared deviations from it, updated block by block and merged without cancellation.

    Blocks are centred on their own mean and combined by the pairwise update of Chan, Golub and LeVeque (1983), all in
    float64: a mean that is large beside the spread costs no digits.
    """

    def __init__(self) -> None:
        self.num_samples = 0
        self.sum_squared_deviations: torch.Tensor | None = None
        """Of each dimension, float64 (d,); None before the first row."""
        self.mean: torch.Tensor | None = None
        """Mean of all rows so far, float64 (d,); None before the first."""

    @property
    def sum_squared_distance(self) -> float:
        """Sum over dimensions of the squared deviations."""
        return 0.0 if self.sum_squared_deviations is None else float(self.sum_squared_deviations.sum())

    def update(self, rows: torch.Tensor) -> None:
        """Count a block of shape (B, d)."""
        if len(rows) == 0:
            return
        rows = rows.to(torch.float64)
        mean = rows.mean(dim=0)
        self._combine(len(rows), mean, (rows - mean).square_().sum(dim=0))

    def merge(self, other: RunningMoments) -> None:
        """Count everything `other` has counted (another part of the data)."""
        if other.num_samples:
            self._combine(other.num_samples, other.mean, other.sum_squared_deviations)

    def _combine(self, count: int, mean: torch.Tensor, sum_squared_deviations: torch.Tensor) -> None:
        total = self.num_samples + count
        if self.mean is None:
            self.mean, self.sum_squared_deviations = torch.zeros_like(mean), torch.zeros_like(mean)
        difference = mean - self.mean
        between = difference.square() * (self.num_samples * count / total)
        self.mean = self.mean + difference * (count / total)
        self.sum_squared_deviations = self.sum_squared_deviations + sum_squared_deviations + between
        self.num_samples = total


def compute_statistics(activations: EmbeddingDataset, progress: bool = False) -> EmbeddingStatistics:
    """Read every embedding once; memory does not depend on their number.

    Raises:
        ValueError: a row holds NaN or infinity (file and row are named), or all rows are equal, so that no scale
            would bring them to unit variance.
    """
    moments = RunningMoments()
    block = max(1, _BLOCK_ENTRIES // activations.width)
    with tqdm(total=len(activations), desc="statistics", unit="row", disable=not progress) as bar:
        for rows in activations.batches(block):
            moments.update(rows)
            # A sum over the block, so it is finite only where every row of it is: cheaper than testing each value.
            if not math.isfinite(moments.sum_squared_distance):
                _refuse_non_finite(activations, rows, first_row=moments.num_samples - len(rows))
            bar.update(len(rows))
    return EmbeddingStatistics.from_moments(moments, activations.source)


def _refuse_non_finite(activations: EmbeddingDataset, rows: torch.Tensor, first_row: int) -> None:
    finite = rows.isfinite().all(dim=1)
    row = first_row + int((~finite).nonzero()[0])  # float32 squares cannot overflow float64: some row is to blame
    raise ValueError(
        f"row {row} of {activations.source}{activations.location(row)} holds NaN or infinity (as float32); "
        "drop such rows, for example with datasets.Dataset.filter, or extract them again"
    )
