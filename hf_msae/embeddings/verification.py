"""Checksums of embeddings on disk: has a file changed since it was written?"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from .metadata import METADATA_FILE, EmbeddingMetadata


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def verify_embeddings(folder: str | os.PathLike) -> int:
    """Check every shard of a folder of embeddings, and their statistics, against the checksums of when it was written.

    Returns:
        How many shards were checked by checksum; older folders have none recorded.

    Raises:
        FileNotFoundError: it is no folder that `EmbeddingWriter` has written.
        ValueError: it is not finished, or a shard is missing or damaged; names it.
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
            raise ValueError(f"{path} is missing or of another size than when it was written: extract it again")
        if shard.sha256:
            if sha256_of(path) != shard.sha256:
                raise ValueError(f"{path} has changed since it was written (its checksum differs): extract it again")
            checked += 1
    statistics = folder / "statistics.safetensors"
    if metadata.statistics_sha256 and not (
        statistics.is_file() and sha256_of(statistics) == metadata.statistics_sha256
    ):
        raise ValueError(f"{statistics} is missing or has changed since it was written: delete it and extract again")
    return checked
