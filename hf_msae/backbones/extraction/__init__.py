"""From a data set of images and captions to a folder of embeddings, resumable, on one process or several."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from logging import INFO, WARNING
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from datasets import Dataset, Features, IterableDataset
from torch.utils import data as torch_data
from tqdm import tqdm
from transformers import PreTrainedModel
from transformers.utils import logging

from ..._utils.acceleration import build_accelerator
from ...embeddings import EmbeddingWriter
from .. import Backbone
from ..hook_points import HookPoint
from .embedding import Embedder, TokenChoice
from .parts import Part, check_leftover_parts, divide, existing_parts, join_parts, on_main_process, only_run
from .rows import ReadRows, RowReader, StoredRows

__all__ = ["TokenChoice", "extract_activations"]

logger = logging.get_logger(__name__)

# More rows that are left out are named at the level of information alone.
_SHOWN_UNREADABLE = 20


def extract_activations(
    backbone: Backbone | PreTrainedModel | str | os.PathLike,
    dataset: Dataset | IterableDataset,
    output_dir: str | os.PathLike,
    image_column: str | None = None,
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
    tokens: str = "all",
    tokens_per_row: int | None = None,
    seed: int = 0,
) -> Path:
    """Embed a data set, row by row and in its order, and write the embeddings beside the data set's labels.

    Interrupted, it continues after the last complete shard when it is called again with the same settings. Launched on
    several processes (`accelerate launch`, `torchrun`), each embeds a contiguous part (of a stream: of its files), and
    the main process joins the parts: the rows are those that one process would have written, in the same order.

    Args:
        backbone: a [`Backbone`], or what `Backbone.from_pretrained` takes.
        dataset: a row per image, per caption, or per pair of them; also as a stream (`streaming=True`).
        output_dir: a folder for `load_embeddings` and `datasets.load_from_disk`. Several processes must share it.
        image_column: images, paths or encoded bytes; read only for hook points of the vision tower. None means
            "image", or else the only column of images.
        text_column: one string per row; needed for hook points of the text tower.
        hook_points: which embeddings to write, each a column, all in one forward pass: "image_embeds", "text_embeds",
            and the tokens that leave a block, "vision.layers.{i}" and "text.layers.{i}".
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
        tokens: at blocks, "all" tokens but padding, or "patches", without class token and registers. Their positions
            are written as "vision.tokens" and "text.tokens".
        tokens_per_row: at most so many of each image or text, drawn with `seed`; None keeps all.
        seed: which tokens are drawn.

    Returns:
        output_dir.

    Raises:
        ValueError: a column or hook point that is not there, an unreadable image or caption (its row is named),
            an empty data set, or a folder that was written with other settings.
        TypeError: `dataset` is no data set.
        FileExistsError: `output_dir` holds something else, or embeddings while `resume` and `overwrite` are off.
    """
    hook_points = (hook_points,) if isinstance(hook_points, str) else tuple(hook_points)
    _check_arguments(hook_points, text_column, batch_size, rows_per_shard, num_workers)
    if dtype not in ("float32", "float16"):
        raise ValueError(f'dtype must be "float32" or "float16", got {dtype!r}')
    if on_unreadable not in ("raise", "skip"):
        raise ValueError(f"on_unreadable is {on_unreadable!r}; choose raise or skip")
    choice = TokenChoice(tokens, tokens_per_row, seed)
    if accelerator is None and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        accelerator = build_accelerator()
    backbone = _place(backbone, accelerator)
    for hook_point in hook_points:
        backbone.require(hook_point)
    embedder = Embedder(backbone, hook_points, choice)
    reader = RowReader(
        dataset,
        "vision" in embedder.towers,
        image_column,
        text_column if "text" in embedder.towers else None,
        keep_columns,
        skip_unreadable=on_unreadable == "skip",
    )
    reader.image_processor = backbone.image_processor
    if taken := sorted({*embedder.columns, *embedder.extra_features} & set(reader.kept_features)):
        raise ValueError(
            f"the data set has a column {taken[0]!r}, which is the name of one that is written: rename it, or choose "
            "others by keep_columns"
        )

    output_dir = Path(output_dir).expanduser()
    provenance = {**backbone.provenance(), "hook_points": hook_points, **reader.provenance()}
    if embedder.token_columns:
        provenance["tokens"] = {"kind": tokens, "per_row": tokens_per_row, "seed": seed}
    settings = {
        "columns": embedder.columns,
        "token_columns": embedder.token_columns,
        "extra_features": Features({**embedder.extra_features, **reader.kept_features}),
        "dtype": dtype,
        # Whole batches, so that a resumed run cuts the same batches and its numbers are the same to the last bit.
        "rows_per_shard": -(-rows_per_shard // batch_size) * batch_size,
        "metadata": {**provenance, **(metadata or {})},
    }
    rank, num_processes = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)

    with ExitStack() as stack:

        def prepare() -> list[Part]:
            stack.enter_context(only_run(output_dir))
            return _plan(output_dir, settings, reader, batch_size, num_processes, resume, overwrite)

        parts = on_main_process(accelerator, prepare)
        if rank < len(parts):
            part = parts[rank]
            folder = output_dir if num_processes == 1 else part.folder(output_dir)
            # Parts have a folder of their own.
            first_row = part.rows.start if part.rows is not None and num_processes > 1 else 0
            with EmbeddingWriter(folder, **settings, first_row=first_row) as writer:
                _embed(embedder, reader, part, writer, batch_size, num_workers, progress and rank == 0, num_processes)
                if num_processes > 1:
                    writer.close(allow_empty=True)  # another part may have rows that can be read
        if num_processes > 1:
            accelerator.wait_for_everyone()
            on_main_process(accelerator, lambda: join_parts(output_dir, settings, parts))
    return output_dir


def _plan(
    output_dir: Path,
    settings: dict[str, Any],
    reader: RowReader,
    batch_size: int,
    num_processes: int,
    resume: bool,
    overwrite: bool,
) -> list[Part]:
    """Prepare the output folder; returns what is left for each process."""
    writer = EmbeddingWriter(output_dir, **settings, resume=resume, overwrite=overwrite)
    done = writer.rows_consumed
    if overwrite:
        for folder in existing_parts(output_dir):
            shutil.rmtree(folder)
    if not reader.streams:
        finished = done == reader.num_rows
        parts = [Part(rows) for rows in divide(done, reader.num_rows, batch_size, num_processes)]
        if num_processes == 1:
            parts = [Part(range(reader.num_rows))]
    else:
        finished = writer.is_complete
        parts = [Part(None, index, num_processes) for index in range(0 if finished else num_processes)]
        if num_processes > 1 and done and not finished:
            raise ValueError(
                f"{output_dir} holds what one process has embedded of a stream: continue with one process, or "
                "overwrite=True to start again"
            )
        if num_processes > 1:
            reader.part(0, num_processes)  # says if it cannot be divided
    check_leftover_parts(output_dir, parts if num_processes > 1 else [], finished)
    return parts


def _check_arguments(
    hook_points: tuple[str, ...], text_column: str | None, batch_size: int, rows_per_shard: int, num_workers: int
) -> None:
    if not hook_points or len(set(hook_points)) < len(hook_points):
        raise ValueError(f"hook_points must name at least one hook point, and each once; got {list(hook_points)}")
    for hook_point in hook_points:
        if HookPoint.parse(hook_point).tower == "text" and text_column is None:
            raise ValueError(f"the hook point {hook_point} needs a text_column")
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


class _Preparation(torch_data.Dataset):
    """Rows ready for the model; the worker processes of a DataLoader prepare them without having the model."""

    def __init__(self, reader: RowReader) -> None:
        self.reader = reader

    def __getitem__(self, rows: range | StoredRows) -> ReadRows:
        return self.reader.read(rows)


def _as_it_is(batch: ReadRows) -> ReadRows:
    return batch


def _embed(
    embedder: Embedder,
    reader: RowReader,
    part: Part,
    writer: EmbeddingWriter,
    batch_size: int,
    num_workers: int,
    progress: bool,
    num_processes: int,
) -> None:
    """Embed what is left of a part."""
    done = writer.rows_consumed
    batches: Iterable[range | StoredRows]
    if part.rows is not None:
        total = len(part.rows)
        rest = part.rows[done:]
        batches = [rest[start : start + batch_size] for start in range(0, len(rest), batch_size)]
    else:
        total = reader.num_rows if num_processes == 1 else None
        reader = reader if num_processes == 1 else reader.part(part.index, part.num_parts)
        batches = () if writer.is_complete else reader.stream(done, batch_size, writer.position)
    # What is to be read goes to the workers in place of an index: streams are read in one place and in their order.
    loader = torch_data.DataLoader(
        _Preparation(reader), sampler=batches, batch_size=None, num_workers=num_workers, collate_fn=_as_it_is
    )
    name = "embedding" if num_processes == 1 else f"embedding (process 1 of {num_processes})"
    unreadable = 0
    with tqdm(desc=name, total=total, initial=done, unit="row", disable=not progress) as bar:
        for read in loader:
            for message in read.unreadable.values():
                unreadable += 1
                logger.log(WARNING if unreadable <= _SHOWN_UNREADABLE else INFO, f"left out: {message}")
            if read.numbers:
                embeddings, positions = embedder(read)
                writer.write(embeddings, {**positions, **read.kept}, list(read.unreadable), read.position)
            else:
                writer.skip(list(read.unreadable), read.position)
            bar.update(len(read.numbers) + len(read.unreadable))
    if unreadable > _SHOWN_UNREADABLE:
        more = unreadable - _SHOWN_UNREADABLE
        logger.warning(f"and {more} more rows: activations.json has their numbers, the log at level INFO their names")
