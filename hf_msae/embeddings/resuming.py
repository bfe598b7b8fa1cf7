"""Opening a folder to write embeddings to: a new one, an unfinished one, or one to overwrite."""

from __future__ import annotations

from pathlib import Path

from transformers.utils import logging

from .._utils.atomic import check_parents, is_leftover, make_folder
from .metadata import METADATA_FILE, EmbeddingMetadata
from .stored_statistics import STATISTICS_FILE

logger = logging.get_logger(__name__)

STATE_FILE = "state.json"


def open_folder(folder: Path, wanted: EmbeddingMetadata, resume: bool, overwrite: bool) -> EmbeddingMetadata:
    """Prepare the folder and return the metadata to continue with."""
    check_folder(folder)
    make_folder(folder)
    if not all(map(_is_temporary, folder.iterdir())):
        if overwrite:
            _remove_data(folder, keep=set())
        elif resume:
            return _resume(folder, wanted)
        else:
            raise FileExistsError(
                f"{folder} already holds embeddings; pass resume=True to continue them, overwrite=True to "
                "start again, or choose another folder"
            )
    wanted.save(folder)
    return wanted


def check_folder(folder: Path) -> None:
    """Raise FileExistsError if a folder holds something else than embeddings, or what `make_folder` raises."""
    check_parents(folder)
    if folder.exists() and not (folder / METADATA_FILE).is_file() and not all(map(_is_temporary, folder.iterdir())):
        raise FileExistsError(f"{folder} is not empty and holds no {METADATA_FILE}: choose another folder")


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


def _remove_data(folder: Path, keep: set[str]) -> None:
    """Delete shards not in `keep`, what a killed run left half-written, and what marks the folder as finished."""
    for file in list(folder.iterdir()):
        if file.name in keep:
            continue
        if file.name in (STATE_FILE, STATISTICS_FILE) or file.match("data-*.arrow") or _is_temporary(file):
            file.unlink()


def _is_temporary(file: Path) -> bool:
    """Whether a killed run left this file while it was writing another."""
    return is_leftover(file, ("data-", METADATA_FILE, STATE_FILE, STATISTICS_FILE))
