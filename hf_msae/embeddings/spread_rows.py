"""Picking rows from many matrices at once."""

from __future__ import annotations

import numpy as np


class SpreadRows:
    """Picks rows from many matrices at once. Arrow chunks of a thousand rows are too small to visit one by one.

    Rows are addressed by their distance from the matrix that comes first in memory, in a view with a row at every
    number from there on. What lies between the matrices is never read. `over` makes it where the matrices allow it.
    """

    def __init__(self, views: list[np.ndarray]) -> None:
        self._views = views  # keeps their memory alive
        addresses = np.array([view.ctypes.data for view in views])
        itemsize, width = views[0].itemsize, views[0].shape[1]
        self._firsts = (addresses - addresses.min()) // itemsize
        self._strides = np.array([view.strides[0] // itemsize for view in views])
        lasts = self._firsts + self._strides * np.array([len(view) - 1 for view in views])
        lowest = views[int(addresses.argmin())]
        shape, strides = (int(lasts.max()) + 1, width), (itemsize, itemsize)
        self._all = np.lib.stride_tricks.as_strided(lowest, shape, strides, writeable=False)

    @classmethod
    def over(cls, views: list[np.ndarray]) -> SpreadRows | None:
        """Return None for a single matrix, or if the matrices differ in more than their place and length."""
        alike = len(views) > 1 and all(
            len(view)
            and view.dtype == views[0].dtype
            and view.dtype in (np.float16, np.float32)
            and view.flags.aligned
            and view.strides[1] == view.itemsize
            and view.strides[0] >= 0
            and view.strides[0] % view.itemsize == 0
            for view in views
        )
        return cls(views) if alike else None

    def rows(self, chunks: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return a copy (len(rows), width) of row `rows[i]` of matrix `chunks[i]` for every i."""
        return self._all[self._firsts[chunks] + rows * self._strides[chunks]]
