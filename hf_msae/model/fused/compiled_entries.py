"""Ranking and looking up the entries of a chunk of codes with the C functions in `entries.c`."""

from __future__ import annotations

import ctypes
import math
import os
import threading
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

_CACHE_BYTES = 2**21
"""Size of a core's cache where the system does not say."""

_MOST_PARTS = 8
"""Largest number of parts in which slices are looked up; each needs memory for its sums of products."""

_forked = False
"""Whether this process was forked, which leaves OpenMP's threads behind: waiting for them would never end."""


def _note_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


class Workspace(threading.local):
    """Tensors that each thread keeps and reuses, since clearing new memory would take a tenth of a step."""

    def __init__(self):
        self._kept: dict[tuple[str, torch.dtype], torch.Tensor] = {}

    def take(self, name: str, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Return an uninitialized tensor on the CPU, valid until its name is taken again."""
        number = math.prod(shape)
        kept = self._kept.get((name, dtype))
        if kept is None or len(kept) < number:
            with torch.inference_mode(False):  # else it could only be written to in inference mode
                kept = self._kept[name, dtype] = torch.empty(number, dtype=dtype, device="cpu")
        return kept[:number].view(shape)


WORKSPACE = Workspace()


def slice_width(n: int, d: int, threads: int, cache_bytes: int, dtype: torch.dtype = torch.float32) -> int:
    """Return the number of columns of a dictionary `(n, d)` to look up at once.

    The rows of a slice are looked up in random order. Slices are 256 bytes wide; 128 if a core's cache holds no slice
    of 256 but one of 128, or two thirds of one (measured); and narrower where a thread would have no slice.
    """
    wide, narrow, narrowest = (bytes_of_row // dtype.itemsize for bytes_of_row in (256, 128, 64))
    slice_bytes = 256 * n
    width = narrow if cache_bytes < slice_bytes <= 3 * cache_bytes else wide
    return next((w for w in (wide, narrow) if w <= width and -(-d // w) >= threads), narrowest)


class CompiledEntries:
    """[`TorchEntries`] in float32, several times faster.

    Entries are ordered by ring but not inside a ring, so nothing is sorted. The dictionary is looked up in slices of
    its columns, each by one thread. With `dtype` bfloat16, dictionary and gradients are rounded to it before they are
    looked up, which takes half the cache; sums are in float32.
    """

    sparse_share = 1 / 5
    """A ring with fewer entries than this share of the latents is decoded faster entry by entry (measured)."""

    def __init__(
        self,
        library: ctypes.CDLL,
        dictionary: torch.Tensor,
        workspace: Workspace = WORKSPACE,
        dtype: torch.dtype = torch.float32,
    ):
        self._workspace, self._dtype = workspace, dtype
        self._library, self._threads = library, 1 if _forked else torch.get_num_threads()
        self.n, self.d = dictionary.shape
        self._width = slice_width(self.n, self.d, self._threads, library.cache_bytes() or _CACHE_BYTES, dtype)
        self._table = self._sliced("table", dictionary[None])

    def rank(self, code: torch.Tensor, latents: torch.Tensor, ks: Sequence[int]) -> np.ndarray:
        """Rank the entries of a chunk by `code` `(rows, n)`, with values from `latents`; return entries per row."""
        self.rows, self._active = len(code), torch.empty(len(code), dtype=torch.int32, device="cpu")
        borders = torch.tensor(ks, device="cpu")
        ranked = self._workspace.take("ranked", *code.shape, dtype=torch.int32)
        if self._call("rank_rows", code, self.rows, self.n, borders, len(ks), self._active, ranked):
            raise MemoryError("not enough memory to rank the activations of a batch")
        self._firsts = F.pad(self._active.cumsum(0), (1, 0))
        number = int(self._firsts[-1])
        self._columns = self._workspace.take("columns", number, dtype=torch.int32)
        self._values = self._workspace.take("values", number)
        self._call("pack_rows", latents, self.rows, self.n, self._firsts, ranked, self._columns, self._values)
        return self._active.numpy()

    def rings(self, borders: Sequence[int]) -> CompiledRings:
        """Return the entries with ranks between the first border and the second, the second and the third, ..."""
        ends = torch.minimum(self._active[:, None], torch.tensor(borders, device="cpu"))
        return CompiledRings(self, self._firsts[:-1, None] + ends)

    def top(self, k: int, out: torch.Tensor) -> torch.Tensor:
        """Write the k largest entries of each row to `out` `(rows, n)`, with 0 elsewhere."""
        starts = self.rings([0, k]).starts
        self._call("add_entries", self.n, self._columns, self._values, starts, self.rows, 1, out.zero_())
        return out

    def close(self) -> None:
        """Release threads, of which only [`TorchEntries`] has its own."""

    def decode(self, starts: torch.Tensor) -> torch.Tensor:
        """Decode the rings that begin at `starts`; see [`CompiledRings`]."""
        out = self._workspace.take("decoded", starts.shape[1] - 1, self.rows, self.d)
        self._look_up("decode", self._table, self.n, self._columns, self._values, starts, 0, out)
        return out

    def add_gradients_(
        self, starts: torch.Tensor, gradients: torch.Tensor, of_code: torch.Tensor, of_dictionary: torch.Tensor
    ) -> None:
        """Add the gradients of the rings that begin at `starts`; see [`CompiledRings`]."""
        rings, number = len(gradients), len(self._values)
        right = self._sliced("gradients", gradients)
        parts = min(self._threads, len(self._table), _MOST_PARTS)
        sums = self._workspace.take("products", parts * number)
        self._look_up("add_products", self._table, self.n, self._columns, sums, starts, right, of_code, parts)

        # The gradient of the dictionary is a sum too: in each of its rows, over the gradients where it was looked up.
        places = self._workspace.take("places", number, dtype=torch.int32)
        turned, spans = self._workspace.take("turned", number), torch.empty(self.n, 2, dtype=torch.int64, device="cpu")
        entries = (self.n, self._columns, self._values, starts, self.rows, rings)
        if self._call("turn_entries", *entries, places, turned, spans):
            raise MemoryError("not enough memory for the gradients of a batch")
        self._look_up("decode", right, self.rows * rings, places, turned, spans, 1, of_dictionary)

    def _sliced(self, name: str, table: torch.Tensor) -> torch.Tensor:
        """Return `(rings, rows, d)` as slices `(slices, rows * rings, width)`, with zeros after the last column.

        In bfloat16, the columns of a slice are in the order of the pairs that `entries.c` describes.
        """
        rings, rows, d = table.shape
        if self._dtype == torch.bfloat16:
            shape = -(-d // self._width), rows * rings, self._width
            pairs = self._workspace.take(name, *shape, dtype=self._dtype)
            self._call("pair_columns", self._width, table.contiguous(), rings, rows, d, pairs)
            return pairs
        padded = F.pad(table, (0, -d % self._width)) if d % self._width else table
        slices = self._workspace.take(name, -(-d // self._width), rows, rings, self._width)
        slices.copy_(padded.view(rings, rows, -1, self._width).permute(2, 1, 0, 3))
        return slices.view(len(slices), rows * rings, self._width)

    def _look_up(self, function: str, table, length, columns, values, starts: torch.Tensor, *others) -> None:
        rows, rings = len(starts), starts.shape[1] - 1
        slices = self._width, self._dtype.itemsize, table, length, self.d
        self._call(function, *slices, columns, values, starts, rows, rings, *others)

    def _call(self, function: str, *arguments):
        pointers = [each.data_ptr() if isinstance(each, torch.Tensor) else each for each in arguments]
        return getattr(self._library, function)(self._threads, *pointers)


class CompiledRings:
    """Rings of a chunk, which begin and end at `starts` `(rows, rings + 1)` among its entries."""

    def __init__(self, entries: CompiledEntries, starts: torch.Tensor):
        self._entries, self.starts = entries, starts

    def decode(self) -> torch.Tensor:
        """Decode the entries up to the end of each ring: `(rings, rows, d)`."""
        return self._entries.decode(self.starts)

    def add_gradients_(self, gradients: torch.Tensor, of_code: torch.Tensor, of_dictionary: torch.Tensor) -> None:
        """Add to the gradients of code (rows, n) and dictionary (n, d), given those of what each ring decodes to."""
        self._entries.add_gradients_(self.starts, gradients, of_code, of_dictionary)
