"""From a dataset of images and captions to a folder of embeddings, resumable, on one process or several."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from datetime import timedelta
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

from ..._utils.acceleration import build_accelerator, on_main_process
from ..._utils.checks import check_integers
from ...embeddings import EmbeddingWriter
from ...embeddings.metadata import EmbeddingMetadata, new_metadata
from .. import Backbone
from ..hook_points import HookPoint
from .embedding import Embedder, TokenChoice
from .parts import Part, check_alike, check_leftover_parts, divide, existing_parts, join_parts, only_run
from .rows import ReadRows, RowReader, StoredRows

__all__ = ["TokenChoice", "extract_activations"]

logger = logging.get_logger(__name__)

PATIENCE = timedelta(days=30)
"""How long processes wait for each other: for one that downloads the data, or whose part takes hours longer."""

# Further unreadable rows are logged at level INFO.
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
    """Embed a dataset in the order of its rows, and write the embeddings together with the dataset's labels.

    An interrupted run continues after the last complete shard when it is started again with the same settings. If
    several processes are launched (`accelerate launch`, `torchrun`), each embeds a contiguous part of the rows (of a
    stream: of its files), and the main process joins the parts. The result is the same as that of one process.

    Args:
        backbone: A [`Backbone`], or what `Backbone.from_pretrained` takes.
        dataset: A dataset or stream (`streaming=True`) with an image, a caption, or both in each row.
        output_dir: Folder for `load_embeddings` and `datasets.load_from_disk`, shared by all processes.
        image_column: Images, paths or encoded bytes; read only for hook points of the vision tower. None means
            "image", or else the only column of images.
        text_column: One string per row; required for hook points of the text tower.
        hook_points: The embeddings to write, one column each: "image_embeds", "text_embeds", and the tokens that
            leave a block, "vision.layers.{i}" and "text.layers.{i}". All are read in one forward pass.
        batch_size: Rows per forward pass. Affects only speed and memory.
        dtype: How embeddings are stored, "float32" or "float16".
        keep_columns: Other columns to write. None keeps all numbers, booleans, labels and strings, and of images that
            are files of a folder, their names, in the column "file_name"; images are never kept.
        num_workers: Processes that decode and prepare images; 0 does it between forward passes.
        resume: Continue an earlier run in `output_dir`.
        overwrite: Delete an earlier run in `output_dir`.
        rows_per_shard: Rows per file, rounded up to whole batches; an interruption loses at most this many.
        metadata: Entries that are added to the recorded provenance (backbone, dataset, processor, versions) or
            replace parts of it.
        accelerator: The processes that share the work. By default those that a launcher started, which wait for each
            other as long as it takes; those of an accelerator of your own wait as long as its timeout says.
        progress: Show a progress bar.
        on_unreadable: What to do with a row whose image cannot be read or whose caption is missing. "raise" stops;
            "skip" leaves it out, logs it, and records its number in `activations.json`. After skipping, embeddings
            and dataset no longer have the same row numbers, so keep a column of ids.
        tokens: Tokens to keep at blocks: "all" except padding, or "patches", without class token and registers. Their
            positions are written to the columns "vision.tokens" and "text.tokens".
        tokens_per_row: Maximum number of tokens per image or text, drawn at random; None keeps all.
        seed: Random seed of the drawn tokens.

    Returns:
        output_dir.

    Raises:
        ValueError: A column or hook point does not exist, an image or caption is unreadable (the row is named), the
            dataset is empty, or the folder was written with other settings.
        TypeError: `dataset` is not a dataset.
        FileExistsError: `output_dir` holds something else, or embeddings while `resume` and `overwrite` are off.
    """
    hook_points = (hook_points,) if isinstance(hook_points, str) else tuple(hook_points)
    check_arguments(hook_points, text_column, batch_size, rows_per_shard, num_workers, dtype, on_unreadable)
    choice = TokenChoice(tokens, tokens_per_row, seed)
    if accelerator is None and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        accelerator = build_accelerator(patience=PATIENCE)
    reader = check_dataset(dataset, hook_points, image_column, text_column, keep_columns, on_unreadable)
    backbone = _place(backbone, accelerator)
    for hook_point in hook_points:
        backbone.require(hook_point)
    embedder = Embedder(backbone, hook_points, choice)
    reader.image_processor = backbone.image_processor
    if taken := sorted({*embedder.columns, *embedder.extra_features} & set(reader.kept_features)):
        raise ValueError(
            f"the dataset already has a column {taken[0]!r}, which the extraction writes: rename it, or leave it out "
            "with keep_columns"
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
        # Whole batches, so that a resumed run forms the same batches and its numbers agree to the last bit.
        "rows_per_shard": -(-rows_per_shard // batch_size) * batch_size,
        "metadata": {**provenance, **(metadata or {})},
    }
    rank, num_processes = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)

    with ExitStack() as stack:

        def prepare() -> tuple[list[Part], EmbeddingMetadata]:
            stack.enter_context(only_run(output_dir))
            parts = _plan(output_dir, settings, reader, batch_size, num_processes, resume, overwrite)
            return parts, EmbeddingMetadata.load(output_dir)

        parts, whole = on_main_process(accelerator, prepare)
        if num_processes == 1:
            with EmbeddingWriter(output_dir, **settings) as writer:
                _embed(embedder, reader, parts[0], writer, batch_size, num_workers, progress)
            return output_dir
        check_alike(whole, new_metadata(**{name: settings[name] for name in settings if name != "rows_per_shard"}))
        if rank < len(parts):
            part = parts[rank]
            first_row = 0 if part.rows is None else part.rows.start
            with EmbeddingWriter(part.folder(output_dir), **settings, first_row=first_row) as writer:
                _embed(embedder, reader, part, writer, batch_size, num_workers, progress and rank == 0)
                writer.close(allow_empty=True)  # another part may have readable rows
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
    """Prepare the output folder and return what is left for each process; one process has a single part."""
    writer = EmbeddingWriter(output_dir, **settings, resume=resume, overwrite=overwrite)
    if overwrite:
        for folder in existing_parts(output_dir):
            shutil.rmtree(folder)
    done = writer.rows_consumed
    finished = writer.is_complete if reader.streams else done == reader.num_rows
    if num_processes == 1:
        check_leftover_parts(output_dir, [], finished)
        return [Part(None if reader.streams else range(reader.num_rows))]
    if reader.streams:
        if done and not finished:
            raise ValueError(
                f"{output_dir} holds part of a stream that one process has embedded: continue with one process, or "
                "start again with overwrite=True"
            )
        reader.part(0, num_processes)  # raises if the stream cannot be divided
        parts = [Part(None, index, num_processes) for index in range(0 if finished else num_processes)]
    else:
        parts = [Part(rows) for rows in divide(done, reader.num_rows, batch_size, num_processes)]
    check_leftover_parts(output_dir, parts, finished)
    return parts


def check_dataset(
    dataset: Dataset | IterableDataset,
    hook_points: Sequence[str],
    image_column: str | None,
    text_column: str | None,
    keep_columns: Sequence[str] | None,
    on_unreadable: str,
) -> RowReader:
    """Return a reader of the rows of a dataset; raises as `RowReader` if a column does not fit."""
    towers = {HookPoint.parse(hook_point).tower for hook_point in hook_points}
    return RowReader(
        dataset,
        "vision" in towers,
        image_column,
        text_column,
        keep_columns,
        skip_unreadable=on_unreadable == "skip",
        with_texts="text" in towers,
    )


def check_arguments(
    hook_points: Sequence[str],
    text_column: str | None,
    batch_size: int,
    rows_per_shard: int,
    num_workers: int,
    dtype: str,
    on_unreadable: str,
) -> None:
    """Raise ValueError if an argument of `extract_activations` is no name of a hook point, or out of range."""
    if not hook_points or len(set(hook_points)) < len(hook_points):
        raise ValueError(f"hook_points must name at least one hook point, each only once; got {list(hook_points)}")
    for hook_point in hook_points:
        if HookPoint.parse(hook_point).tower == "text" and text_column is None:
            raise ValueError(f"the hook point {hook_point} needs a text_column")
    check_integers(batch_size=(batch_size, 1), rows_per_shard=(rows_per_shard, 1), num_workers=(num_workers, 0))
    if dtype not in ("float32", "float16"):
        raise ValueError(f'dtype must be "float32" or "float16", got {dtype!r}')
    if on_unreadable not in ("raise", "skip"):
        raise ValueError(f"on_unreadable is {on_unreadable!r}; choose raise or skip")


def _place(backbone: Any, accelerator: Accelerator | None) -> Backbone:
    """Load the backbone if necessary, and move it to the accelerator's device."""
    device = None if accelerator is None else accelerator.device
    if isinstance(backbone, Backbone):
        return backbone if device is None else backbone.to(device)
    if device is None and not isinstance(backbone, PreTrainedModel) and torch.accelerator.is_available():
        device = torch.accelerator.current_accelerator()
    return Backbone.from_pretrained(backbone, device=device)


class _Preparation(torch_data.Dataset):
    """Rows ready for the model. The worker processes of a DataLoader prepare them without having the model."""

    def __init__(self, reader: RowReader) -> None:
        self.reader = reader

    def __getitem__(self, rows: range | StoredRows) -> ReadRows:
        return self.reader.read(rows)


def _unchanged(batch: ReadRows) -> ReadRows:
    return batch


def _embed(
    embedder: Embedder,
    reader: RowReader,
    part: Part,
    writer: EmbeddingWriter,
    batch_size: int,
    num_workers: int,
    progress: bool,
) -> None:
    """Embed the rows of a part that are not written yet."""
    done = writer.rows_consumed
    batches: Iterable[range | StoredRows]
    if part.rows is not None:
        total, rest = len(part.rows), part.rows[done:]
        batches = [rest[start : start + batch_size] for start in range(0, len(rest), batch_size)]
    else:
        reader = reader if part.num_parts == 1 else reader.part(part.index, part.num_parts)
        total = reader.num_rows
        batches = () if writer.is_complete else reader.stream(done, batch_size, writer.position)
    # The sampler yields what is to be read instead of an index: a stream is read in one place and in order.
    loader = torch_data.DataLoader(
        _Preparation(reader), sampler=batches, batch_size=None, num_workers=num_workers, collate_fn=_unchanged
    )
    unreadable, reading = 0, iter(loader)
    with ExitStack() as stack:
        if num_workers:  # after an error they would wait for the garbage collection, and it five seconds for each
            stack.callback(reading._shutdown_workers)
        bar = stack.enter_context(tqdm(desc="embedding", total=total, initial=done, unit="row", disable=not progress))
        for read in reading:
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
        logger.warning(f"and {more} more rows: activations.json lists their numbers, the log at level INFO why")
