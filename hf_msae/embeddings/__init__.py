"""Embeddings on disk: writing them in resumable shards, reading them without copies, and their statistics."""

from __future__ import annotations

import os

import datasets
import numpy as np
import torch

from .._utils.deprecation import renamed_attributes
from .columns import resolve_column
from .dataset import EmbeddingDataset
from .sources import open_source
from .statistics import EmbeddingStatistics, RunningMoments
from .verification import verify_embeddings
from .writing import EmbeddingWriter

__all__ = [
    "EmbeddingDataset",
    "EmbeddingStatistics",
    "EmbeddingWriter",
    "RunningMoments",
    "load_embeddings",
    "verify_embeddings",
]


def load_embeddings(
    source: str | os.PathLike | datasets.Dataset | datasets.DatasetDict | np.ndarray | torch.Tensor,
    column: str | None = None,
    hook_point: str = "image_embeds",
    split: str | None = None,
    revision: str | None = None,
) -> EmbeddingDataset:
    """Open embeddings for training or evaluation; nothing is read before it is needed.

    Args:
        source: a folder written by `EmbeddingWriter` or `datasets.save_to_disk`; a .parquet file or a folder of them
            (converted once into the cache of `datasets`); a 2-D .npy file; a data set on the Hub; or a
            `datasets.Dataset`, numpy array or torch tensor of shape (N, width).
        column: the embedding column. By default the one named like the hook point, else the only vector column.
            Sources without columns (.npy, arrays) ignore it.
        hook_point: where in the backbone the embeddings come from, e.g. "image_embeds".
        split: which split of a data set that has several.
        revision: commit, tag or branch of a data set on the Hub.

    Returns:
        A torch data set of float32 embeddings.

    Raises:
        FileNotFoundError: there is no such file, folder or reachable Hub data set.
        ValueError: the data is damaged, empty, ragged or no vectors; the message names file, row and way out.
        TypeError: `source` is of a kind that embeddings are not read from.
    """
    opened = open_source(source, split=split, revision=revision)
    if opened.dataset is None:
        return EmbeddingDataset(opened)
    if len(opened.dataset) == 0:
        raise ValueError(f"{opened.name} is empty: it has no rows")
    return EmbeddingDataset(opened, resolve_column(opened.dataset, column, hook_point, opened.name))


__getattr__ = renamed_attributes(
    __name__,
    {
        "ActivationDataset": lambda: EmbeddingDataset,
        "ActivationStatistics": lambda: EmbeddingStatistics,
        "ActivationWriter": lambda: EmbeddingWriter,
        "load_activations": lambda: load_embeddings,
        "verify_activations": lambda: verify_embeddings,
    },
)
