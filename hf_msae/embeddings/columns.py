"""From an Arrow column of vectors to numpy matrices that share its memory."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from datasets import Dataset


def is_vector_type(kind: pa.DataType) -> bool:
    """Whether an Arrow type is a list of floating point numbers, of fixed or variable length."""
    return _is_list(kind) and pa.types.is_floating(kind.value_type)


def is_token_type(kind: pa.DataType) -> bool:
    """Whether an Arrow type is a list of such vectors: the tokens of an image or text."""
    return _is_list(kind) and is_vector_type(kind.value_type)


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind)


def resolve_column(dataset: Dataset, column: str | None, hook_point: str, source: str) -> str:
    """Return the name of the embedding column.

    It is `column` if given, else the column named like the hook point, else the only vector column.

    Raises:
        ValueError: There is no such column, or it does not hold vectors; the message lists the candidates.
    """
    types = {field.name: field.type for field in dataset.data.schema}
    candidates = [name for name, kind in types.items() if is_vector_type(kind) or is_token_type(kind)]
    listing = f"vector columns: {', '.join(candidates) or 'none'}; all columns: {', '.join(types) or 'none'}"
    if column is None and hook_point not in types:
        if len(candidates) == 1:
            return candidates[0]
        raise ValueError(
            f"{source} has no column {hook_point!r} (the hook point), so name the embedding column ({listing})"
        )
    column = hook_point if column is None else column
    if column not in types:
        raise ValueError(f"{source} has no column {column!r} ({listing})")
    if column not in candidates:
        raise ValueError(
            f"column {column!r} of {source} has the type {types[column]}, but embeddings are a list of floating point "
            f"numbers per row, or one per token ({listing})"
        )
    return column


class RaggedColumnError(ValueError):
    """A row of a vector column is missing, holds a missing value, or differs in width from the first row."""

    def __init__(self, row: int, problem: str) -> None:
        super().__init__(f"row {row} {problem}")
        self.row, self.problem = row, problem


def split_tokens(column: pa.ChunkedArray) -> tuple[pa.ChunkedArray, np.ndarray]:
    """Return the vectors of a column of tokens, without copying them, and their number per row."""
    vectors, counts, first_row = [], [np.zeros(0, dtype=np.int64)], 0
    for chunk in column.chunks:
        _refuse_null(chunk, first_row, "is missing (null)")
        vectors.append(chunk.flatten())
        counts.append(_lengths(chunk))
        first_row += len(chunk)
    return pa.chunked_array(vectors, column.type.value_type), np.concatenate(counts).astype(np.int64)


def matrix_views(column: pa.ChunkedArray) -> list[np.ndarray]:
    """Return each chunk of a vector column as a read-only matrix (rows, width) over the memory that Arrow maps.

    Lists of variable length are accepted if they all have the same length.
    """
    views: list[np.ndarray] = []
    width, first_row = None, 0
    for chunk in column.chunks:
        if len(chunk) == 0:
            continue
        _refuse_null(chunk, first_row, "is missing (null)")
        widths = _lengths(chunk)
        width = int(widths[0]) if width is None else width
        unequal = np.flatnonzero(widths != width)
        if len(unequal):
            bad = int(unequal[0])
            raise RaggedColumnError(first_row + bad, f"has {int(widths[bad])} values, but the first row has {width}")
        if width == 0:
            raise RaggedColumnError(first_row, "is an empty list")
        values = chunk.flatten()
        _refuse_null(values, first_row, "holds a missing value (null)", width)
        views.append(values.to_numpy(zero_copy_only=True).reshape(-1, width))
        first_row += len(chunk)
    return views


def _refuse_null(values: pa.Array, first_row: int, problem: str, per_row: int = 1) -> None:
    if values.null_count:
        bad = int(np.argmin(values.is_valid().to_numpy(zero_copy_only=False)))
        raise RaggedColumnError(first_row + bad // per_row, problem)


def _lengths(chunk: pa.Array) -> np.ndarray:
    fixed = pa.types.is_fixed_size_list(chunk.type)
    return np.full(len(chunk), chunk.type.list_size) if fixed else np.diff(chunk.offsets.to_numpy())
