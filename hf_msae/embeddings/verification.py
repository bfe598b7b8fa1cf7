"""Checking embeddings on disk against the checksums recorded when they were written."""

from __future__ import annotations

import os
from pathlib import Path

from .._utils.file_integrity import sha256_of
from .metadata import METADATA_FILE, EmbeddingMetadata
from .stored_statistics import STATISTICS_FILE


def verify_embeddings(folder: str | os.PathLike) -> int:
    """Check every shard of a folder of embeddings, and their statistics, against the recorded checksums.

    Returns:
        Number of shards compared with a checksum; older folders have none recorded.

    Raises:
        FileNotFoundError: The folder was not written by `EmbeddingWriter`.
        ValueError: The folder is unfinished, or a file is missing or damaged.
    """
    folder = Path(folder).expanduser()
    metadata = EmbeddingMetadata.load(folder)
    if metadata is None:
        raise FileNotFoundError(f"{folder} holds no {METADATA_FILE}")
    if not metadata.complete:
        raise ValueError(f"{folder} is unfinished: run its extraction again to complete it")
    checked = 0
    for shard in metadata.shards:
        path = folder / shard.file
        if not path.is_file() or path.stat().st_size != shard.num_bytes:
            raise ValueError(f"{path} is missing or has another size than when it was written: extract it again")
        if shard.sha256:
            if sha256_of(path) != shard.sha256:
                raise ValueError(f"{path} has changed since it was written (its checksum differs): extract it again")
            checked += 1
    statistics = folder / STATISTICS_FILE
    if metadata.statistics_sha256 and not (
        statistics.is_file() and sha256_of(statistics) == metadata.statistics_sha256
    ):
        raise ValueError(f"{statistics} is missing or has changed since it was written: delete it and extract again")
    return checked
