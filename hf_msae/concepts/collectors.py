"""Collectors for the one pass over a dataset: how often latents are active, their columns, sparse codes, top rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from .codes import CodeBatch, Collector

if TYPE_CHECKING:
    from ..model.modeling_msae import MSAEModel


@dataclass(frozen=True)
class Firing:
    """How often and how strongly every latent is active."""

    counts: np.ndarray  # rows in whose full code the latent is active, int64 (n,)
    strong: np.ndarray  # rows in which the latent is among the k strongest, int64 (n,)
    mean: np.ndarray  # mean activation over all rows, float64 (n,)
    maximum: np.ndarray  # largest activation, float32 (n,)
    num_samples: int  # rows read
    k: int  # how many latents of a row count as its strongest


class FiringCollector(Collector):
    """Collects `Firing`: sums only, so its memory does not grow with the data."""

    needs_latents = True

    def __init__(self, k: int = 1) -> None:
        self.k = k

    def start(self, msae: MSAEModel, num_rows: int) -> None:
        """Allocate what is kept."""
        n, device = msae.config.num_latents, msae.device
        self._counts = torch.zeros(n, dtype=torch.int64, device=device)
        self._strong = torch.zeros(n, dtype=torch.int64, device=device)
        self._sum = np.zeros(n)
        self._maximum = torch.zeros(n, device=device)
        self._num_rows = num_rows

    def update(self, batch: CodeBatch) -> None:
        """Take a batch."""
        self._counts += batch.latents.count_nonzero(dim=0)
        self._strong += torch.bincount(batch.indices[batch.values > 0], minlength=len(self._strong))
        self._sum += batch.latents.sum(dim=0, dtype=torch.float64).cpu().numpy()
        self._maximum = torch.maximum(self._maximum, batch.latents.amax(dim=0).float())

    def result(self) -> Firing:
        """Return the counts and means."""
        counts, strong, maximum = (each.cpu().numpy() for each in (self._counts, self._strong, self._maximum))
        return Firing(counts, strong, self._sum / self._num_rows, maximum, self._num_rows, self.k)


class RowCollector(Collector):
    """Collects what a function of a batch returns for each of its rows, in one array.

    Args:
        function: Function of a `CodeBatch` that has neither latents nor values, e.g. of its raw embeddings.
    """

    def __init__(self, function: Callable[[CodeBatch], np.ndarray]) -> None:
        self._function = function

    def start(self, msae: MSAEModel, num_rows: int) -> None:
        """Forget what earlier passes collected."""
        self._parts: list[np.ndarray] = []

    def update(self, batch: CodeBatch) -> None:
        """Take a batch."""
        self._parts.append(self._function(batch))

    def result(self) -> np.ndarray:
        """Return the array, with one entry per row."""
        return np.concatenate(self._parts)


@dataclass(frozen=True)
class LatentColumns:
    """The activations of a few latents in all rows."""

    latents: np.ndarray  # the latents, int64 (m,)
    values: np.ndarray  # their activations in the full code, float32 (N, m)
    strong: np.ndarray | None  # whether each is among the k strongest latents of the row, bool (N, m); None without k


class ColumnCollector(Collector):
    """Collects `LatentColumns` of some latents; with a `k`, also whether each is among the k strongest of a row."""

    needs_latents = True

    def __init__(self, latents: Sequence[int] | np.ndarray, k: int | None = None) -> None:
        self.latents, self.k = np.array(latents, dtype=np.int64).reshape(-1), k  # a copy: torch wants it writable

    def start(self, msae: MSAEModel, num_rows: int) -> None:
        """Allocate what is kept."""
        shape = (num_rows, len(self.latents))
        self._values = np.empty(shape, dtype=np.float32)
        self._strong = None if self.k is None else np.empty(shape, dtype=bool)
        self._chosen = torch.from_numpy(self.latents).to(msae.device)

    def update(self, batch: CodeBatch) -> None:
        """Take a batch."""
        self._values[batch.rows] = batch.latents[:, self._chosen].float().cpu().numpy()
        if self._strong is not None:
            strong = torch.zeros_like(batch.latents, dtype=torch.bool).scatter_(1, batch.indices, batch.values > 0)
            self._strong[batch.rows] = strong[:, self._chosen].cpu().numpy()

    def result(self) -> LatentColumns:
        """Return the columns."""
        return LatentColumns(self.latents, self._values, self._strong)


@dataclass(frozen=True)
class SparseCodes:
    """The k largest activations of every row."""

    values: torch.Tensor  # activations, largest first, 0 where fewer are positive: float32 (N, k)
    indices: torch.Tensor  # their latents, int64 (N, k)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, part: tuple[slice, slice]) -> SparseCodes:
        """Return some rows, and the first activations of each: `codes[:100, :8]`."""
        return SparseCodes(self.values[part], self.indices[part])

    @property
    def k(self) -> int:
        """Number of activations kept of each row."""
        return self.values.shape[1]


class SparseCollector(Collector):
    """Collects `SparseCodes`."""

    def __init__(self, k: int) -> None:
        self.k = k

    def start(self, msae: MSAEModel, num_rows: int) -> None:
        """Allocate what is kept."""
        self._values = torch.empty(num_rows, self.k)
        self._indices = torch.empty(num_rows, self.k, dtype=torch.int64)

    def update(self, batch: CodeBatch) -> None:
        """Take a batch."""
        self._values[batch.rows], self._indices[batch.rows] = batch.values.float().cpu(), batch.indices.cpu()

    def result(self) -> SparseCodes:
        """Return the codes."""
        return SparseCodes(self._values, self._indices)


@dataclass(frozen=True)
class TopRows:
    """The rows that activate each latent most."""

    values: np.ndarray  # activations, largest first: float32 (n, number); -1 where there are fewer rows
    rows: np.ndarray  # their rows, int64 (n, number)
    num_active: np.ndarray  # rows in which each latent is active, int64 (n,)


class TopRowsCollector(Collector):
    """Collects `TopRows`.

    Args:
        number: How many rows to keep of each latent.
    """

    needs_latents = True

    def __init__(self, number: int) -> None:
        self.number = number

    def start(self, msae: MSAEModel, num_rows: int) -> None:
        """Allocate what is kept."""
        n = msae.config.num_latents
        self._values = torch.full((n, self.number), -1.0)
        self._rows = torch.zeros(n, self.number, dtype=torch.int64)
        self._num_active = torch.zeros(n, dtype=torch.int64)

    def update(self, batch: CodeBatch) -> None:
        """Take a batch."""
        codes = batch.latents.float().cpu().T
        self._num_active += codes.count_nonzero(dim=1)
        top, rows = codes.topk(min(self.number, codes.shape[1]), dim=1)
        values = torch.cat([self._values, top], dim=1)
        self._values, kept = values.topk(self.number, dim=1)
        self._rows = torch.cat([self._rows, rows + batch.rows.start], dim=1).gather(1, kept)

    def result(self) -> TopRows:
        """Return the rows."""
        return TopRows(self._values.numpy(), self._rows.numpy(), self._num_active.numpy())
