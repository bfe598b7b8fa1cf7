"""Turning a batch into Arrow arrays, with every value checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from datasets import Features, Value
from datasets.arrow_writer import TypedSequence

from .._utils.tensors import as_tensor

_LOSSY = ("uint64", "timestamp[ns", "duration[ns")
"""Types of which `datasets` refuses large integers and drops nanoseconds."""


def encode_embeddings(name: str, values: Any, width: int, dtype: str, tokens: bool, rows: Sequence[int]) -> pa.Array:
    """Return a checked copy of a batch, so that the caller may reuse its buffer.

    `values` are floats (B, width) or, for tokens, B matrices (tokens, width); `rows` are their numbers for messages.
    """
    if not tokens:
        return _as_lists(_as_stored(name, values, width, dtype, rows))
    matrices = [as_tensor(each) for each in values]
    for row, each in zip(rows, matrices, strict=True):
        if each.ndim != 2 or not len(each):
            raise ValueError(f"row {row} of {name} must have shape (tokens, width), got {tuple(each.shape)}")
    ends = np.cumsum([0, *map(len, matrices)])
    matrix = torch.cat(matrices) if matrices else torch.empty(0, width)
    stored = _as_stored(name, matrix, width, dtype, np.repeat(np.asarray(rows, np.int64), np.diff(ends)))
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), _as_lists(stored))


def encode_extra(extra: Mapping[str, Sequence[Any]], features: Features, rows: Sequence[int]) -> list[pa.Array]:
    """Encode the extra columns of a batch as `datasets` does, in the order of `features`."""
    if not extra:
        return []
    try:
        # Not Dataset.from_dict: it hashes the values for a fingerprint that is of no use here.
        return [
            pa.array(_plain(extra[name]), kind.pa_type)
            if isinstance(kind, Value) and kind.dtype.startswith(_LOSSY)
            else pa.array(TypedSequence(features.encode_column(extra[name], name), kind))
            for name, kind in features.items()
        ]
    except (OverflowError, pa.ArrowInvalid) as error:
        raise ValueError(
            f"a value of the columns {', '.join(extra)} does not fit its type, in rows {rows[0]} to {rows[-1]}: "
            f"{error}; leave the column out or cast it"
        ) from error


def _plain(values: Sequence[Any]) -> list[Any]:
    return values.tolist() if isinstance(values, torch.Tensor) else list(values)


def _as_stored(name: str, values: Any, width: int, dtype: str, rows: Sequence[int]) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    values = np.asarray(values)
    if values.ndim != 2 or values.shape[1] != width:
        raise ValueError(f"{name} must have shape (batch, {width}), got {values.shape}")
    if not np.issubdtype(values.dtype, np.floating):
        raise ValueError(f"{name} must hold floating point numbers, got {values.dtype}")
    with np.errstate(over="ignore"):  # reported below, with the row
        stored = np.array(values, dtype=dtype, order="C", copy=True)
    finite = np.isfinite(stored).all(axis=1)
    if not finite.all():
        bad = int(np.argmin(finite))
        if np.isfinite(values[bad]).all():
            largest = float(np.abs(values[bad]).max())
            advice = ': use dtype="float32"' if dtype == "float16" else ""
            raise ValueError(f"row {rows[bad]} of {name} holds {largest:g}, too large for {dtype}{advice}")
        raise ValueError(f"row {rows[bad]} of {name} holds NaN or infinity; check the backbone's input there")
    return stored


def _as_lists(matrix: np.ndarray) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), matrix.shape[1])
