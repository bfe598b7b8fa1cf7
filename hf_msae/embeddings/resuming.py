"""Opening a folder of embeddings to write to: new, continued, or cleared."""

from __future__ import annotations

from pathlib import Path

from transformers.utils import logging

from .metadata import METADATA_FILE, EmbeddingMetadata
from .stored_statistics import STATISTICS_FILE

logger = logging.get_logger(__name__)

TEMPORARY_SUFFIX = ".tmp"
STATE_FILE = "state.json"


def open_folder(folder: Path, wanted: EmbeddingMetadata, resume: bool, overwrite: bool) -> EmbeddingMetadata:
    """Prepare the folder; returns the metadata to go on with.

    Raises:
        FileExistsError: it is not empty, and neither continued nor cleared, or holds something else.
        ValueError: it was written with other settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        if not (folder / METADATA_FILE).is_file():
            raise FileExistsError(f"{folder} is not empty and holds no {METADATA_FILE}: choose another folder")
        if overwrite:
            _remove_data(folder, keep=())
        elif resume:
            return _resume(folder, wanted)
        else:
            raise FileExistsError(
                f"{folder} already holds embeddings; pass resume=True to continue them, overwrite=True to "
                "start again, or choose another folder"
            )
    wanted.save(folder)
    return wanted


def _resume(folder: Path, wanted: EmbeddingMetadata) -> EmbeddingMetadata:
    there = EmbeddingMetadata.load(folder)
    differences = there.differences(wanted)
    if differences:
        raise ValueError(
            f"{folder} was written with other settings and cannot be continued:\n  "
            + "\n  ".join(differences)
            + "\nUse the same settings, pass overwrite=True to start again, or choose another folder."
        )
    sound = []
    for shard in there.shards:
        path = folder / shard.file
        if not path.is_file() or path.stat().st_size != shard.num_bytes:
            row = sum(each.num_rows + len(each.skipped) for each in sound)
            logger.warning(f"{path} is missing or damaged: continuing from row {row}")
            break
        sound.append(shard)
    if not there.complete or len(sound) < len(there.shards):
        there.skipped_after = there.skipped_after if len(sound) == len(there.shards) else []
        there.position = there.position if len(sound) == len(there.shards) else None
        there.shards, there.complete = sound, False
        _remove_data(folder, keep={shard.file for shard in sound})
        there.save(folder)
    return there


def _remove_data(folder: Path, keep: set[str] | tuple[str, ...]) -> None:
    """Delete shards not in `keep`, what a killed run left half-written, and what marks the folder as finished."""
    for name in (STATE_FILE, STATISTICS_FILE, f"{STATISTICS_FILE}{TEMPORARY_SUFFIX}"):
        (folder / name).unlink(missing_ok=True)
    for pattern in ("data-*.arrow", f"data-*.arrow{TEMPORARY_SUFFIX}", f"*.json.*{TEMPORARY_SUFFIX}"):
        for file in folder.glob(pattern):
            if file.name not in keep:
                file.unlink()
