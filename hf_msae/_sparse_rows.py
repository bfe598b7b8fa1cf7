"""Products with a few entries of a dense code: what they decode to, and both gradients of that, on a CPU."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import csr_array

_SLICE = 64
"""Columns of the dictionary looked up at a time: a slice of a few thousand rows stays in a core's cache. Measured:
half the time of whole rows of 512."""


def column_slices(dictionary: torch.Tensor) -> list[torch.Tensor]:
    """The columns of `(n, d)` in contiguous blocks, for [`SparseRows.decode`]."""
    return [part.contiguous() for part in dictionary.split(_SLICE, dim=1)]


class SparseRows:
    """
    Some entries of a code `(rows, n)`, sorted into `groups` codes of the same shape, one below the other.

    Args:
        code (`torch.Tensor` of shape `(rows, n)`):
            Contiguous, on the CPU.
        entries (`np.ndarray`):
            Which: positions in the flattened code, ascending.
        group (`np.ndarray`, *optional*):
            The group of each entry. Default: all are in the first.
        groups (`int`, *optional*, defaults to 1):
            How many groups there are.
    """

    def __init__(self, code: torch.Tensor, entries: np.ndarray, group: np.ndarray | None = None, groups: int = 1):
        self.num_rows, self.n = code.shape
        if group is not None:
            order = np.concatenate([np.flatnonzero(group == each) for each in range(groups)])
            entries, group = entries[order], group[order]
        self.entries = torch.from_numpy(entries)
        row = entries // self.n
        columns = (entries - row * self.n).astype(np.int32)
        bag = row if group is None else row + group.astype(np.int64) * self.num_rows
        self.bag = torch.from_numpy(bag)
        self.starts = np.zeros(groups * self.num_rows + 1, np.int32)
        np.cumsum(np.bincount(bag, minlength=groups * self.num_rows), out=self.starts[1:])
        self.values = code.view(-1)[self.entries]
        self.columns = torch.from_numpy(columns)

    def __len__(self) -> int:
        return len(self.entries)

    def decode(self, slices: list[torch.Tensor]) -> torch.Tensor:
        """The codes times the dictionary: `(groups * rows, d)`, from [`column_slices`] of it."""
        return _weighted_sums(self.columns, self.starts, self.values, slices)

    def add_products_(self, out: torch.Tensor, left: torch.Tensor, dictionary: torch.Tensor) -> None:
        """Adds `(left @ dictionary.T)` to `out` `(rows, n)` at the entries; `left` is `(groups * rows, d)`."""
        products = torch.ops.aten._embedding_bag_per_sample_weights_backward(
            left, dictionary, self.columns, torch.from_numpy(self.starts[:-1]), self.bag.int(), 0, -1
        )
        flat = out.view(-1)
        flat[self.entries] += products

    def add_outer_(self, out: torch.Tensor, right: torch.Tensor) -> None:
        """Adds `codes.T @ right` to `out` `(n, d)`; `right` is `(groups * rows, d)`."""
        shape = (len(self.starts) - 1, self.n)
        by_column = csr_array((self.values.numpy(), self.columns.numpy(), self.starts), shape=shape).tocsc()
        values, rows = torch.from_numpy(by_column.data), torch.from_numpy(by_column.indices)
        for start, part in zip(range(0, right.shape[1], _SLICE), column_slices(right), strict=True):
            out[:, start : start + _SLICE] += _weighted_sums(rows, by_column.indptr, values, [part])


def _weighted_sums(
    indices: torch.Tensor, starts: np.ndarray, weights: torch.Tensor, slices: list[torch.Tensor]
) -> torch.Tensor:
    offsets = torch.from_numpy(starts[:-1])
    parts = [F.embedding_bag(indices, part, offsets, mode="sum", per_sample_weights=weights) for part in slices]
    return torch.cat(parts, dim=1)
