"""Two halves of the pictures: names are chosen on one and tested on the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from ..embeddings import EmbeddingDataset

_STEP = 1e-4  # embeddings whose projections agree to this are copies; projections have a standard deviation of 1
_PROJECTIONS = 3


def random_half(groups: np.ndarray, seed: int) -> np.ndarray:
    """Choose the half of the groups that names are tested on: which rows are in it, bool (rows,)."""
    number = groups.max(initial=-1) + 1
    return (np.random.default_rng(seed).permutation(number) < number // 2)[groups]


def picture_groups(embeddings: EmbeddingDataset, batch_size: int = 4096) -> np.ndarray:
    """Number the different pictures in order of their first row, int64 (rows,).

    All tokens of a picture belong to its group, and so do copies of it: pictures with the same unit embedding up to
    rounding. A copy in the other half would test a name on a picture that chose it.
    """
    pictures = embeddings.dataset_rows()
    directions = torch.from_numpy(np.random.default_rng(0).standard_normal((embeddings.width, _PROJECTIONS)))
    keys, first = np.zeros((pictures.max(initial=-1) + 1, _PROJECTIONS)), 0
    for batch in embeddings.batches(batch_size):
        projected = F.normalize(batch.double(), dim=-1) @ directions
        np.add.at(keys, pictures[first : first + len(batch)], projected.numpy())
        first += len(batch)
    _, first_of, group = np.unique(np.round(keys / _STEP), axis=0, return_index=True, return_inverse=True)
    return first_of.argsort().argsort()[group.reshape(-1)][pictures]
