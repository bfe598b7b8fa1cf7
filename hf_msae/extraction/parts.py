"""Dividing an extraction among processes, and joining what they wrote."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from ..activations import ActivationWriter
from ..activations.metadata import ActivationMetadata
from ..activations.stored_statistics import merge_moments, moments_of_folder


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

    Shards are linked rather than moved, so that an interruption here finds all parts complete the next time.

    Raises:
        ValueError: a part is not complete, or differs from the others in its settings.
    """
    whole = ActivationMetadata.load(output_dir)
    moments = moments_of_folder(output_dir, whole)
    for part in parts:
        folder = part.folder(output_dir)
        there = ActivationMetadata.load(folder)
        if there is None or not there.complete or (part.rows and there.rows_consumed != len(part.rows)):
            raise ValueError(f"{folder} is not complete; do all processes see the same folder {output_dir}?")
        if differences := whole.differences(there):
            raise ValueError(
                "the processes did not embed the same data in the same way:\n  " + "\n  ".join(differences)
            )
        merge_moments(moments, moments_of_folder(folder, there))
        # Rows of a stream are counted from the first of each part.
        before = 0 if part.rows is not None else whole.rows_consumed
        for shard in there.shards:
            name = f"data-{len(whole.shards):05d}.arrow"
            _link(folder / shard.file, output_dir / name)
            skipped = whole.skipped_after + [before + row for row in shard.skipped]
            whole.shards.append(dataclasses.replace(shard, file=name, skipped=skipped))
            whole.skipped_after, whole.complete, whole.position = [], False, None
        whole.skipped_after += [before + row for row in there.skipped_after]
    whole.save(output_dir)
    ActivationWriter(output_dir, **settings).close(moments=moments)
    for part in parts:
        shutil.rmtree(part.folder(output_dir))


def _link(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)


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
