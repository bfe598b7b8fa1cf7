"""Embeddings as a torch dataset over memory-mapped matrices."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch.utils import data as torch_data

from .._utils.checks import check_integers
from .columns import RaggedColumnError, is_token_type, matrix_views, split_tokens
from .sources import Source, open_source
from .spread_rows import SpreadRows
from .statistics import EmbeddingStatistics, compute_statistics

_BLOCK_ROWS = 2**15
"""Rows that `blocks` copies at a time if it has to."""


class EmbeddingDataset(torch_data.Dataset):
    """Embeddings of shape (N, width), read from disk on demand. Created by `load_embeddings`.

    The rows stay where they are (memory-mapped Arrow shards or .npy, or an array in memory), and what is requested is
    gathered with one copy into a float32 tensor. In a `DataLoader`, whole batches come from `__getitems__`, so pass
    `collate_fn=EmbeddingDataset.collate`. Worker processes map the files again instead of copying the data.

    A column may hold several embeddings per row, the tokens of an image or text. They are counted one by one, and
    `dataset_rows` returns the row of `dataset` that each belongs to.

    Attributes:
        source: Where the embeddings come from, for messages and cards.
        column: Name of the embedding column; None for a plain array.
        provenance: What the extraction recorded (backbone, revision, hook point, dataset, ...); {} if unknown.
        skipped: Numbers of the data's rows that the extraction left out.
    """

    def __init__(self, source: Source, column: str | None = None) -> None:
        self._opened = source
        self.source = source.name
        self.column = column
        self.provenance: dict[str, Any] = dict(source.provenance)
        if self.provenance and _is_hook_point(column):
            self.provenance["hook_point"] = column
        self.skipped = list(source.skipped)
        self._statistics: EmbeddingStatistics | None = None
        self._kept: np.ndarray | None = None  # rows of an array or tokens, the others being left out
        self._open_views()
        if len(self) == 0:
            raise ValueError(f"{self.source} is empty: it has no rows")

    @property
    def dataset(self) -> Dataset | None:
        """The `datasets.Dataset` with the other columns; None for a plain array."""
        return self._opened.dataset

    @property
    def width(self) -> int:
        """Dimension of an embedding."""
        return self._views[0].shape[1]

    @property
    def nbytes(self) -> int:
        """Size of the stored embeddings in bytes."""
        return len(self) * self.width * self._views[0].itemsize

    def __len__(self) -> int:
        return int(self._starts[-1]) if self._order is None else len(self._order)

    def __repr__(self) -> str:
        column = "" if self.column is None else f", column={self.column!r}"
        return f"EmbeddingDataset({self.source!r}{column}, {len(self)} x {self.width})"

    def __getitem__(self, index: int | slice | Sequence[int] | np.ndarray | torch.Tensor) -> torch.Tensor:
        """One float32 embedding (width,) for an integer; a batch (B, width) for a slice or a sequence of integers."""
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            return self._slice(start, max(start, stop)) if step == 1 else self.__getitems__(range(start, stop, step))
        if np.ndim(index) == 0:
            return self.__getitems__([index])[0]
        return self.__getitems__(index)

    def __getitems__(self, indices: Sequence[int] | np.ndarray | torch.Tensor) -> torch.Tensor:
        """Return the embeddings of these rows, in this order, as float32 of shape (len(indices), width)."""
        indices = np.asarray(indices)
        if indices.size == 0:
            indices = indices.astype(np.int64)
        if indices.ndim != 1 or not np.issubdtype(indices.dtype, np.integer):
            raise TypeError(f"rows must be a flat list of integers, got {indices.dtype} of shape {indices.shape}")
        indices = indices.astype(np.int64)  # the number of rows may not fit into a smaller type
        outside = (indices < -len(self)) | (indices >= len(self))
        if outside.any():
            raise IndexError(f"row {indices[outside][0]} is out of range: {self.source} has {len(self)} rows")
        indices = np.where(indices < 0, indices + len(self), indices)
        return self._gather(indices if self._order is None else self._order[indices])

    def batches(self, batch_size: int) -> Iterator[torch.Tensor]:
        """Yield all embeddings in order, as float32 tensors (batch_size, width); the last may be shorter."""
        check_integers(batch_size=(batch_size, 1))
        for start in range(0, len(self), batch_size):
            yield self._slice(start, min(start + batch_size, len(self)))

    def blocks(self) -> Iterator[torch.Tensor]:
        """Yield all embeddings in order, as float32 tensors of many rows, without copying them if possible.

        The tensors may be the mapped files themselves, so do not write to them.
        """
        if self._order is not None or any(tensor is None for tensor in self._tensors):
            yield from self.batches(_BLOCK_ROWS)
            return
        for tensor in self._tensors:
            for part in (tensor,) if tensor.dtype == torch.float32 else tensor.split(_BLOCK_ROWS):
                yield part.float()

    def sample(self, number: int, seed: int = 0) -> EmbeddingDataset:
        """Draw at most `number` rows at random, in their order, and hold them in memory, without other columns."""
        check_integers(number=(number, 1), seed=(seed, 0))
        if len(self) <= number:
            return self
        return self.take(np.sort(np.random.default_rng(seed).choice(len(self), number, replace=False)))

    def take(self, rows: Sequence[int] | np.ndarray | torch.Tensor) -> EmbeddingDataset:
        """Hold these rows in memory, in this order, without other columns."""
        taken = EmbeddingDataset(open_source(self[rows]))
        taken.source, taken.column, taken.provenance = self.source, self.column, dict(self.provenance)
        return taken

    def keep(self, rows: np.ndarray) -> EmbeddingDataset:
        """Leave out all but these rows, which ascend: like `take`, but with other columns, and without a copy."""
        kept = copy.copy(self)
        kept._statistics = None
        if self.dataset is None or self.has_tokens:
            kept._kept = rows if self._kept is None else self._kept[rows]
        else:
            kept._opened = replace(self._opened, dataset=self.dataset.select(rows), path=None)
        kept._open_views()
        return kept

    def statistics(self, progress: bool = False) -> EmbeddingStatistics:
        """Return the mean and variance of all embeddings.

        `EmbeddingWriter`, which accepts neither NaN nor infinity, stores them with the embeddings. For other sources,
        the first call reads and checks every row, and later calls return the same statistics.

        Raises:
            ValueError: A row holds NaN or infinity, or all rows are equal.
        """
        if self._statistics is None:
            moments = None if self._opened.moments is None else self._opened.moments.get(self.column)
            if moments is not None and moments.num_samples == len(self):
                self._statistics = EmbeddingStatistics.from_moments(moments, self.source)
            else:
                self._statistics = compute_statistics(self, progress=progress)
        return self._statistics

    def check_finite(self, x: torch.Tensor, rows: Sequence[int] | np.ndarray) -> None:
        """Raise ValueError, with row and file, if one of the embeddings `x` (B, width) of these rows is not finite."""
        if x.sum().isfinite():  # cheaper than testing each value; finite values may overflow, though
            return
        bad = (~x.isfinite().all(dim=1)).nonzero()
        if len(bad):
            row = int(rows[int(bad[0])])
            raise ValueError(
                f"row {row} of {self.source}{self.location(row)} holds NaN or infinity (as float32); drop such rows, "
                "for example with datasets.Dataset.filter, or extract them again"
            )

    @property
    def has_tokens(self) -> bool:
        """Whether a row of `dataset` holds several embeddings."""
        return self._token_starts is not None

    def dataset_rows(self, rows: Sequence[int] | np.ndarray | slice = slice(None)) -> np.ndarray:
        """Return the rows of `dataset` that these embeddings, by default all, belong to."""
        return self._dataset_row(np.arange(len(self))[rows])  # resolves negative numbers and masks

    def _dataset_row(self, rows: np.ndarray) -> np.ndarray:
        return rows if self._token_starts is None else np.searchsorted(self._token_starts, rows, side="right") - 1

    def location(self, row: int) -> str:
        """Return the file of an embedding as " (in data-00003.arrow)"; "" if there is only one file or none."""
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
        # Views would be pickled as copies of the data; they are created again from the memory-mapped files.
        opened = ("_views", "_tensors", "_spread", "_starts", "_order", "_token_starts")
        return {key: value for key, value in self.__dict__.items() if key not in opened}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open_views()

    def _open_views(self) -> None:
        self._order: np.ndarray | None = None  # row -> row of the stored table
        self._token_starts: np.ndarray | None = None
        if self.dataset is None:
            self._views = [self._opened.array]
        else:
            self._views = self._column_views()
            if self.dataset._indices is not None:  # after select, shuffle or filter
                self._order = self.dataset._indices.column(0).to_numpy().astype(np.int64)
                if self._token_starts is not None:
                    first, stop = self._token_starts[self._order], self._token_starts[self._order + 1]
                    self._token_starts = np.concatenate([[0], np.cumsum(stop - first)])
                    places = np.arange(self._token_starts[-1])
                    self._order = np.repeat(first - self._token_starts[:-1], stop - first) + places
        if self._kept is not None:
            self._order = self._kept if self._order is None else self._order[self._kept]
            if self._token_starts is not None:
                self._token_starts = np.searchsorted(self._kept, self._token_starts)
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
                # The odd rows may be ones that `filter` or `select` has left out: look only at the chosen ones.
                self._opened.dataset, self._opened.files = self.dataset.flatten_indices(), []
                return self._column_views()
            which = f"{'row' if self._token_starts is None else 'token'} {error.row}"
            raise ValueError(
                f"{which} of column {self.column!r} of {self.source}{self.location(error.row)} {error.problem}; "
                "embeddings must be vectors of the same width"
            ) from None

    def _slice(self, start: int, stop: int) -> torch.Tensor:
        """Copy consecutive rows, which is faster than picking them one by one."""
        if self._order is not None:
            return self._gather(self._order[start:stop])
        parts = [np.empty((0, self.width), np.float32)] if start == stop else []
        while start < stop:
            chunk = int(np.searchsorted(self._starts, start, side="right")) - 1
            first, end = int(self._starts[chunk]), min(stop, int(self._starts[chunk + 1]))
            parts.append(self._views[chunk][start - first : end - first])
            start = end
        return _as_float(np.concatenate(parts))

    def _gather(self, rows: np.ndarray) -> torch.Tensor:
        """Copy any rows of the stored table."""
        chunks = np.searchsorted(self._starts, rows, side="right") - 1
        if self._spread is not None:
            return torch.from_numpy(self._spread.rows(chunks, rows - self._starts[chunks])).float()
        if len(self._views) == 1 and self._tensors[0] is not None:
            return torch.index_select(self._tensors[0], 0, torch.from_numpy(rows)).float()  # on all threads
        out = torch.empty(len(rows), self.width)
        for chunk in np.unique(chunks):
            places = np.flatnonzero(chunks == chunk)
            out[torch.from_numpy(places)] = _as_float(self._views[chunk][rows[places] - self._starts[chunk]])
        return out


def _is_hook_point(column: str | None) -> bool:
    """Whether a column is named like a hook point; another name says nothing about where its embeddings come from."""
    from ..model.checks import HOOK_POINT

    return column is not None and HOOK_POINT.fullmatch(column) is not None


def _as_tensor(view: np.ndarray) -> torch.Tensor | None:
    """The same memory as a read-only tensor; None if torch does not support its layout."""
    if not view.flags.aligned or not view.dtype.isnative:
        return None
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # nor written to
            return torch.from_numpy(view)
    except (TypeError, ValueError):  # a dtype or strides that torch does not have
        return None


def _as_float(values: np.ndarray) -> torch.Tensor:
    """A writable array as a float32 tensor. Beyond float32 it becomes infinity, which `statistics` reports by row."""
    if values.dtype in (np.float16, np.float32) and values.dtype.isnative:
        return torch.from_numpy(values).float()  # torch converts half precision several times faster than numpy
    with np.errstate(over="ignore"):
        return torch.from_numpy(values.astype(np.float32))
