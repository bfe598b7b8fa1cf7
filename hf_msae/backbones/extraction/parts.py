"""Dividing an extraction among processes, and joining what they wrote."""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from transformers.utils import logging

from ..._utils.atomic import atomic_path, make_folder
from ...embeddings import EmbeddingWriter
from ...embeddings.metadata import EmbeddingMetadata
from ...embeddings.stored_statistics import merge_moments, moments_of_folder

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

logger = logging.get_logger(__name__)

# The workers of a killed run hold its lock until they notice; they get this long.
_LOCK_SECONDS = 10


@dataclass(frozen=True)
class Part:
    """What one of several processes embeds."""

    rows: range | None  # rows of the dataset; None for a stream, whose files are divided instead
    index: int = 0  # number of the process
    num_parts: int = 1  # number of processes

    def folder(self, output_dir: Path) -> Path:
        """The folder of the part until all parts are joined."""
        if self.rows is None:
            return output_dir / f"part-{self.index:05d}-of-{self.num_parts:05d}"
        return output_dir / f"part-{self.rows.start:09d}-{self.rows.stop:09d}"


def divide(start: int, stop: int, batch_size: int, num_processes: int) -> list[range]:
    """Divide rows into contiguous, non-empty parts that consist of the same batches as for one process."""
    num_batches = -(-(stop - start) // batch_size)
    borders = [min(start + batch_size * (num_batches * i // num_processes), stop) for i in range(num_processes + 1)]
    return [range(first, last) for first, last in pairwise(borders) if first < last]


def existing_parts(output_dir: Path) -> list[Path]:
    """Return the folders that an interrupted run on several processes left behind."""
    five, nine = "[0-9]" * 5, "[0-9]" * 9
    return sorted([*output_dir.glob(f"part-{nine}-{nine}"), *output_dir.glob(f"part-{five}-of-{five}")])


def check_leftover_parts(output_dir: Path, parts: list[Part], finished: bool) -> None:
    """Check that what an interrupted run left behind fits the parts of this run.

    Raises:
        ValueError: It does not.
    """
    planned = {part.folder(output_dir) for part in parts}
    for folder in existing_parts(output_dir):
        if finished:
            shutil.rmtree(folder)
        elif folder not in planned:
            raise ValueError(
                f"{folder} was left by a run that divided the rows differently; continue with its number of processes "
                "and batch_size, or start again with overwrite=True"
            )


def check_alike(whole: EmbeddingMetadata, part: EmbeddingMetadata) -> None:
    """Raise ValueError if a process embeds other data than the main process, or in another way."""
    if differences := whole.differences(part):
        raise ValueError(
            "the processes do not embed the same data in the same way:\n  "
            + "\n  ".join(differences)
            + "\nEvery process has to open the same rows in the same order: give shuffle() a seed, and open what one "
            "process has saved with save_to_disk() instead of calling map() in each."
        )


def join_parts(output_dir: Path, settings: dict[str, Any], parts: list[Part]) -> None:
    """Append the shards of complete parts in order, and finish the folder.

    Shards are linked, not moved, and recorded only when all are in place, so after an interruption here the next run
    finds all parts complete.

    Raises:
        ValueError: A part is not complete, or its settings differ.
    """
    writer = EmbeddingWriter(output_dir, **settings)  # removes what an interrupted join has linked
    whole = EmbeddingMetadata.load(output_dir)
    moments = moments_of_folder(output_dir, whole)
    shards, skipped_after = list(whole.shards), list(whole.skipped_after)
    for part in parts:
        folder = part.folder(output_dir)
        written = EmbeddingMetadata.load(folder)
        if written is None or not written.complete or (part.rows and written.rows_consumed != len(part.rows)):
            raise ValueError(f"{folder} is not complete; do all processes see the same folder {output_dir}?")
        check_alike(whole, written)
        merge_moments(moments, moments_of_folder(folder, written))
        before = 0
        if part.rows is None:  # rows of a stream are numbered within each part
            before = sum(shard.num_rows + len(shard.skipped) for shard in shards) + len(skipped_after)
        for shard in written.shards:
            name = f"data-{len(shards):05d}.arrow"
            _link(folder / shard.file, output_dir / name)
            skipped = skipped_after + [before + row for row in shard.skipped]
            shards.append(dataclasses.replace(shard, file=name, skipped=skipped))
            skipped_after = []
        skipped_after += [before + row for row in written.skipped_after]
    if parts:
        writer.adopt(shards, skipped_after, moments)
    else:
        writer.close()
    for part in parts:
        shutil.rmtree(part.folder(output_dir))


def _link(source: Path, target: Path) -> None:
    with atomic_path(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:  # the file system has no hard links
            shutil.copyfile(source, temporary)


@contextmanager
def only_run(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder, if its file system supports locks. A lock ends with its process.

    Raises:
        ValueError: Another run is writing there.
    """
    make_folder(folder)
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _lock(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise ValueError(f"another run is writing to {folder}: wait, or choose another folder") from None
            time.sleep(0.2)
        except OSError as error:  # the file system has no locks
            logger.info(f"{folder} cannot be locked: {error}")
            return
