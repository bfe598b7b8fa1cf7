"""Writing embeddings to disk in shards that survive an interruption."""

from __future__ import annotations

import dataclasses
import errno
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from datasets import DatasetInfo, Features, List, Value
from datasets.fingerprint import generate_random_fingerprint

from .._utils.atomic import atomic_path
from .._utils.file_integrity import sha256_of
from .._utils.json_files import write_json
from .encoding import encode_embeddings, encode_extra
from .metadata import Shard, check_settings, new_metadata
from .resuming import STATE_FILE, open_folder
from .statistics import RunningMoments
from .stored_statistics import STATISTICS_FILE, merge_moments, moments_of, moments_of_shard, save_moments

# Token embeddings are many and wide, so a shard also ends when it reaches this size.
_SHARD_BYTES = 2**30


class EmbeddingWriter:
    """Write embeddings, batch by batch, to a folder that `datasets.load_from_disk` and `load_embeddings` read.

    Rows are collected in memory until a shard is full. A shard is counted in `activations.json` only once its file is
    complete, so a killed run loses at most one shard: open the folder again with the same settings, skip the first
    `rows_consumed` rows of the data, and go on. Each shard is one Arrow record batch, which keeps random access fast.

    Args:
        folder: Where to write; created if it does not exist.
        columns: Embedding column (named by its hook point) -> width.
        extra_features: Types of further columns (labels, captions, ids), passed to `write` as `extra`.
        dtype: How embeddings are stored, "float32" or "float16". A value that float16 cannot hold is an error.
        rows_per_shard: Rows per file: what an interruption can lose, and what is held in memory.
        metadata: Provenance to keep in `activations.json`, such as `base_model_name_or_path`, `base_model_revision`,
            `dataset` or library versions. Any JSON value.
        resume: Continue after the last complete shard of an earlier run with the same settings and metadata.
        overwrite: Delete what an earlier run wrote to the folder, and start again.
        token_columns: The columns that hold several embeddings per row, one for each token.
        first_row: Number, in the data, of the first row of this folder. Only messages use it.

    Raises:
        FileExistsError: The folder is not empty and `resume` and `overwrite` are off, or it holds something else.
        ValueError: The folder was written with other settings, or an argument is invalid.

    Example:
        >>> with EmbeddingWriter("embeds", {"image_embeds": 512}, metadata={"dataset": "cifar10"}) as writer:
        ...     for start in range(writer.rows_consumed, len(images), 64):
        ...         writer.write({"image_embeds": embed(images[start : start + 64])})
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        columns: Mapping[str, int],
        extra_features: Features | None = None,
        dtype: str = "float32",
        rows_per_shard: int = 16384,
        metadata: Mapping[str, Any] | None = None,
        resume: bool = True,
        overwrite: bool = False,
        token_columns: Sequence[str] = (),
        first_row: int = 0,
    ) -> None:
        extra_features = Features(extra_features or {})
        check_settings(columns, extra_features, dtype, rows_per_shard, token_columns)
        self.folder = Path(folder).expanduser()
        self.rows_per_shard = rows_per_shard
        self._first_row = first_row
        self._pending: list[pa.Table] = []
        self._pending_bytes = 0
        self._pending_rows = 0
        self._pending_skipped: list[int] = []
        self._position: Mapping[str, Any] | None = None
        self._moments: list[dict[str, RunningMoments]] = []  # of each shard written here
        self._closed = False
        wanted = new_metadata(columns, extra_features, dtype, metadata, token_columns)
        self._metadata = open_folder(self.folder, wanted, resume, overwrite)
        self._earlier_shards = list(self._metadata.shards)
        # The folder decides the order of the columns, so that all shards have the same schema.
        vectors = {name: List(Value(dtype), length=width) for name, width in self._metadata.columns.items()}
        vectors |= {name: List(vectors[name]) for name in self._metadata.token_columns}
        self._extra_features = Features({name: extra_features[name] for name in self._metadata.extra_features})
        self._features = Features({**vectors, **self._extra_features})

    @property
    def rows_written(self) -> int:
        """Rows in complete shards."""
        return self._metadata.num_rows

    @property
    def rows_consumed(self) -> int:
        """Row of the data to continue with after an interruption: `rows_written` plus the rows left out."""
        return self._metadata.rows_consumed

    @property
    def is_complete(self) -> bool:
        """Whether an earlier run finished the folder and nothing was written since."""
        return self._metadata.complete

    @property
    def position(self) -> dict[str, Any] | None:
        """The `position` passed to `write` with the last batch of the last complete shard, if any."""
        return self._metadata.position

    def write(
        self,
        embeddings: Mapping[str, np.ndarray | torch.Tensor | Sequence[np.ndarray | torch.Tensor]],
        extra: Mapping[str, Sequence[Any]] | None = None,
        skipped: Sequence[int] = (),
        position: Mapping[str, Any] | None = None,
    ) -> None:
        """Append a batch.

        Args:
            embeddings: For every embedding column, floats of shape (B, width); for a token column, B matrices of
                shape (tokens, width).
            extra: For every extra column, B values.
            skipped: Numbers of the data's rows that belong to this batch but are left out. They count towards
                `rows_per_shard`, and a shard then ends with a batch.
            position: Where the data continues after this batch, any JSON value. If shards end with batches,
                `self.position` gives it back after an interruption.

        Raises:
            ValueError: A column is missing, unknown or of another shape, or holds a value (NaN, infinity, too large
                for float16) that cannot be stored. Nothing of the batch is kept then.
        """
        if self._closed:
            raise ValueError(f"the writer of {self.folder} is closed; open a new one with resume=True to append")
        extra = dict(extra or {})
        known = self._metadata
        for kind, given, wanted in (
            ("embedding", embeddings, known.columns),
            ("extra", extra, known.extra_features),
        ):
            if given.keys() != wanted.keys():
                raise ValueError(f"this writer has the {kind} columns {sorted(wanted)}, the batch has {sorted(given)}")
        lengths = {name: len(values) for name, values in {**embeddings, **extra}.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"the columns of a batch must have the same number of rows, got {lengths}")
        # Messages number the rows of the data, some of which may have been left out.
        first = self._first_row + self.rows_consumed + self._pending_rows + len(self._pending_skipped)
        left_out = set(map(int, skipped))
        numbers = (row for row in itertools.count(first) if row not in left_out)
        rows = list(itertools.islice(numbers, next(iter(lengths.values()))))
        if not rows:
            self.skip(skipped, position)
            return
        vectors = [
            encode_embeddings(name, embeddings[name], width, known.dtype, name in known.token_columns, rows)
            for name, width in known.columns.items()
        ]
        columns = [*vectors, *encode_extra(extra, self._extra_features, rows)]
        self._pending.append(pa.table(columns, schema=self._features.arrow_schema))
        self._pending_bytes += self._pending[-1].nbytes
        self._pending_rows += len(rows)
        self._pending_skipped += map(int, skipped)
        self._position = position
        if self._pending_skipped and self._pending_rows + len(self._pending_skipped) >= self.rows_per_shard:
            self._flush()
        while self._pending_rows >= self.rows_per_shard:
            self._write_shard(self.rows_per_shard)
        if self._pending_bytes >= _SHARD_BYTES:
            self._flush()

    def skip(self, rows: Sequence[int], position: Mapping[str, Any] | None = None) -> None:
        """Record a batch whose rows are all left out."""
        self._pending_skipped += map(int, rows)
        self._position = position
        if self._pending_rows and self._pending_rows + len(self._pending_skipped) >= self.rows_per_shard:
            self._flush()

    def adopt(self, shards: Sequence[Shard], skipped_after: Sequence[int], moments: dict[str, RunningMoments]) -> None:
        """Finish the folder with these shards, whose files are already in it.

        The metadata on disk change only at the end, so an interruption changes nothing. For `skipped_after` see
        `EmbeddingMetadata`.
        """
        self._metadata = dataclasses.replace(
            self._metadata, shards=list(shards), skipped_after=list(skipped_after), complete=False, position=None
        )
        self.close(moments=moments)

    def close(self, allow_empty: bool = False, moments: dict[str, RunningMoments] | None = None) -> None:
        """Write the last rows, the statistics, and the files that make the folder a Hugging Face dataset.

        Args:
            allow_empty: Accept a folder whose rows were all left out.
            moments: Moments of all shards, if known. By default, shards written by others are read again.

        Raises:
            ValueError: No row was ever written.
        """
        if self._closed:
            return
        self._flush()
        if self._pending_skipped:
            self._metadata.skipped_after += self._pending_skipped
            self._pending_skipped, self._metadata.complete = [], False
        self._closed = True
        if self._metadata.complete:
            return
        if self.rows_written == 0 and not (allow_empty and self.rows_consumed):
            why = f"all {self.rows_consumed} rows were left out" if self.rows_consumed else "the data is empty"
            raise ValueError(f"no embedding was written to {self.folder}: {why}")
        with self._out_of_space("the files that finish it"):
            # Not atomic, but the folder is a dataset only once the state file, written later, is there.
            DatasetInfo(features=self._features).write_to_directory(str(self.folder))
            checksum = ""
            if self._metadata.shards:
                if moments is None:
                    columns, moments = self._metadata.columns, {}
                    earlier = (moments_of_shard(self.folder, shard, columns) for shard in self._earlier_shards)
                    for each in (*earlier, *self._moments):  # shard by shard: a resumed folder has the same sums
                        merge_moments(moments, each)
                save_moments(self.folder, moments)
                checksum = sha256_of(self.folder / STATISTICS_FILE)
            self._metadata.statistics_sha256 = checksum
            write_json(
                self.folder / STATE_FILE,  # as `datasets.load_from_disk` reads it
                {
                    "_data_files": [{"filename": shard.file} for shard in self._metadata.shards],
                    # Random, because datasets keys its caches on it: two runs into one folder must not share a cache.
                    "_fingerprint": generate_random_fingerprint(),
                    "_format_columns": None,
                    "_format_kwargs": {},
                    "_format_type": None,
                    "_output_all_columns": False,
                    "_split": None,
                },
            )
            self._metadata.complete = True
            self._metadata.save(self.folder)

    def __enter__(self) -> EmbeddingWriter:
        return self

    def __exit__(self, exception_type: type[BaseException] | None, *_: object) -> None:
        if exception_type is None:
            self.close()
        else:  # interrupted: keep the rows given so far, but leave the folder marked as unfinished
            self._flush()
            self._closed = True

    def _flush(self) -> None:
        if self._pending_rows:
            self._write_shard(self._pending_rows)

    def _write_shard(self, rows: int) -> None:
        table = pa.concat_tables(self._pending).combine_chunks()
        shard, rest = table.slice(0, rows), table.slice(rows)
        file = self.folder / f"data-{len(self._metadata.shards):05d}.arrow"
        with self._out_of_space(f"{file.name}, of {rows} rows"):
            with atomic_path(file) as temporary:
                with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as stream:
                    stream.write_table(shard)
                checksum = sha256_of(temporary)
                # From here until `close` the folder is not, or no longer, a finished dataset.
                (self.folder / STATE_FILE).unlink(missing_ok=True)
            after = dataclasses.replace(self._metadata, shards=list(self._metadata.shards), complete=False)
            skipped = after.skipped_after + self._pending_skipped
            after.shards.append(Shard(file.name, rows, file.stat().st_size, checksum, skipped))
            after.skipped_after = []
            after.position = None if rest.num_rows or self._position is None else dict(self._position)
            after.save(self.folder)
        self._metadata, self._pending_skipped = after, []
        self._moments.append(moments_of(shard, self._metadata.columns))
        self._pending, self._pending_rows = ([rest] if rest.num_rows else []), rest.num_rows
        self._pending_bytes = rest.nbytes

    @contextmanager
    def _out_of_space(self, what: str) -> Iterator[None]:
        """Close the writer if the disk is full, and say which rows are safe."""
        try:
            yield
        except OSError as error:
            self._closed, self._pending, self._pending_rows = True, [], 0
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            raise OSError(
                error.errno,
                f"no space left in {self.folder} for {what}; its {self.rows_written} rows in complete files are safe: "
                "free some space and run the same command again to continue",
            ) from error
