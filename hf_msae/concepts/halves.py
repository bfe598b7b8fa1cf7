"""Which pictures names are chosen on and tested on: two halves, without pictures that would count for every word."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from ..statistics import robust_spread

if TYPE_CHECKING:
    from ..embeddings import EmbeddingDataset

_STEP = 1e-4  # embeddings whose projections agree to this are copies; projections have a standard deviation of 1
_PROJECTIONS = 3
_MOST_LISTED = 5
_FAR = 10.0  # robust standard deviations; of all pictures, captions and titles of both worlds, none is beyond 4
_MOST_FAR = 0.01  # a larger share is no exception, but a part of the data


def random_half(groups: np.ndarray, seed: int) -> np.ndarray:
    """Choose the half of the groups that names are tested on: which rows are in it, bool (rows,)."""
    number = groups.max(initial=-1) + 1
    return (np.random.default_rng(seed).permutation(number) < number // 2)[groups]


def usual_rows(embeddings: EmbeddingDataset, word: torch.Tensor, batch_size: int = 4096) -> np.ndarray | range:
    """Return the rows of all embeddings but a few that are much nearer to words than the others, or farther from them.

    A broken picture, or a text among pictures, whose cosines with all words are far above the others' would be the
    best picture of every word, and no name could be validated. At most one row in 100 is left out, with a warning.
    `word` is the mean of the unit embeddings of words (d,).
    """
    word = word.double().cpu()
    scores = [F.normalize(batch.double(), dim=-1) @ word for batch in embeddings.batches(batch_size)]
    scores = torch.cat(scores).numpy()
    scores -= np.median(scores)
    is_far = np.abs(scores) > _FAR * robust_spread(scores)
    if not 0 < is_far.mean() <= _MOST_FAR:
        return range(len(scores))
    far = np.flatnonzero(is_far)
    listed = ", ".join(map(str, far[:_MOST_LISTED])) + (", ..." if len(far) > _MOST_LISTED else "")
    warnings.warn(
        f"names are made without {len(far):,} of the {len(scores):,} embeddings of {embeddings.source} (rows "
        f"{listed}): their cosines with all words differ so much from the others' that they would count for every "
        "word; look whether they are broken pictures, or texts",
        stacklevel=7,  # where name_latents was called
    )
    return np.flatnonzero(~is_far)


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
