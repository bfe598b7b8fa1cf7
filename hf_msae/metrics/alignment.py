"""CKNNA: do two representations of the same samples agree on nearest neighbors?"""

from __future__ import annotations

import math

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from scipy.sparse import csr_array

from .accumulator import SumAccumulator, as_matrix

_SPARSE_COST = 200  # a multiplication of sparse rows takes as long as this many of dense ones (measured)
_BLOCK = 128  # rows that are multiplied with all later ones at a time


def cknna(a: torch.Tensor, b: torch.Tensor, k: int = 10) -> float:
    """Centered kernel nearest-neighbor alignment of two representations of the same N samples.

    With the linear kernels K = a a^T and L = b b^T (rows not normalized), m_K marking for every sample the k others
    with the largest K, and m = m_K * m_L marking the neighbors both agree on::

        CKNNA = h(m*K, m*L) / (sqrt(h(m_K*K, m_K*K) h(m_L*L, m_L*L)) + 1e-6)

    where h is the unbiased HSIC estimator (Song et al. 2012, equation 5), for kernels with their diagonal removed::

        h(K, L) = [sum_ij K_ij L_ji + sum(K) sum(L) / ((N-1)(N-2)) - 2 1^T K L 1 / (N-2)] / (N (N-3))

    From "The Platonic Representation Hypothesis" (arXiv 2405.07987), without normalized rows as in the MSAE authors'
    code. It falls with N at fixed k, so compare it only at the same N. Of equally similar samples, the one with the
    lowest index is the neighbor.

    Args:
        a: (N, d), e.g. raw embeddings.
        b: (N, n), e.g. their latents.
        k: Number of neighbors per sample.

    Returns:
        The alignment: 1 for a = b, or less if products are so small that the 1e-6 of the formula matters (then scale
        both up). NaN if the estimator gives a negative self-alignment, which can happen if k is close to N.

    Raises:
        ValueError: The numbers of samples differ or are too small, or a value is not finite.
    """
    _require_same_length(a, b)
    return align(Neighborhood(as_matrix("a", a), k), Neighborhood(as_matrix("b", b), k))


class Neighborhood:
    """What CKNNA needs of one representation (N, d): computed once, it can be aligned with many others."""

    def __init__(self, x: torch.Tensor, k: int = 10) -> None:
        if k < 1 or len(x) < smallest_batch(k):
            raise ValueError(f"CKNNA with k={k} needs k >= 1 and at least {smallest_batch(k)} samples, got {len(x)}")
        self.kernel = _inner_products(x)
        self.nearest = _nearest(self.kernel, k)  # excludes the diagonal, and thereby so do all masked kernels
        masked = self.kernel * self.nearest
        self.self_alignment = _unbiased_hsic(masked, masked)


def align(a: Neighborhood, b: Neighborhood) -> float:
    """Return the [`cknna`] of two representations of the same samples."""
    both = a.nearest & b.nearest
    squared = a.self_alignment * b.self_alignment
    return _unbiased_hsic(a.kernel * both, b.kernel * both) / (math.sqrt(squared) + 1e-6) if squared >= 0 else math.nan


def _require_same_length(a: torch.Tensor, b: torch.Tensor) -> None:
    if len(a) != len(b):
        raise ValueError(f"both representations must be of the same samples, got {len(a)} and {len(b)} rows")


def smallest_batch(k: int = 10) -> int:
    """Return the smallest number of samples for which CKNNA with k neighbors is defined."""
    return max(k + 1, 4)


class CknnaAccumulator(SumAccumulator):
    """Mean CKNNA over consecutive full batches of a fixed size, however the data arrives.

    A remainder that does not fill a batch is left out, unless there is no full batch at all: then it is the batch.
    Data in several parts or processes is split at multiples of `batch_size`, so that the batches are the same as
    without splitting.

    Args:
        batch_size: Number of samples per batch; CKNNA depends on it.
        k: Number of neighbors per sample.
    """

    def __init__(self, batch_size: int = 1024, k: int = 10) -> None:
        if k < 1 or batch_size < smallest_batch(k):
            raise ValueError(
                f"CKNNA with k={k} needs k >= 1 and batches of {smallest_batch(k)} or more, not {batch_size}"
            )
        super().__init__(total=(), batches=())
        self.batch_size, self.k = batch_size, k
        self._rest: list[tuple[torch.Tensor, torch.Tensor]] = []

    def update(self, a: torch.Tensor, b: torch.Tensor) -> None:
        """Add the next samples: a (B, d) and b (B, n) for any B.

        Raises:
            ValueError: The numbers of samples differ, or a value is not finite.
        """
        _require_same_length(a, b)
        position = 0
        while position < len(a):
            stop = min(position + self.batch_size - self._waiting, len(a))
            # Copies: the caller may reuse its memory, and a view would keep all of it alive.
            self._rest.append((as_matrix("a", a[position:stop]).clone(), as_matrix("b", b[position:stop]).clone()))
            position = stop
            if self._waiting == self.batch_size:
                self.count(*self._neighborhoods())
                self._rest = []

    def count(self, a: Neighborhood, b: Neighborhood) -> None:
        """Add one batch whose neighborhoods are known already."""
        self.add(total=align(a, b), batches=1)

    def reduce(self, accelerator: Accelerator | None) -> CknnaAccumulator:
        """Return a new accumulator with the batches of all processes. Every process must call this.

        Raises:
            ValueError: Several processes hold a part of a batch and none a whole one.
        """
        result = super().reduce(accelerator)
        if accelerator is not None and accelerator.num_processes > 1:
            result._rest = []  # left out, as in `compute`, if there is a full batch
            if not result.value("batches"):
                for rest in gather_object([[(a.cpu(), b.cpu()) for a, b in self._rest]]):
                    result._take_rest(rest)
        return result

    def merge(self, other: CknnaAccumulator) -> None:
        """Add the batches of `other`.

        Raises:
            ValueError: Both hold a part of a batch, which cannot be joined.
        """
        self._take_rest(other._rest)
        super().merge(other)

    def _take_rest(self, rest: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        if self._rest and rest:
            raise ValueError(f"several parts end within a CKNNA batch: split at multiples of {self.batch_size}")
        self._rest = self._rest or list(rest)

    def compute(self) -> dict[str, float | int | None]:
        """Return `cknna` (None if undefined) and `cknna_batch_size`, the number of samples it was computed on."""
        value, size = math.nan, self.batch_size
        if self.value("batches"):
            value = self.value("total") / self.value("batches")
        elif self._waiting:
            size = self._waiting
            value = align(*self._neighborhoods()) if size >= smallest_batch(self.k) else math.nan
        else:
            raise ValueError("CknnaAccumulator has seen no samples: there is nothing to compute")
        return {"cknna": None if math.isnan(value) else value, "cknna_batch_size": size}

    @property
    def _waiting(self) -> int:
        return sum(len(a) for a, _ in self._rest)

    def _neighborhoods(self) -> tuple[Neighborhood, Neighborhood]:
        a, b = (torch.cat(parts) for parts in zip(*self._rest, strict=True))
        return Neighborhood(a, self.k), Neighborhood(b, self.k)


def _inner_products(x: torch.Tensor) -> torch.Tensor:
    """Return x x^T in float64; codes with few active latents are multiplied as sparse rows, several times faster."""
    if x.device.type == "cpu":
        active = (x != 0).numpy()
        if _SPARSE_COST * (np.count_nonzero(active, axis=0).astype(float) ** 2).sum() < x.numel() * len(x):
            places = np.flatnonzero(active)
            values = x.reshape(-1)[torch.from_numpy(places)].double().numpy()
            if np.isfinite(values).all():
                starts = np.searchsorted(places, np.arange(len(x) + 1) * x.shape[1])
                rows = csr_array((values, places % x.shape[1], starts), shape=x.shape)
                return torch.from_numpy((rows @ rows.T).toarray())
    x = as_matrix("x", x)
    if x.device.type != "cpu":
        return x @ x.T
    products = x.new_empty(len(x), len(x))  # symmetric: little more than half of it is computed
    for start in range(0, len(x), _BLOCK):
        stop = start + _BLOCK
        products[start:stop, start:] = x[start:stop] @ x[start:].T
        products[stop:, start:stop] = products[start:stop, stop:].T
    first = _first_equal(x)
    return products if first is None else products[first][:, first]


def _first_equal(x: torch.Tensor) -> torch.Tensor | None:
    """Return for each row the first that is equal to it, or None if all differ.

    Products with equal rows may differ in their last bits between blocks, but are ties of which the first row counts.
    """
    sums, groups = x.sum(dim=1).unique(return_inverse=True)
    if len(sums) == len(x):
        return None
    own = torch.arange(len(x))
    first = own.new_full((len(sums),), len(x)).scatter_reduce(0, groups, own, "amin")[groups]
    return torch.where((x == x[first]).all(dim=1), first, own)


def _nearest(kernel: torch.Tensor, k: int) -> torch.Tensor:
    """Boolean (N, N) mask of the k largest entries of every row, without the diagonal; at ties, the lowest index."""
    others = kernel.clone().fill_diagonal_(-math.inf)
    threshold = others.topk(k, dim=1).values[:, -1:]
    above, level = others > threshold, others == threshold
    if int((above | level).sum()) == k * len(kernel):  # no ties at the threshold
        return above | level
    missing = k - above.sum(dim=1, keepdim=True)
    return above | (level & (level.cumsum(dim=1) <= missing))


def _unbiased_hsic(one: torch.Tensor, other: torch.Tensor) -> float:
    """HSIC of kernels with zero diagonal. 1^T K L 1 needs only the column sums of K and the row sums of L."""
    m = len(one)
    trace = (one * other.T).sum()
    means = one.sum() * other.sum() / ((m - 1) * (m - 2))
    cross = 2.0 * (one.sum(dim=0) @ other.sum(dim=1)) / (m - 2)
    return float((trace + means - cross) / (m * (m - 3)))
