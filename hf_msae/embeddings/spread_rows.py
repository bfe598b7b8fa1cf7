"""Picking rows from many matrices at once."""

from __future__ import annotations

import numpy as np


class SpreadRows:
    """Many matrices as one to pick rows from: Arrow has a thousand rows in each, too few to pick them one by one.

    Rows are looked up by their distance from the matrix that lies first in memory, in a view that begins a row at each
    number from there on. What lies between the matrices is never touched.

    Args:
        views: of one width and dtype, each row contiguous; see `over`.
    """

    def __init__(self, views: list[np.ndarray]):
        self._views = views  # whose memory has to stay
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
        """None for a single matrix, and for such as differ in more than their place and length."""
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
        """A copy of row `rows[i]` of matrix `chunks[i]` for every i: `(len(rows), width)`."""
        return self._all[self._firsts[chunks] + rows * self._strides[chunks]]
