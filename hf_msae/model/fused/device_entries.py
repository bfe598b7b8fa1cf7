"""The entries of a chunk of codes by rank, on any device, by operations that torch has everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F

from ..nested_topk import rank


class DeviceEntries:
    """See [`CompiledEntries`], whose methods it has. Entries are ranked as far as levels cut some of them off."""

    sparse_share = 1 / 64
    """A ring of fewer entries than this share of the latents is decoded entry by entry. Not measured on a GPU."""

    ranks_all = False

    def __init__(self, dictionary: torch.Tensor):
        self.dictionary, self.gradient = dictionary, None

    def rank(self, code: torch.Tensor, latents: torch.Tensor, ks: Sequence[int]) -> np.ndarray:
        self.latents = latents
        active = (code != 0).sum(1)  # NaN among them
        most = int(active.max())
        cutting = [k for k in ks if k < most]
        self.order = rank(code, max(cutting)) if cutting else None
        return active.cpu().numpy()

    def rings(self, borders: Sequence[int]) -> DeviceRings:
        return DeviceRings(self, borders)

    def top(self, k: int, out: torch.Tensor) -> torch.Tensor:
        kept = self.order[:, :k]
        return out.zero_().scatter_(1, kept, self.latents.gather(1, kept))

    def add_dictionary_gradient_(self, out: torch.Tensor) -> None:
        if self.gradient is not None:
            out += self.gradient

    def close(self) -> None:
        """Nothing to give back."""


class DeviceRings:
    """See [`CompiledRings`]."""

    def __init__(self, entries: DeviceEntries, borders: Sequence[int]):
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
