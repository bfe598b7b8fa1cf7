"""`statistics.safetensors`: mean and variance of every embedding column, computed while the folder is written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import torch
from safetensors import safe_open
from safetensors.torch import save
from transformers.utils import logging

from .._utils.atomic import atomic_path
from .._utils.file_integrity import sha256_of
from .columns import is_token_type, matrix_views, split_tokens
from .metadata import EmbeddingMetadata, Shard
from .statistics import BLOCK_ENTRIES, RunningMoments

logger = logging.get_logger(__name__)

STATISTICS_FILE = "statistics.safetensors"


def moments_of(table: pa.Table, columns: Mapping[str, int]) -> dict[str, RunningMoments]:
    """Compute the moments of every embedding column of a table; every token counts as an embedding."""
    found = {}
    for name, width in columns.items():
        moments = found[name] = RunningMoments()
        column = table.column(name)
        if is_token_type(column.type):
            column, _ = split_tokens(column)
        for view in matrix_views(column):
            step = max(1, BLOCK_ENTRIES // width)
            for start in range(0, len(view), step):
                moments.update(torch.tensor(view[start : start + step], dtype=torch.float64))
    return found


def moments_of_shard(folder: Path, shard: Shard, columns: Mapping[str, int]) -> dict[str, RunningMoments]:
    """Read a shard and compute its moments."""
    with pa.memory_map(str(folder / shard.file)) as mapped:
        return moments_of(pa.ipc.open_stream(mapped).read_all(), columns)


def moments_of_folder(folder: Path, metadata: EmbeddingMetadata) -> dict[str, RunningMoments]:
    """Return the moments of all shards, read from the statistics file or, if it does not fit, computed anew."""
    stored = load_moments(folder, metadata)
    if stored is not None:
        return stored
    merged: dict[str, RunningMoments] = {}
    for shard in metadata.shards:
        merge_moments(merged, moments_of_shard(folder, shard, metadata.columns))
    return merged


def merge_moments(into: dict[str, RunningMoments], other: Mapping[str, RunningMoments]) -> None:
    """Merge the moments of `other` into `into`."""
    for name, moments in other.items():
        into.setdefault(name, RunningMoments()).merge(moments)


def save_moments(folder: Path, moments: Mapping[str, RunningMoments]) -> None:
    """Write the statistics file."""
    tensors = {}
    for name, each in moments.items():
        tensors[f"{name}.mean"] = each.mean
        tensors[f"{name}.variance"] = each.sum_squared_deviations / each.num_samples
        tensors[f"{name}.num_samples"] = torch.tensor(each.num_samples)
    with atomic_path(folder / STATISTICS_FILE) as temporary:
        temporary.write_bytes(save(tensors))


def load_moments(folder: Path, metadata: EmbeddingMetadata) -> dict[str, RunningMoments] | None:
    """Read the statistics file; None if there is none, or if it belongs to other shards."""
    path = folder / STATISTICS_FILE
    if not metadata.complete or not path.is_file():
        return None
    if sha256_of(path) != metadata.statistics_sha256:  # computed from other shards, or damaged: not worth an error
        logger.warning(f"{path} has changed since it was written: computing the statistics again")
        return None
    found = {}
    with safe_open(path, framework="pt") as file:
        for name in metadata.columns:
            moments = found[name] = RunningMoments()
            moments.num_samples = int(file.get_tensor(f"{name}.num_samples"))
            moments.mean = file.get_tensor(f"{name}.mean")
            moments.sum_squared_deviations = file.get_tensor(f"{name}.variance") * moments.num_samples
    return found
