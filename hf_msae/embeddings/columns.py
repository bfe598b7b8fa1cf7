"""From an Arrow column of vectors to numpy matrices that share its memory."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from datasets import Dataset


def is_vector_type(kind: pa.DataType) -> bool:
    """Whether an Arrow type is a list of floating point numbers, of fixed or of variable length."""
    return _is_list(kind) and pa.types.is_floating(kind.value_type)


def is_token_type(kind: pa.DataType) -> bool:
    """Whether an Arrow type is a list of such vectors: the tokens of an image or text."""
    return _is_list(kind) and is_vector_type(kind.value_type)


def resolve_column(dataset: Dataset, column: str | None, hook_point: str, source: str) -> str:
    """The column that holds the embeddings.

    An explicit `column` wins; then the column named like the hook point; then the only vector column there is.

    Raises:
        ValueError: there is no such column, or it does not hold vectors; the message lists the candidates.
    """
    types = {field.name: field.type for field in dataset.data.schema}
    candidates = [name for name, kind in types.items() if is_vector_type(kind) or is_token_type(kind)]
    listing = f"vector columns: {', '.join(candidates) or 'none'}; all columns: {', '.join(types) or 'none'}"
    if column is None:
        if hook_point in types:
            column = hook_point
        elif len(candidates) == 1:
            return candidates[0]
        else:
            raise ValueError(
                f"{source} has no column {hook_point!r} (the hook point), so name the embedding column ({listing})"
            )
    if column not in types:
        raise ValueError(f"{source} has no column {column!r} ({listing})")
    if column not in candidates:
        raise ValueError(
            f"column {column!r} of {source} holds {_describe(types[column])}, "
            f"but embeddings are a list of floating point numbers per row, or one per token ({listing})"
        )
    return column


class RaggedColumnError(ValueError):
    """A row of a vector column is missing, holds a missing value, or has another width than the first row."""

    def __init__(self, row: int, problem: str) -> None:
        super().__init__(f"row {row} {problem}")
        self.row, self.problem = row, problem


def split_tokens(column: pa.ChunkedArray) -> tuple[pa.ChunkedArray, np.ndarray]:
    """The vectors of a column of tokens, one after the other and in the memory they have, and their number per row.

    Raises:
        RaggedColumnError: a row is missing.
    """
    vectors, counts, first_row = [], [np.zeros(0, dtype=np.int64)], 0
    for chunk in column.chunks:
        if chunk.null_count:
            bad = first_row + int(np.argmin(chunk.is_valid().to_numpy(zero_copy_only=False)))
            raise RaggedColumnError(bad, "is missing (null)")
        vectors.append(chunk.flatten())
        fixed = pa.types.is_fixed_size_list(chunk.type)
        counts.append(np.full(len(chunk), chunk.type.list_size) if fixed else np.diff(chunk.offsets.to_numpy()))
        first_row += len(chunk)
    return pa.chunked_array(vectors, column.type.value_type), np.concatenate(counts).astype(np.int64)


def matrix_views(column: pa.ChunkedArray) -> list[np.ndarray]:
    """Each chunk of a vector column as a read-only matrix (rows, width) over the very memory Arrow maps.

    Args:
        column: lists of floats; lists of variable length are accepted if all happen to have one length.

    Raises:
        RaggedColumnError: the rows do not make a matrix with at least one column.
    """
    views: list[np.ndarray] = []
    width, first_row = None, 0
    for chunk in column.chunks:
        if len(chunk) == 0:
            continue
        if chunk.null_count:
            bad = first_row + int(np.argmin(chunk.is_valid().to_numpy(zero_copy_only=False)))
            raise RaggedColumnError(bad, "is missing (null)")
        if pa.types.is_fixed_size_list(chunk.type):
            chunk_width = chunk.type.list_size
        else:
            widths = np.diff(chunk.offsets.to_numpy())
            chunk_width = int(widths[0]) if width is None else width
            unequal = np.flatnonzero(widths != chunk_width)
            if len(unequal):
                bad = int(unequal[0])
                raise RaggedColumnError(
                    first_row + bad, f"has {int(widths[bad])} values, but the first row has {chunk_width}"
                )
        width = chunk_width
        if width == 0:
            raise RaggedColumnError(first_row, "is an empty list")
        values = chunk.flatten()
        if values.null_count:
            bad = int(np.argmin(values.is_valid().to_numpy(zero_copy_only=False))) // width
            raise RaggedColumnError(first_row + bad, "holds a missing value (null)")
        views.append(values.to_numpy(zero_copy_only=True).reshape(-1, width))
        first_row += len(chunk)
    return views


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind)


def _describe(kind: pa.DataType) -> str:
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "text"
    if _is_list(kind) and _is_list(kind.value_type):
        return f"a deeper nesting per row ({kind})"
    if isinstance(kind, pa.BaseExtensionType):
        return f"a tensor per row ({kind})"
    if pa.types.is_primitive(kind):
        return f"one {kind} per row"
    return str(kind)
