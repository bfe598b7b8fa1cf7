"""Arrays from outside as tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from .checks import refuse_masked


def as_tensor(values: Any, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Do what `torch.as_tensor` does, also for what torch refuses: odd arrays, pandas tables, opened embeddings."""
    if isinstance(values, Dataset):
        values = values[:]
    if hasattr(values, "to_numpy"):
        values = np.array(values.to_numpy())  # a copy, since pandas lets nobody write to its own
    refuse_masked("the array", values)
    if isinstance(values, np.ndarray) and (not values.dtype.isnative or any(step < 0 for step in values.strides)):
        values = np.array(values, values.dtype.newbyteorder("="), order="C")
    return torch.as_tensor(values, dtype=dtype)
