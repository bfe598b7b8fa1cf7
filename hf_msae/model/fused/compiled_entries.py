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

_SLICE_BYTES = 2**21
"""Size of a slice of the dictionary, which is looked up in random order and should fit in the cache of a core."""

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


class CompiledEntries:
    """[`TorchEntries`] in float32, several times faster.

    Entries are ordered by ring but not inside a ring, so nothing is sorted. The dictionary is looked up in slices of
    its columns, and its gradient summed in the same slices, each by one thread.
    """

    sparse_share = 1 / 5
    """A ring with fewer entries than this share of the latents is decoded faster entry by entry (measured)."""

    def __init__(self, library: ctypes.CDLL, dictionary: torch.Tensor):
        self._library, self._threads = library, 1 if _forked else torch.get_num_threads()
        self.n, self.d = dictionary.shape
        fitting = (w for w in (64, 32) if 4 * w * self.n <= _SLICE_BYTES and -(-self.d // w) >= self._threads)
        self._width = next(fitting, 16)
        # (slices, n, width), with zeros after the last column.
        padded = F.pad(dictionary, (0, -self.d % self._width)) if self.d % self._width else dictionary
        self._table = WORKSPACE.take("table", -(-self.d // self._width), self.n, self._width)
        self._table.copy_(padded.view(self.n, -1, self._width).transpose(0, 1))
        self._gradient = None

    def rank(self, code: torch.Tensor, latents: torch.Tensor, ks: Sequence[int]) -> np.ndarray:
        """Rank the entries of a chunk by `code` `(rows, n)`, with values from `latents`; return entries per row."""
        self.rows, self._active = len(code), torch.empty(len(code), dtype=torch.int32, device="cpu")
        borders, ranked = torch.tensor(ks, device="cpu"), WORKSPACE.take("ranked", *code.shape, dtype=torch.int32)
        if self._call("rank_rows", code, self.rows, self.n, borders, len(ks), self._active, ranked):
            raise MemoryError("not enough memory to rank the activations of a batch")
        self._firsts = F.pad(self._active.cumsum(0), (1, 0))
        number = int(self._firsts[-1])
        self._columns = WORKSPACE.take("columns", number, dtype=torch.int32)
        self._values = WORKSPACE.take("values", number)
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

    def add_dictionary_gradient_(self, out: torch.Tensor) -> None:
        """Add the gradient of the dictionary from the rings of all chunks to `out` `(n, d)`."""
        if self._gradient is not None:
            out += self._gradient.transpose(0, 1).reshape(self.n, -1)[:, : self.d]

    def close(self) -> None:
        """Release threads, of which only [`TorchEntries`] has its own."""

    def decode(self, starts: torch.Tensor) -> torch.Tensor:
        """Decode the rings that begin at `starts`; see [`CompiledRings`]."""
        out = WORKSPACE.take("decoded", starts.shape[1] - 1, self.rows, self.d)
        self._look_up("decode", self._table, self._values, starts, out)
        return out

    def add_gradients_(self, starts: torch.Tensor, gradients: torch.Tensor, out: torch.Tensor) -> None:
        """Add the gradients of the rings that begin at `starts`; see [`CompiledRings`]."""
        if self._gradient is None:
            self._gradient = WORKSPACE.take("dictionary gradient", *self._table.shape).zero_()
        gradients = gradients.contiguous()
        parts = min(self._threads, len(self._table), _MOST_PARTS)
        sums = WORKSPACE.take("products", parts * len(self._values))
        self._look_up("add_products", self._table, sums, starts, gradients, out, parts)
        self._look_up("add_outer", self._gradient, self._values, starts, gradients)

    def _look_up(self, function: str, table, values, starts: torch.Tensor, *others: torch.Tensor | int) -> None:
        places = (self._columns, values, starts, self.rows, starts.shape[1] - 1)
        self._call(function, self._width, table, self.n, self.d, *places, *others)

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

    def add_gradients_(self, gradients: torch.Tensor, out: torch.Tensor) -> None:
        """Add the gradients of the entries to `out` `(rows, n)`, and keep those of the dictionary.

        Args:
            gradients: Gradient of the loss by what each ring alone decodes to: `(rings, rows, d)`.
            out: Gradient of the code.
        """
        self._entries.add_gradients_(self.starts, gradients, out)
