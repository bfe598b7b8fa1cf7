"""`statistics.safetensors`: mean and variance of every column of a folder, taken while it was written."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import torch
from safetensors import safe_open
from safetensors.torch import save
from transformers.utils import logging

from .columns import is_token_type, matrix_views, split_tokens
from .metadata import EmbeddingMetadata, Shard
from .statistics import RunningMoments
from .verification import sha256_of

logger = logging.get_logger(__name__)

STATISTICS_FILE = "statistics.safetensors"
# Numbers brought to float64 at a time: 32 MiB.
_BLOCK_ENTRIES = 2**22


def moments_of(table: pa.Table, columns: Mapping[str, int]) -> dict[str, RunningMoments]:
    """The moments of every embedding column of a table; tokens count one by one."""
    found = {}
    for name, width in columns.items():
        moments = found[name] = RunningMoments()
        column = table.column(name)
        if is_token_type(column.type):
            column, _ = split_tokens(column)
        for view in matrix_views(column):
            step = max(1, _BLOCK_ENTRIES // width)
            for start in range(0, len(view), step):
                moments.update(torch.tensor(view[start : start + step], dtype=torch.float64))
    return found


def moments_of_shard(folder: Path, shard: Shard, columns: Mapping[str, int]) -> dict[str, RunningMoments]:
    """The same of a shard on disk, which is read."""
    with pa.memory_map(str(folder / shard.file)) as mapped:
        return moments_of(pa.ipc.open_stream(mapped).read_all(), columns)


def moments_of_folder(folder: Path, metadata: EmbeddingMetadata) -> dict[str, RunningMoments]:
    """The same of all shards, from the file where it is of them, else from the shards."""
    stored = load_moments(folder, metadata)
    if stored is not None:
        return stored
    merged: dict[str, RunningMoments] = {}
    for shard in metadata.shards:
        merge_moments(merged, moments_of_shard(folder, shard, metadata.columns))
    return merged


def merge_moments(into: dict[str, RunningMoments], other: Mapping[str, RunningMoments]) -> None:
    """Count in `into` everything `other` has counted."""
    for name, moments in other.items():
        into.setdefault(name, RunningMoments()).merge(moments)


def save_moments(folder: Path, metadata: EmbeddingMetadata, moments: Mapping[str, RunningMoments]) -> None:
    """Write the file, atomically."""
    tensors = {}
    for name, each in moments.items():
        tensors[f"{name}.mean"] = each.mean
        tensors[f"{name}.variance"] = each.sum_squared_deviations / each.num_samples
        tensors[f"{name}.num_samples"] = torch.tensor(each.num_samples)
    temporary = folder / f"{STATISTICS_FILE}.tmp"
    temporary.write_bytes(save(tensors, metadata={"shards": _digest(metadata)}))
    os.replace(temporary, folder / STATISTICS_FILE)


def load_moments(folder: Path, metadata: EmbeddingMetadata) -> dict[str, RunningMoments] | None:
    """What the file says; None where there is none, or it is not of these shards."""
    path = folder / STATISTICS_FILE
    if not metadata.complete or not path.is_file():
        return None
    if sha256_of(path) != metadata.statistics_sha256:  # of other shards, or damaged: not worth an error
        logger.warning(f"{path} has changed since it was written: taking statistics of the embeddings again")
        return None
    with safe_open(path, framework="pt") as file:
        if file.metadata()["shards"] != _digest(metadata):
            return None
        found = {}
        for name in metadata.columns:
            moments = found[name] = RunningMoments()
            moments.num_samples = int(file.get_tensor(f"{name}.num_samples"))
            moments.mean = file.get_tensor(f"{name}.mean")
            moments.sum_squared_deviations = file.get_tensor(f"{name}.variance") * moments.num_samples
        return found


def _digest(metadata: EmbeddingMetadata) -> str:
    """Identifies the shards: their contents, in their order."""
    return hashlib.sha256("".join(shard.sha256 for shard in metadata.shards).encode()).hexdigest()
