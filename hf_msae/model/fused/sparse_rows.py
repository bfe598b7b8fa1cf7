"""Products with a few entries of every row of a dense code, and their gradients, on a CPU.

The columns of the dictionary are taken in slices, and few rows at a time, so that random accesses stay in the cache of
a core (benchmarks/RESULTS.md).
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

_SLICE = 64
"""Columns of the dictionary in a slice."""


def column_slices(dictionary: torch.Tensor) -> list[torch.Tensor]:
    """Return the columns of `(n, d)` in contiguous blocks, for [`SparseRows.decode`]."""
    return [part.contiguous() for part in dictionary.split(_SLICE, dim=1)]


class SparseRows:
    """Some entries of codes `(number, n)`, each code a selection from a row of one dense code `(rows, n)`.

    `codes` and `columns`, int32, are the places of the entries, codes ascending and columns distinct within a code.
    The codes of row i are i, i + rows, ...
    """

    def __init__(self, codes: np.ndarray, columns: np.ndarray, number: int, dense: torch.Tensor):
        rows, n = dense.shape
        places = codes.astype(np.int64) % rows * n + columns
        values = dense.numpy().reshape(-1).take(places)
        self._columns, self._values = torch.from_numpy(columns), torch.from_numpy(values)
        self._starts = _starts(codes, number)
        # The same entries by column, for the gradients. numpy sorts 16-bit integers by counting.
        order = np.argsort(columns.astype(np.uint16) if n <= 2**16 else columns, kind="stable")
        self._by_column = [torch.from_numpy(each.take(order)) for each in (codes, columns, values, places)]
        self._column_starts = _starts(columns, n)

    def decode(self, slices: list[torch.Tensor]) -> torch.Tensor:
        """Return the codes times the dictionary, `(number, d)`, given its [`column_slices`]."""
        parts = [_weighted_sums(self._columns, self._starts, self._values, part) for part in slices]
        return torch.cat(parts, dim=1)

    def add_products_(self, out: torch.Tensor, left: torch.Tensor, dictionary: torch.Tensor) -> None:
        """Add `left @ dictionary.T` to `out` `(rows, n)` at the entries only; `left` is `(number, d)`."""
        codes, columns, _, places = self._by_column
        # By the weight of a row in a sum, the gradient is the product of the row and the sum's gradient.
        products = torch.ops.aten._embedding_bag_per_sample_weights_backward(
            dictionary, left, codes, self._column_starts, columns, 0, -1
        )
        out.view(-1).scatter_add_(0, places, products)

    def add_outer_(self, out: torch.Tensor, right: torch.Tensor) -> None:
        """Add `codes.T @ right` to `out` `(n, d)`; `right` is `(number, d)`."""
        codes, _, values, _ = self._by_column
        for begin in range(0, right.shape[1], 2 * _SLICE):
            part = slice(begin, begin + 2 * _SLICE)
            out[:, part] += _weighted_sums(codes, self._column_starts, values, right[:, part].contiguous())


def _starts(sorted_numbers: np.ndarray, number: int) -> torch.Tensor:
    """Return where each of 0, ..., number - 1 begins in the sorted numbers."""
    counts = np.bincount(sorted_numbers, minlength=number)
    return torch.from_numpy((np.cumsum(counts) - counts).astype(np.int32))


def _weighted_sums(
    indices: torch.Tensor, starts: torch.Tensor, weights: torch.Tensor, table: torch.Tensor
) -> torch.Tensor:
    return F.embedding_bag(indices, table, starts, mode="sum", per_sample_weights=weights)
