"""Checking embeddings on disk against the checksums recorded when they were written."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from transformers.utils import logging

from .._utils.file_integrity import file_state, recall, remember, sha256_of
from .metadata import METADATA_FILE, EmbeddingMetadata
from .stored_statistics import STATISTICS_FILE

_THREADS = 4


def verify_embeddings(folder: str | os.PathLike) -> int:
    """Read every shard of a folder of embeddings, and their statistics, and compare them with the recorded checksums.

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
    check_shards(folder, metadata, again=True)
    statistics = folder / STATISTICS_FILE
    if metadata.statistics_sha256 and not (
        statistics.is_file() and sha256_of(statistics) == metadata.statistics_sha256
    ):
        raise ValueError(f"{statistics} is missing or has changed since it was written: delete it and extract again")
    return sum(bool(shard.sha256) for shard in metadata.shards)


def check_shards(folder: Path, metadata: EmbeddingMetadata, again: bool = False) -> None:
    """Compare the shards with their recorded sizes and checksums.

    A file whose checksum fits is remembered in the cache by its size and time of change, and read again only once
    they differ, or with `again`.
    """
    known = recall(folder)
    to_read, states = [], {}
    for shard in metadata.shards:
        path = folder / shard.file
        if not path.is_file() or path.stat().st_size != shard.num_bytes:
            raise ValueError(f"{path} is missing or has another size than {METADATA_FILE} says: extract it again")
        states[shard.file] = [shard.sha256, *file_state(path)]
        if shard.sha256 and (again or known.get(shard.file) != states[shard.file]):
            to_read.append(shard)
    if not to_read:
        return
    with ThreadPoolExecutor(_THREADS) as threads:  # hashlib lets other threads run meanwhile
        found = threads.map(lambda shard: sha256_of(folder / shard.file), to_read)
        shown = logging.tqdm(found, total=len(to_read), desc=f"checking {folder}", unit="file", delay=2)
        for shard, checksum in zip(to_read, shown, strict=True):
            if checksum != shard.sha256:
                raise ValueError(
                    f"{folder / shard.file} has changed since it was written (its checksum is not the one in "
                    f"{METADATA_FILE}): extract it again, or read it as it is with verify=False (--no_verify)"
                )
    remember(folder, states)
