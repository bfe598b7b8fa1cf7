"""The entries of a chunk of codes by rank, with numpy and torch alone; any floating dtype."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F


class TorchEntries:
    """The same methods as [`CompiledEntries`]. Entries are ranked only as far as some level cuts them off."""

    sparse_share = 1 / 16
    """A ring of fewer entries than this share of the latents is decoded faster entry by entry, as measured."""

    ranks_all = False

    def __init__(self, dictionary: torch.Tensor):
        self.dictionary, self.gradient = dictionary, None

    def rank(self, code: torch.Tensor, latents: torch.Tensor, ks: Sequence[int]) -> np.ndarray:
        self.latents = latents
        active = (code != 0).sum(1)  # NaN among them
        most = int(active.max())
        cutting = [k for k in ks if k < most]
        self.order = _rank(code, max(cutting)) if cutting else None
        return active.numpy()

    def rings(self, borders: Sequence[int]) -> TorchRings:
        return TorchRings(self, borders)

    def top(self, k: int, out: torch.Tensor) -> torch.Tensor:
        kept = self.order[:, :k]
        return out.zero_().scatter_(1, kept, self.latents.gather(1, kept))

    def add_dictionary_gradient_(self, out: torch.Tensor) -> None:
        if self.gradient is not None:
            out += self.gradient


class TorchRings:
    """The same methods as [`CompiledRings`]."""

    def __init__(self, entries: TorchEntries, borders: Sequence[int]):
        self._entries = entries
        self._columns = [entries.order[:, begin:end] for begin, end in pairwise(borders)]

    def decode(self) -> torch.Tensor:
        entries = self._entries
        with torch.enable_grad():  # torch's own gradients of what is looked up
            self._table = entries.dictionary.detach().requires_grad_()
            self._values = [entries.latents.gather(1, each).requires_grad_() for each in self._columns]
            self._decoded = [
                F.embedding_bag(columns, self._table, per_sample_weights=values, mode="sum")
                for columns, values in zip(self._columns, self._values, strict=True)
            ]
        return torch.stack([each.detach() for each in self._decoded]).cumsum_(0)

    def add_gradients_(self, gradients: torch.Tensor, out: torch.Tensor) -> None:
        *of_values, of_table = torch.autograd.grad(self._decoded, [*self._values, self._table], list(gradients))
        out.scatter_add_(1, torch.cat(self._columns, 1), torch.cat(of_values, 1))
        self._entries.gradient = of_table if self._entries.gradient is None else self._entries.gradient.add_(of_table)


def _rank(code: torch.Tensor, k: int) -> torch.Tensor:
    """Do what [`rank`] does, faster on a CPU: numpy sorts integers in vector registers."""
    if code.dtype == torch.float64:  # too wide for value and place to fit into one integer
        return code.argsort(dim=1, descending=True, stable=True)[:, :k]
    n = code.shape[1]
    keys = (code.view(torch.int32) & 0x7FFFFFFF).to(torch.int64).bitwise_left_shift_(32)
    rows = keys.add_(torch.arange(n - 1, -1, -1, device="cpu")).numpy()
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        list(threads.map(lambda part: part.sort(axis=1), np.array_split(rows, torch.get_num_threads())))
    return torch.from_numpy(n - 1 - (rows[:, : -k - 1 : -1] & 0xFFFFFFFF))
