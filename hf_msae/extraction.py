"""From a data set of images and captions to a folder of embeddings, resumable, on one process or several."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from torch.utils import data as torch_data
from tqdm import tqdm
from transformers import PreTrainedModel
from transformers.utils import logging

from hf_msae.acceleration import build_accelerator
from hf_msae.activations import ActivationWriter
from hf_msae.activations.metadata import ActivationMetadata
from hf_msae.backbones import Backbone
from hf_msae.image_text_data import ReadRows, RowReader

logger = logging.get_logger(__name__)


def extract_activations(
    backbone: Backbone | PreTrainedModel | str | os.PathLike,
    dataset: Dataset,
    output_dir: str | os.PathLike,
    image_column: str = "image",
    text_column: str | None = None,
    hook_points: Sequence[str] = ("image_embeds",),
    batch_size: int = 64,
    dtype: str = "float32",
    keep_columns: Sequence[str] | None = None,
    num_workers: int = 0,
    resume: bool = True,
    overwrite: bool = False,
    rows_per_shard: int = 16384,
    metadata: Mapping[str, Any] | None = None,
    accelerator: Accelerator | None = None,
    progress: bool = True,
    on_unreadable: str = "raise",
) -> Path:
    """Embed a data set, row by row and in its order, and write the embeddings beside the data set's labels.

    Interrupted, it continues after the last complete shard when it is called again with the same settings. Launched on
    several processes (`accelerate launch`, `torchrun`), each embeds a contiguous part, and the main process joins the
    parts: the rows are those that one process would have written, in the same order.

    Args:
        backbone: a [`Backbone`], or what `Backbone.from_pretrained` takes.
        dataset: a row per image, per caption, or per pair of them.
        output_dir: a folder for `load_activations` and `datasets.load_from_disk`. Several processes must share it.
        image_column: images, paths or encoded bytes; read only for "image_embeds".
        text_column: one string per row; needed for "text_embeds".
        hook_points: which embeddings to write, each a column: "image_embeds", "text_embeds" or both.
        batch_size: rows per forward pass; changes speed and memory only.
        dtype: "float32" or "float16", how embeddings are stored.
        keep_columns: other columns to write beside the embeddings. None keeps all that hold a number, a boolean, a
            label or a string; images are never kept.
        num_workers: processes that decode and prepare images; 0 does it between the forward passes.
        resume: continue what an earlier run left in `output_dir`.
        overwrite: delete what an earlier run left in `output_dir`.
        rows_per_shard: rows per file, rounded up to whole batches, and thus what an interruption can lose.
        metadata: added to the recorded provenance (backbone, data set, processor, versions), over which it wins.
        accelerator: the processes to divide the work among. None: those that a launcher started, otherwise this one.
        progress: show a progress bar.
        on_unreadable: what becomes of a row whose image cannot be decoded or whose caption is missing: "raise" stops,
            "skip" leaves it out, says so in the log, and notes its number in `activations.json`. Embeddings then have
            not the data's row numbers; keep a column with ids.

    Returns:
        output_dir.

    Raises:
        ValueError: a column or hook point that is not there, an image that cannot be read (the message names its row),
            an empty data set, or a folder that was written with other settings.
        TypeError: `dataset` is no `datasets.Dataset`, or a caption is missing.
        FileExistsError: `output_dir` holds something else, or embeddings while `resume` and `overwrite` are off.
    """
    hook_points = (hook_points,) if isinstance(hook_points, str) else tuple(hook_points)
    _check_arguments(hook_points, text_column, batch_size, rows_per_shard, num_workers)
    with_image, with_text = "image_embeds" in hook_points, "text_embeds" in hook_points
    if on_unreadable not in ("raise", "skip"):
        raise ValueError(f"on_unreadable is {on_unreadable!r}; choose raise or skip")
    reader = RowReader(
        dataset,
        image_column if with_image else None,
        text_column if with_text else None,
        keep_columns,
        skip_unreadable=on_unreadable == "skip",
    )
    if accelerator is None and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        accelerator = build_accelerator()
    backbone = _place(backbone, accelerator)
    for hook_point in hook_points:
        backbone.require(hook_point)
    reader.image_processor = backbone.image_processor

    output_dir = Path(output_dir).expanduser()
    settings = {
        "columns": {hook_point: backbone.width(hook_point) for hook_point in hook_points},
        "extra_features": reader.kept_features,
        "dtype": dtype,
        # Whole batches, so that a resumed run cuts the same batches and its numbers are the same to the last bit.
        "rows_per_shard": -(-rows_per_shard // batch_size) * batch_size,
        "metadata": {**backbone.provenance(), "hook_points": hook_points, **reader.provenance(), **(metadata or {})},
    }
    rank, num_processes = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)

    def prepare() -> list[range]:
        done = _open_folder(output_dir, settings, resume, overwrite)
        parts = _divide(done, len(reader), batch_size, num_processes)
        _check_leftover_parts(output_dir, parts if num_processes > 1 else [], finished=done == len(reader))
        return parts

    parts = _on_main_process(accelerator, prepare)
    if rank < len(parts):
        part, folder, first = parts[rank], output_dir, 0
        if num_processes > 1:
            folder, first = _part_folder(output_dir, part), part.start
        with ActivationWriter(folder, **settings) as writer:
            rows = range(first + writer.rows_consumed, part.stop)
            batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
            with tqdm(
                desc="embedding" if num_processes == 1 else f"embedding (process 1 of {num_processes})",
                total=part.stop - first,
                initial=writer.rows_consumed,
                unit="row",
                disable=not progress or rank > 0,
            ) as bar:
                _embed(backbone, reader, batches, writer, num_workers, bar)
            if num_processes > 1:
                writer.close(allow_empty=True)  # another part may have rows that can be read
    if num_processes > 1:
        accelerator.wait_for_everyone()
        _on_main_process(accelerator, lambda: _join_parts(output_dir, settings, parts))
    return output_dir


def _check_arguments(
    hook_points: tuple[str, ...], text_column: str | None, batch_size: int, rows_per_shard: int, num_workers: int
) -> None:
    if not hook_points or len(set(hook_points)) < len(hook_points):
        raise ValueError(f"hook_points must name at least one hook point, and each once; got {list(hook_points)}")
    for hook_point in hook_points:
        if ".layers." in hook_point:
            raise ValueError(f"{hook_point} cannot be extracted yet: image_embeds and text_embeds can")
    if "text_embeds" in hook_points and text_column is None:
        raise ValueError("the hook point text_embeds needs a text_column")
    for name, value, least in (
        ("batch_size", batch_size, 1),
        ("rows_per_shard", rows_per_shard, 1),
        ("num_workers", num_workers, 0),
    ):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")


def _place(backbone: Any, accelerator: Accelerator | None) -> Backbone:
    """The backbone, on the accelerator's device; a model that is not loaded yet goes to a GPU if there is one."""
    if isinstance(backbone, Backbone):
        return backbone if accelerator is None else backbone.to(accelerator.device)
    device = None if accelerator is None else accelerator.device
    if device is None and not isinstance(backbone, PreTrainedModel) and torch.accelerator.is_available():
        device = torch.accelerator.current_accelerator()
    return Backbone.from_pretrained(backbone, device=device)


class _PreparedBatches(torch_data.Dataset):
    """Batches ready for the model; the worker processes of a DataLoader read them without having the model."""

    def __init__(self, reader: RowReader, batches: list[range]) -> None:
        self.reader, self.batches = reader, batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> ReadRows:
        return self.reader.read(self.batches[index])


def _as_it_is(batch: ReadRows) -> ReadRows:
    return batch


def _embed(
    backbone: Backbone, reader: RowReader, batches: list[range], writer: ActivationWriter, num_workers: int, bar: tqdm
) -> None:
    prepared = _PreparedBatches(reader, batches)
    loader = torch_data.DataLoader(prepared, batch_size=None, num_workers=num_workers, collate_fn=_as_it_is)
    for rows, read in zip(batches, loader, strict=True):
        for message in read.unreadable.values():
            logger.warning(f"left out: {message}")
        if read.number:
            embeddings = {}
            if read.pixels is not None:
                embeddings["image_embeds"] = backbone.embed_pixels(read.pixels)
            if read.texts is not None:
                embeddings["text_embeds"] = backbone.text_embeds(read.texts, batch_size=read.number)
            writer.write(embeddings, read.kept, skipped=list(read.unreadable))
        else:
            writer.skip(list(read.unreadable))
        bar.update(len(rows))


def _divide(start: int, stop: int, batch_size: int, num_processes: int) -> list[range]:
    """Contiguous parts of whole batches, the same batches that one process would embed; none of several is empty."""
    num_batches = -(-(stop - start) // batch_size)
    borders = [min(start + batch_size * (num_batches * i // num_processes), stop) for i in range(num_processes + 1)]
    parts = [range(first, last) for first, last in pairwise(borders)]
    return parts if num_processes == 1 else [part for part in parts if part]


def _part_folder(output_dir: Path, part: range) -> Path:
    return output_dir / f"part-{part.start:09d}-{part.stop:09d}"


def _existing_parts(output_dir: Path) -> list[Path]:
    digits = "[0-9]" * 9
    return sorted(output_dir.glob(f"part-{digits}-{digits}"))


def _open_folder(output_dir: Path, settings: dict[str, Any], resume: bool, overwrite: bool) -> int:
    """Prepare the output folder; returns how many rows it holds already."""
    done = ActivationWriter(output_dir, **settings, resume=resume, overwrite=overwrite).rows_consumed
    if overwrite:
        for folder in _existing_parts(output_dir):
            shutil.rmtree(folder)
    return done


def _check_leftover_parts(output_dir: Path, parts: list[range], finished: bool) -> None:
    """What an interrupted run on several processes left must fit the parts of this run."""
    planned = {_part_folder(output_dir, part) for part in parts}
    for folder in _existing_parts(output_dir):
        if finished:
            shutil.rmtree(folder)
        elif folder not in planned:
            raise ValueError(
                f"{folder} is left from a run that divided the rows otherwise; use its number of processes and "
                "batch_size to continue it, or overwrite=True to start again"
            )


def _join_parts(output_dir: Path, settings: dict[str, Any], parts: list[range]) -> None:
    """Append the shards of complete parts, in order, and finish the folder.

    Shards are linked rather than moved, so that an interruption here finds all parts complete the next time.
    """
    whole = ActivationMetadata.load(output_dir)
    for part in parts:
        folder = _part_folder(output_dir, part)
        there = ActivationMetadata.load(folder)
        if there is None or not there.complete or there.rows_consumed != len(part):
            raise ValueError(f"{folder} is not complete; do all processes see the same folder {output_dir}?")
        if differences := whole.differences(there):
            raise ValueError(
                "the processes did not embed the same data in the same way:\n  " + "\n  ".join(differences)
            )
        for shard in there.shards:
            name = f"data-{len(whole.shards):05d}.arrow"
            _link(folder / shard.file, output_dir / name)
            skipped = whole.skipped_after + shard.skipped
            whole.shards.append(dataclasses.replace(shard, file=name, skipped=skipped))
            whole.skipped_after, whole.complete = [], False
        whole.skipped_after += there.skipped_after
    whole.save(output_dir)
    ActivationWriter(output_dir, **settings).close()
    for part in parts:
        shutil.rmtree(_part_folder(output_dir, part))


def _link(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)


def _on_main_process(accelerator: Accelerator | None, action: Callable[[], Any]) -> Any:
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
