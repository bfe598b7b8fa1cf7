"""Embeddings as a torch data set over memory-mapped matrices."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch.utils import data as torch_data

from .columns import RaggedColumnError, is_token_type, matrix_views, split_tokens
from .sources import Source
from .spread_rows import SpreadRows
from .statistics import EmbeddingStatistics, compute_statistics

# Rows copied at a time where a block cannot be looked at where it lies.
_BLOCK_ROWS = 2**15


class EmbeddingDataset(torch_data.Dataset):
    """Embeddings of shape (N, width), read from disk as they are asked for. Made by `load_embeddings`.

    The rows stay where they are (memory-mapped Arrow shards or .npy, or an array in memory); what is asked for is
    gathered with one copy into a float32 tensor. In a `DataLoader`, whole batches come from `__getitems__`, so pass
    `collate_fn=EmbeddingDataset.collate`. Worker processes open the files anew instead of copying the data.

    Attributes:
        source: where the embeddings come from, for messages and cards.
        column: name of the embedding column; None for a plain array.
        width: numbers per embedding.
        dataset: the `datasets.Dataset` with the other columns; None for a plain array.
        provenance: what the extraction recorded (backbone, revision, hook point, data set, ...); {} where unknown.

    A column may also hold several embeddings a row, the tokens of an image or text: they then count one by one, and
    `dataset_rows` says which row of `dataset` each belongs to.
    """

    def __init__(self, source: Source, column: str | None = None) -> None:
        self._opened = source
        self.source = source.name
        self.column = column
        self.provenance: dict[str, Any] = dict(source.provenance)
        if self.provenance and column is not None:
            self.provenance["hook_point"] = column
        self._statistics: EmbeddingStatistics | None = None
        self._open_views()
        if len(self) == 0:
            raise ValueError(f"{self.source} is empty: it has no rows")

    @property
    def dataset(self) -> Dataset | None:
        return self._opened.dataset

    @property
    def width(self) -> int:
        return self._views[0].shape[1]

    @property
    def nbytes(self) -> int:
        """Size of the embeddings as they are stored."""
        return len(self) * self.width * self._views[0].itemsize

    def __len__(self) -> int:
        return int(self._starts[-1]) if self._order is None else len(self._order)

    def __repr__(self) -> str:
        column = "" if self.column is None else f", column={self.column!r}"
        return f"EmbeddingDataset({self.source!r}{column}, {len(self)} x {self.width})"

    def __getitem__(self, index: int | slice | Sequence[int] | np.ndarray | torch.Tensor) -> torch.Tensor:
        """One embedding (width,) for an integer; a batch (B, width) for a slice or a sequence of integers; float32."""
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            return self._slice(start, max(start, stop)) if step == 1 else self.__getitems__(range(start, stop, step))
        if np.ndim(index) == 0:
            return self.__getitems__([int(index)])[0]
        return self.__getitems__(index)

    def __getitems__(self, indices: Sequence[int] | np.ndarray | torch.Tensor) -> torch.Tensor:
        """The embeddings of these rows, in this order, as float32 of shape (len(indices), width)."""
        indices = np.asarray(indices if not isinstance(indices, range) else list(indices))
        if indices.size == 0:
            indices = indices.astype(np.int64)
        if indices.ndim != 1 or not np.issubdtype(indices.dtype, np.integer):
            raise TypeError(
                f"rows are chosen by a flat list of integers, got {indices.dtype} of shape {indices.shape}"
            )
        outside = (indices < -len(self)) | (indices >= len(self))
        if outside.any():
            raise IndexError(f"row {indices[outside][0]} is out of range: {self.source} has {len(self)} rows")
        indices = np.where(indices < 0, indices + len(self), indices)
        return self._gather(indices if self._order is None else self._order[indices].astype(np.int64))

    def batches(self, batch_size: int) -> Iterator[torch.Tensor]:
        """All embeddings in order, as float32 tensors (batch_size, width); the last may be shorter."""
        if batch_size < 1:
            raise ValueError(f"batch_size must be positive, got {batch_size}")
        for start in range(0, len(self), batch_size):
            yield self._slice(start, min(start + batch_size, len(self)))

    def blocks(self) -> Iterator[torch.Tensor]:
        """All embeddings in order, as float32 tensors of many rows: the mapped files themselves where that can be.

        To be read, not written to. Where rows were chosen, or are stored in another type, they are copies.
        """
        if self._order is None and all(tensor is not None for tensor in self._tensors):
            for tensor in self._tensors:
                if tensor.dtype == torch.float32:
                    yield tensor
                else:
                    for part in tensor.split(_BLOCK_ROWS):
                        yield part.float()
        else:
            yield from self.batches(_BLOCK_ROWS)

    def statistics(self, progress: bool = False) -> EmbeddingStatistics:
        """Mean and spread of all embeddings.

        A folder that `EmbeddingWriter` has written, which lets no NaN or infinity in, has them stored. Of others the
        first call reads everything and checks every row; then they are cached.

        Raises:
            ValueError: a row holds NaN or infinity, or all rows are equal.
        """
        if self._statistics is None:
            moments = None if self._opened.moments is None else self._opened.moments.get(self.column)
            if moments is not None and moments.num_samples == len(self):
                self._statistics = EmbeddingStatistics.from_moments(moments, self.source)
            else:
                self._statistics = compute_statistics(self, progress=progress)
        return self._statistics

    @property
    def has_tokens(self) -> bool:
        """Whether a row of `dataset` holds several embeddings."""
        return self._token_starts is not None

    def dataset_rows(self, rows: Sequence[int] | np.ndarray | slice = slice(None)) -> np.ndarray:
        """The rows of `dataset` that these embeddings belong to; of all of them by default."""
        rows = np.arange(len(self))[rows]  # also of negative numbers, masks; and none that is out of range
        return self._dataset_row(rows)

    def _dataset_row(self, rows: np.ndarray) -> np.ndarray:
        return rows if self._token_starts is None else np.searchsorted(self._token_starts, rows, side="right") - 1

    def location(self, row: int) -> str:
        """The file an embedding lies in, as " (in data-00003.arrow)"; "" where the source is one file or none."""
        physical = int(self._dataset_row(np.asarray(row)))
        if self.dataset is not None and self.dataset._indices is not None:
            physical = self.dataset._indices.column(0)[physical].as_py()
        if len(self._opened.files) > 1:
            for file, rows in self._opened.files:
                if physical < rows:
                    return f" (in {file})"
                physical -= rows
        return ""

    @staticmethod
    def collate(rows: torch.Tensor | list[torch.Tensor]) -> torch.Tensor:
        """`collate_fn` for a DataLoader: `__getitems__` already returns the batch as one tensor."""
        return rows if isinstance(rows, torch.Tensor) else torch.stack(rows)

    def __getstate__(self) -> dict[str, Any]:
        # Views would be pickled as copies of the data; they are made again from the memory-mapped files.
        opened = ("_views", "_tensors", "_spread", "_starts", "_order", "_token_starts")
        return {key: value for key, value in self.__dict__.items() if key not in opened}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open_views()

    def _open_views(self) -> None:
        self._order: np.ndarray | None = None
        self._token_starts: np.ndarray | None = None
        if self.dataset is None:
            self._views = [self._opened.array]
        else:
            self._views = self._column_views()
            if self.dataset._indices is not None:  # after select, shuffle, filter: row -> row of the Arrow table
                self._order = self.dataset._indices.column(0).to_numpy()
            if self._token_starts is not None:
                self._order_tokens()
        self._tensors = [_as_tensor(view) for view in self._views]
        self._spread = SpreadRows.over(self._views)
        self._starts = np.cumsum([0] + [len(view) for view in self._views])

    def _column_views(self) -> list[np.ndarray]:
        try:
            column = self.dataset.data.column(self.column)
            if is_token_type(column.type):
                column, counts = split_tokens(column)
                self._token_starts = np.concatenate([[0], np.cumsum(counts)])
            return matrix_views(column)
        except RaggedColumnError as error:
            if self.dataset._indices is not None:
                # The odd rows may be ones that `filter` or `select` has left out: look at the chosen ones alone.
                self._opened.dataset, self._opened.files = self.dataset.flatten_indices(), []
                return self._column_views()
            which = f"{'row' if self._token_starts is None else 'token'} {error.row}"
            raise ValueError(
                f"{which} of column {self.column!r} of {self.source}{self.location(error.row)} {error.problem}; "
                "embeddings must be vectors of one width"
            ) from None

    def _order_tokens(self) -> None:
        """Of chosen rows, the tokens in their order, and which tokens are whose."""
        if self._order is not None:
            first, stop = self._token_starts[self._order], self._token_starts[self._order + 1]
            self._token_starts = np.concatenate([[0], np.cumsum(stop - first)])
            self._order = np.repeat(first - self._token_starts[:-1], stop - first) + np.arange(self._token_starts[-1])

    def _slice(self, start: int, stop: int) -> torch.Tensor:
        """Consecutive rows: plain copies, faster than picking them one by one."""
        if self._order is not None:
            return self._gather(self._order[start:stop].astype(np.int64))
        out = np.empty((stop - start, self.width), dtype=np.float32)
        chunk = int(np.searchsorted(self._starts, start, side="right")) - 1
        position = start
        while position < stop:
            begin, view = int(self._starts[chunk]), self._views[chunk]
            end = min(stop, begin + len(view))
            _copy(out[position - start : end - start], view[position - begin : end - begin])
            position, chunk = end, chunk + 1
        return torch.from_numpy(out)

    def _gather(self, rows: np.ndarray) -> torch.Tensor:
        """Any rows of the table: chunk by chunk in ascending order, written to where they were asked for."""
        if self._spread is not None:
            chunks = np.searchsorted(self._starts, rows, side="right") - 1
            return torch.from_numpy(self._spread.rows(chunks, rows - self._starts[chunks])).float()
        # Half precision is gathered as it is and then converted at once.
        half = all(view.dtype == np.float16 for view in self._views)
        out = np.empty((len(rows), self.width), dtype=np.float16 if half else np.float32)
        gathered = torch.from_numpy(out)
        in_order = bool((rows[1:] >= rows[:-1]).all())  # as the batches of a training are
        order = None if in_order else np.argsort(rows, kind="stable")
        ascending = rows if in_order else rows[order]
        # Where each chunk begins among the rows asked for, and what it is asked for.
        borders = np.searchsorted(ascending, self._starts)
        for chunk in np.flatnonzero(np.diff(borders)):
            part = slice(borders[chunk], borders[chunk + 1])
            sources, tensor = ascending[part] - self._starts[chunk], self._tensors[chunk]
            if in_order and tensor is not None and tensor.dtype == gathered.dtype:
                # Straight to its place, by all threads.
                torch.index_select(tensor, 0, torch.from_numpy(sources), out=gathered[part])
            else:
                _copy(out, self._views[chunk][sources], part if in_order else order[part])
        return gathered.float()


def _as_tensor(view: np.ndarray) -> torch.Tensor | None:
    """The same memory as a tensor, for reading; None where torch cannot look at it."""
    if not view.flags.aligned or not view.dtype.isnative:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is not writeable, and not written to
            return torch.from_numpy(view)
    except (TypeError, ValueError):  # a dtype or strides that torch does not have
        return None


def _copy(out: np.ndarray, values: np.ndarray, targets: np.ndarray | slice = slice(None)) -> None:
    if values.dtype == np.float16 != out.dtype:  # torch converts half precision several times faster than numpy
        values = torch.from_numpy(values if values.flags.writeable else values.copy()).float().numpy()
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinity, which `statistics` reports by row
        out[targets] = values
