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
    source: str | os.PathLike | datasets.Dataset | datasets.DatasetDict | np.ndarray | torch.Tensor | EmbeddingDataset,
    column: str | None = None,
    hook_point: str = "image_embeds",
    split: str | None = None,
    revision: str | None = None,
    verify: bool = True,
) -> EmbeddingDataset:
    """Open embeddings for training or evaluation, without reading them yet.

    Args:
        source: A folder written by `EmbeddingWriter` or `datasets.save_to_disk`; a .parquet file or a folder of them
            (converted once into the cache of `datasets`); a 2-D .npy file, or a folder of its numbered parts, such as
            clip-retrieval writes; a dataset on the Hub; or a `datasets.Dataset`, numpy array or torch tensor of shape
            (N, width). Opened embeddings are returned as they are.
        column: Name of the embedding column. By default the one named like the hook point, else the only vector
            column. Ignored for sources without columns (.npy, arrays).
        hook_point: Where in the backbone the embeddings come from, such as "image_embeds".
        split: Split of a dataset that has several.
        revision: Commit, tag or branch of a dataset on the Hub.
        verify: Compare the shards of a folder written by `EmbeddingWriter` with their recorded checksums. Each file is
            read once for that, and again only after it changed.

    Returns:
        A torch dataset of float32 embeddings.

    Raises:
        FileNotFoundError: The source is neither a file or folder nor a dataset that can be reached on the Hub.
        ValueError: The data is damaged, empty, ragged, or not vectors; the message names the file and row.
        TypeError: Embeddings cannot be read from an object of this type.
    """
    if isinstance(source, EmbeddingDataset) and (column is None or column == source.column) and split is None:
        return source
    opened = open_source(source, split=split, revision=revision, verify=verify)
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
