"""Ranking and looking up the entries of a chunk of codes with numpy and torch, in any floating dtype."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import torch

from .row_sorter import RowSorter
from .sparse_rows import SparseRows, column_slices

_CACHE_ELEMENTS = 2**19
"""Number of entries to look up repeatedly in random order: 2 MB in float32."""


class TorchEntries:
    """Ranks and looks up entries; see [`CompiledEntries`], which has the same methods."""

    sparse_share = 1 / 9
    """A ring with fewer entries than this share of the latents is decoded faster entry by entry (measured)."""

    def __init__(self, dictionary: torch.Tensor, rows: int):
        self.dictionary = dictionary
        self.threads = ThreadPoolExecutor(torch.get_num_threads())
        self._sorter = RowSorter(rows, len(dictionary), dictionary.dtype, self.threads, torch.get_num_threads())
        self._slices: list[torch.Tensor] | None = None

    def rank(self, code: torch.Tensor, latents: torch.Tensor, ks: Sequence[int]) -> np.ndarray:
        """Rank the entries of a chunk."""
        self.code, self.latents = code, latents
        self.ranking = self._sorter(code)
        self.active = np.count_nonzero(code.numpy(), axis=1)
        return self.active

    def rings(self, borders: Sequence[int]) -> TorchRings:
        """Return the entries between ranks."""
        return TorchRings(self, borders)

    def top(self, k: int, out: torch.Tensor) -> torch.Tensor:
        """Write the k largest entries of each row to `out`."""
        last, following = self.ranking.values([k - 1, k]).unbind(1)
        torch.gt(self.code, following[:, None], out=out)
        tied = ((last == following) & (last > 0)).nonzero()[:, 0]
        if len(tied):
            columns = torch.from_numpy(self.ranking.columns(tied.numpy(), 0, k).astype(np.int64))
            out[tied] = torch.zeros_like(out[tied]).scatter(1, columns, 1.0)
        return out.mul_(self.latents)

    def close(self) -> None:
        """Release the threads."""
        self.threads.shutdown()

    def slices(self) -> list[torch.Tensor]:
        """Return the dictionary in slices, made at first use."""
        if self._slices is None:
            self._slices = column_slices(self.dictionary)
        return self._slices


class TorchRings:
    """Rings of a chunk; see [`CompiledRings`]."""

    def __init__(self, entries: TorchEntries, borders: Sequence[int]):
        self._entries = entries
        most = int(entries.active.max(initial=0))
        borders = [min(border, most) for border in borders]
        self._rings = len(borders) - 1
        # So few rows that d numbers for each ring and embedding fit in the cache of a core.
        few = max(1, _CACHE_ELEMENTS // (self._rings * entries.dictionary.shape[1]))
        self._parts = [slice(start, start + few) for start in range(0, len(entries.code), few)]

        def entries_of(part: slice) -> SparseRows:
            columns, dense = entries.ranking.columns(part, borders[0], borders[-1]), entries.latents[part]
            if len(borders) > 2:
                places = [border - borders[0] for border in borders]
                rings = np.concatenate([columns[:, begin:end].ravel() for begin, end in pairwise(places)])
                codes = np.repeat(np.arange(self._rings * len(dense)), np.repeat(np.diff(borders), len(dense)))
            else:  # the last entries of rows, of which some have fewer
                codes, places = np.nonzero(np.arange(*borders) < entries.active[part, None])
                rings = columns[codes, places]
            return SparseRows(codes.astype(np.int32), rings, self._rings * len(dense), dense)

        # All before the first is used, since torch's threads would wait for these.
        self._sparse = list(entries.threads.map(entries_of, self._parts))

    def decode(self) -> torch.Tensor:
        """Decode the entries up to the end of each ring."""
        d = self._entries.dictionary.shape[1]
        decoded = [each.decode(self._entries.slices()).view(self._rings, -1, d) for each in self._sparse]
        return torch.cat(decoded, dim=1).cumsum_(0)

    def add_gradients_(self, gradients: torch.Tensor, of_code: torch.Tensor, of_dictionary: torch.Tensor) -> None:
        """Add the gradients of the entries."""
        dictionary = self._entries.dictionary
        for part, entries in zip(self._parts, self._sparse, strict=True):
            right = gradients[:, part].reshape(-1, dictionary.shape[1])
            entries.add_products_(of_code[part], right, dictionary)
            entries.add_outer_(of_dictionary, right)
