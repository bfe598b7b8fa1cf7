"""Memory that stays from one training step to the next."""

from __future__ import annotations

import math
import threading

import torch


class Workspace(threading.local):
    """Tensors by name, kept by each thread: the system clears every page of memory that it hands out anew, which would
    take a tenth of a step. What is taken under a name again is the same memory.
    """

    def __init__(self):
        self._kept: dict[tuple[str, torch.dtype], torch.Tensor] = {}

    def take(self, name: str, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """An uninitialised tensor on the CPU, good until its name is taken again."""
        number = math.prod(shape)
        kept = self._kept.get((name, dtype))
        if kept is None or len(kept) < number:
            with torch.inference_mode(False):  # else it could not be written to outside of that mode
                kept = self._kept[name, dtype] = torch.empty(number, dtype=dtype, device="cpu")
        return kept[:number].view(shape)


WORKSPACE = Workspace()
