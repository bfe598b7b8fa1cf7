"""Mean and variance of embeddings, in one pass that also checks every row."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from tqdm.auto import tqdm

if TYPE_CHECKING:
    from .dataset import EmbeddingDataset

BLOCK_ENTRIES = 2**22
"""Numbers held in float64 at a time: 32 MiB."""


@dataclass(frozen=True, eq=False)
class EmbeddingStatistics:
    """Mean and variance of a dataset, for normalization and the fraction of variance unexplained.

    Attributes:
        mean: Mean of each dimension, float64 of shape (d,).
        variance: Variance of each dimension, float64 of shape (d,).
        num_samples: Number of embeddings.
    """

    mean: torch.Tensor
    variance: torch.Tensor
    num_samples: int

    @classmethod
    def from_moments(cls, moments: RunningMoments, source: str) -> EmbeddingStatistics:
        """Make the statistics from moments.

        Raises:
            ValueError: All embeddings of `source` are equal, so no scale would bring them to unit variance.
        """
        # An exact test: sums of equal float32 values are exact in float64, so equal rows have distance 0.
        if moments.sum_squared_distance == 0.0:
            raise ValueError(f"all {moments.num_samples} embeddings of {source} are equal: they have no variance")
        return cls(moments.mean, moments.sum_squared_deviations / moments.num_samples, moments.num_samples)

    @property
    def mean_squared_distance(self) -> float:
        """E||x - mean||^2, the sum of the variances of all dimensions."""
        return float(self.variance.sum())

    @property
    def input_scale(self) -> float:
        """sqrt(d) / sqrt(E||x - mean||^2): it scales centered embeddings to a mean squared entry of 1."""
        return math.sqrt(len(self.mean)) / math.sqrt(self.mean_squared_distance)


class RunningMoments:
    """Running mean and sum of squared deviations, updated block by block without cancellation.

    Blocks are centered on their own mean and combined by the pairwise update of Chan, Golub and LeVeque (1983) in
    float64, so a mean much larger than the spread costs no precision.

    Attributes:
        mean: Mean of all rows so far, float64 (d,); None before the first row.
        sum_squared_deviations: Of each dimension, float64 (d,); None before the first row.
    """

    def __init__(self) -> None:
        self.num_samples = 0
        self.sum_squared_deviations: torch.Tensor | None = None
        self.mean: torch.Tensor | None = None

    @property
    def sum_squared_distance(self) -> float:
        """Sum of the squared deviations over all dimensions."""
        return 0.0 if self.sum_squared_deviations is None else float(self.sum_squared_deviations.sum())

    def update(self, rows: torch.Tensor) -> None:
        """Add a block of rows, (B, d)."""
        if len(rows) == 0:
            return
        rows = rows.to(torch.float64)
        mean = rows.mean(dim=0)
        self._combine(len(rows), mean, (rows - mean).square_().sum(dim=0))

    def merge(self, other: RunningMoments) -> None:
        """Add the moments of another part of the data."""
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


def compute_statistics(embeddings: EmbeddingDataset, progress: bool = False) -> EmbeddingStatistics:
    """Compute the statistics in one pass, in constant memory."""
    moments = RunningMoments()
    block = max(1, BLOCK_ENTRIES // embeddings.width)
    with tqdm(total=len(embeddings), desc="statistics", unit="row", disable=not progress) as bar:
        for rows in embeddings.batches(block):
            moments.update(rows)
            # The sum is finite only if every row is: cheaper than testing each value.
            if not math.isfinite(moments.sum_squared_distance):
                embeddings.check_finite(rows, range(moments.num_samples - len(rows), moments.num_samples))
            bar.update(len(rows))
    return EmbeddingStatistics.from_moments(moments, embeddings.source)
