"""Ranking the entries of many rows of non-negative numbers, on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor

import numpy as np
import torch


class RowSorter:
    """Sorts chunks of up to `rows` rows of `n` entries, largest first, ties by ascending place, in reused memory.

    Non-negative floats order like their bits, so value and place fit into one unique integer that orders by value,
    then by descending place. numpy sorts such integers in vector registers. float64 does not fit; torch sorts it.
    """

    def __init__(self, rows: int, n: int, dtype: torch.dtype, threads: Executor, number: int):
        self.n, self.threads, self.number = n, threads, number
        self._order = None
        self._keys = np.empty((rows, n), np.int64) if dtype == torch.float32 else None
        self._places = np.arange(n - 1, -1, -1, dtype=np.int32)

    def __call__(self, code: torch.Tensor) -> RowSorter:
        """Sort `code` `(rows, n)`, to which the methods refer until the next call."""
        self._rows = len(code)
        if self._keys is None:
            self._code = code
            self._order = code.argsort(dim=1, descending=True, stable=True)
            return self
        bits = code.numpy().view(np.int32)
        halves = self._halves()  # the upper half of an integer comes second

        def sort(part: slice) -> None:
            # Without the sign, which zeros and NaN may have. NaN ranks first, as in torch.
            np.bitwise_and(bits[part], 0x7FFFFFFF, out=halves[part, :, 1])
            halves[part, :, 0] = self._places
            self._keys[part].sort(axis=1)

        step = -(-len(code) // self.number)
        list(self.threads.map(sort, [slice(i, min(i + step, len(code))) for i in range(0, len(code), step)]))
        return self

    def columns(self, rows: slice | np.ndarray, start: int, stop: int) -> np.ndarray:
        """Return the places `(rows, stop - start)` of the entries of ranks `start` (0 is the largest) to `stop`."""
        if self._order is not None:
            return self._order.numpy()[rows, start:stop].astype(np.int32)
        found = self._halves()[: self._rows, self.n - stop : self.n - start, 0]
        return self.n - 1 - found[rows, ::-1]

    def values(self, ranks: Sequence[int]) -> torch.Tensor:
        """Return the entries of these ranks, `(rows, len(ranks))`."""
        if self._order is not None:
            return self._code.gather(1, self._order[:, list(ranks)])
        bits = self._halves()[: self._rows, [self.n - 1 - rank for rank in ranks], 1]
        return torch.from_numpy(bits.copy().view(np.float32))

    def _halves(self) -> np.ndarray:
        return self._keys.view(np.int32).reshape(len(self._keys), self.n, 2)
