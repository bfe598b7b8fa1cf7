"""Dividing an extraction among processes, and joining what they wrote."""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from transformers.utils import logging

from ..._utils.atomic import atomic_path
from ...embeddings import EmbeddingWriter
from ...embeddings.metadata import EmbeddingMetadata
from ...embeddings.stored_statistics import merge_moments, moments_of_folder

try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None

logger = logging.get_logger(__name__)

# So long the workers of a killed run may take to notice; they hold its lock.
_LOCK_SECONDS = 10


@dataclass(frozen=True)
class Part:
    """What one of several processes embeds.

    Attributes:
        rows: of the data set; None where it is a stream, of which each process has its share of the files.
        index: of the process.
        num_parts: of all processes.
    """

    rows: range | None
    index: int = 0
    num_parts: int = 1

    def folder(self, output_dir: Path) -> Path:
        """Where it is written, until all parts are complete."""
        if self.rows is None:
            return output_dir / f"part-{self.index:05d}-of-{self.num_parts:05d}"
        return output_dir / f"part-{self.rows.start:09d}-{self.rows.stop:09d}"


def divide(start: int, stop: int, batch_size: int, num_processes: int) -> list[range]:
    """Contiguous parts of whole batches, the same batches that one process would embed; none of several is empty."""
    num_batches = -(-(stop - start) // batch_size)
    borders = [min(start + batch_size * (num_batches * i // num_processes), stop) for i in range(num_processes + 1)]
    parts = [range(first, last) for first, last in pairwise(borders)]
    return parts if num_processes == 1 else [part for part in parts if part]


def existing_parts(output_dir: Path) -> list[Path]:
    """Folders that an interrupted run on several processes has left."""
    digits = "[0-9]" * 5
    patterns = (f"part-{digits}[0-9][0-9][0-9][0-9]-{digits}[0-9][0-9][0-9][0-9]", f"part-{digits}-of-{digits}")
    return sorted(folder for pattern in patterns for folder in output_dir.glob(pattern))


def check_leftover_parts(output_dir: Path, parts: list[Part], finished: bool) -> None:
    """What an interrupted run on several processes left must fit the parts of this run.

    Raises:
        ValueError: it does not.
    """
    planned = {part.folder(output_dir) for part in parts}
    for folder in existing_parts(output_dir):
        if finished:
            shutil.rmtree(folder)
        elif folder not in planned:
            raise ValueError(
                f"{folder} is left from a run that divided the rows otherwise; use its number of processes and "
                "batch_size to continue it, or overwrite=True to start again"
            )


def join_parts(output_dir: Path, settings: dict[str, Any], parts: list[Part]) -> None:
    """Append the shards of complete parts, in order, and finish the folder.

    Shards are linked rather than moved, and nothing is said of them before all is written, so that an interruption
    here finds all parts complete the next time.

    Raises:
        ValueError: a part is not complete, or differs from the others in its settings.
    """
    writer = EmbeddingWriter(output_dir, **settings)  # removes what an interrupted join has linked
    whole = EmbeddingMetadata.load(output_dir)
    moments = moments_of_folder(output_dir, whole)
    shards, skipped_after = list(whole.shards), list(whole.skipped_after)
    for part in parts:
        folder = part.folder(output_dir)
        there = EmbeddingMetadata.load(folder)
        if there is None or not there.complete or (part.rows and there.rows_consumed != len(part.rows)):
            raise ValueError(f"{folder} is not complete; do all processes see the same folder {output_dir}?")
        if differences := whole.differences(there):
            raise ValueError(
                "the processes did not embed the same data in the same way:\n  " + "\n  ".join(differences)
            )
        merge_moments(moments, moments_of_folder(folder, there))
        # Rows of a stream are counted from the first of each part.
        before = 0
        if part.rows is None:
            before = sum(shard.num_rows + len(shard.skipped) for shard in shards) + len(skipped_after)
        for shard in there.shards:
            name = f"data-{len(shards):05d}.arrow"
            _link(folder / shard.file, output_dir / name)
            skipped = skipped_after + [before + row for row in shard.skipped]
            shards.append(dataclasses.replace(shard, file=name, skipped=skipped))
            skipped_after = []
        skipped_after += [before + row for row in there.skipped_after]
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
        except OSError:  # a file system without hard links
            shutil.copyfile(source, temporary)


@contextmanager
def only_run(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder, as far as its file system has locks. They end with their process.

    Raises:
        ValueError: another run is writing there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _lock(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    if fcntl is None:
        return
    patience = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > patience:
                raise ValueError(
                    f"another run is writing to {folder}: wait for its end, or choose another folder"
                ) from None
            time.sleep(0.2)
        except OSError as error:  # a file system without locks
            logger.info(f"{folder} cannot be locked: {error}")
            return


def on_main_process(accelerator: Accelerator | None, action: Callable[[], Any]) -> Any:
    """What `action` returns or raises on the main process, on all of them: the others would wait for it in vain."""
    if accelerator is None or accelerator.num_processes == 1:
        return action()
    outcome = [None]
    if accelerator.is_main_process:
        try:
            outcome = [action()]
        except (ValueError, OSError) as error:
            outcome = [error]
    (outcome,) = broadcast_object_list(outcome)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome
