"""The entries of a chunk of codes by rank, looked up by the functions of `entries.c`."""

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
"""A slice of the dictionary, looked up in random order, should fit in a core's cache."""


_MOST_PARTS = 8
"""Slices are looked up in so many parts at most, each of which needs memory for its sums of products."""

_forked = False
"""Whether this process was forked: OpenMP's threads do not come along, and waiting for them would never end."""


def _note_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


class Workspace(threading.local):
    """Tensors by name, which each thread keeps and reuses.

    The system clears every page of memory that it hands out, which would take a tenth of a step.
    """

    def __init__(self):
        self._kept: dict[tuple[str, torch.dtype], torch.Tensor] = {}

    def take(self, name: str, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """An uninitialized tensor on the CPU, good until its name is taken again."""
        number = math.prod(shape)
        kept = self._kept.get((name, dtype))
        if kept is None or len(kept) < number:
            with torch.inference_mode(False):  # else it could not be written to outside of that mode
                kept = self._kept[name, dtype] = torch.empty(number, dtype=dtype, device="cpu")
        return kept[:number].view(shape)


WORKSPACE = Workspace()


class CompiledEntries:
    """What [`TorchEntries`] is, in float32, several times faster.

    Entries are kept ordered by ring, with no order inside a ring, so ranking is no sorting. The dictionary is looked
    up in slices of its columns, and its gradient summed in the same slices, each by one thread.
    """

    sparse_share = 1 / 5
    """A ring of fewer entries than this share of the latents is faster decoded entry by entry, as measured."""

    def __init__(self, library: ctypes.CDLL, dictionary: torch.Tensor):
        self._library, self._threads = library, 1 if _forked else torch.get_num_threads()
        self.n, self.d = dictionary.shape
        fitting = (w for w in (64, 32) if 4 * w * self.n <= _SLICE_BYTES and -(-self.d // w) >= self._threads)
        self._width = next(fitting, 16)
        # (slices, n, width), the last one filled up with zeros.
        padded = F.pad(dictionary, (0, -self.d % self._width)) if self.d % self._width else dictionary
        self._table = WORKSPACE.take("table", -(-self.d // self._width), self.n, self._width)
        self._table.copy_(padded.view(self.n, -1, self._width).transpose(0, 1))
        self._gradient = None

    def rank(self, code: torch.Tensor, latents: torch.Tensor, ks: Sequence[int]) -> np.ndarray:
        """Take up a chunk: `code` `(rows, n)` ranks its entries, `latents` are their values. How many each row has."""
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
        """The entries between ranks, from the first border to the second, and so on."""
        ends = torch.minimum(self._active[:, None], torch.tensor(borders, device="cpu"))
        return CompiledRings(self, self._firsts[:-1, None] + ends)

    def top(self, k: int, out: torch.Tensor) -> torch.Tensor:
        """The chunk's k-sparse code, in `out` `(rows, n)`."""
        starts = self.rings([0, k]).starts
        self._call("add_entries", self.n, self._columns, self._values, starts, self.rows, 1, out.zero_())
        return out

    def add_dictionary_gradient_(self, out: torch.Tensor) -> None:
        """Adds what all rings of all chunks gave the dictionary to `out` `(n, d)`."""
        if self._gradient is not None:
            out += self._gradient.transpose(0, 1).reshape(self.n, -1)[:, : self.d]

    def close(self) -> None:
        """Nothing to give back; [`TorchEntries`] has threads."""

    def decode(self, starts: torch.Tensor) -> torch.Tensor:
        out = WORKSPACE.take("decoded", starts.shape[1] - 1, self.rows, self.d)
        self._look_up("decode", self._table, self._values, starts, out)
        return out

    def add_gradients_(self, starts: torch.Tensor, gradients: torch.Tensor, out: torch.Tensor) -> None:
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
    """Rings of a chunk. `starts` `(rows, rings + 1)`: where each begins among the entries, and the last one ends."""

    def __init__(self, entries: CompiledEntries, starts: torch.Tensor):
        self._entries, self.starts = entries, starts

    def decode(self) -> torch.Tensor:
        """What the entries up to the end of each ring decode to: `(rings, rows, d)`."""
        return self._entries.decode(self.starts)

    def add_gradients_(self, gradients: torch.Tensor, out: torch.Tensor) -> None:
        """Takes the gradient by what each ring's own entries decode to, `(rings, rows, d)`: adds the gradient by the
        entries to `out` `(rows, n)`, and keeps the dictionary's for [`CompiledEntries.add_dictionary_gradient_`].
        """
        self._entries.add_gradients_(self.starts, gradients, out)
