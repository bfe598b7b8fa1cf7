"""What people pass for the parts of a task: arrays, tensors, lists or tables, turned into arrays or refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
import torch

SPLITS = ("train", "test")


def as_features(values: Any, what: str) -> np.ndarray:
    """Return features as a floating-point array (n, d): float64 if an array is, otherwise float32.

    As all functions of this module, it returns an array that cannot be written to, and that nobody else can change.
    """
    given = found = _as_array(values, what)
    if found.dtype == object and all(isinstance(each, Real) for each in found.ravel()):
        found = found.astype(np.float32)
    if found.dtype.kind not in "biuf":
        raise ValueError(f"{what} have to be numbers, but are {_shown(found)}")
    if found.ndim != 2:
        raise ValueError(f"{what} have the shape (rows, width), but got {found.shape}")
    keeps_type = found.dtype == np.float64 and not isinstance(values, Sequence)
    return _frozen(found if keeps_type else np.asarray(found, dtype=np.float32), given)


def as_concepts(concepts: Any, task: str) -> dict[str, np.ndarray]:
    """Return which rows have each concept, bool (n,) by name; a table has a column for each."""
    if isinstance(concepts, pd.DataFrame):
        concepts = {name: concepts[name] for name in concepts.columns}
    if not isinstance(concepts, Mapping):
        raise ValueError(
            f"concepts of {task} have to be a mapping from names to which rows have them, or a DataFrame, but are "
            f"{type(concepts).__name__}"
        )
    if odd := [name for name in concepts if not isinstance(name, str)]:
        raise ValueError(f"the name of a concept of {task} has to be a text, but is {odd[0]!r}")
    return {name: _as_booleans(values, f"concept {name!r} of {task}") for name, values in concepts.items()}


def as_labels(values: Any, what: str) -> np.ndarray:
    """Return labels, which have to be whole numbers, as integers (n,)."""
    given = found = _as_array(values, what)
    if found.dtype == object:  # of Python's numbers, or of anything else
        found = np.asarray(found.tolist())
    if found.dtype.kind == "f" and np.isfinite(found).all() and (found == np.round(found)).all():
        found = found.astype(np.int64)
    if found.dtype.kind == "b":
        found = found.astype(np.int64)
    if found.dtype.kind not in "iu":
        raise ValueError(
            f"{what} is {_shown(found)}, but has to be whole numbers of labels: "
            "np.unique(labels, return_inverse=True)[1]"
        )
    return _frozen(found, given)


def as_split(values: Any, what: str) -> np.ndarray:
    """Return which split each row is of, "train" or "test", as texts (n,)."""
    found = _as_array(values, what)
    if odd := [value for value in found.ravel().tolist() if value not in SPLITS]:
        hint = ': np.where(is_test, "test", "train")' if isinstance(odd[0], Real) else ""
        raise ValueError(f"{what} is none of {', '.join(SPLITS)} in {len(odd)} rows, such as {odd[0]!r}{hint}")
    return _frozen(found.astype(str), found)


def _as_booleans(values: Any, what: str) -> np.ndarray:
    found = _as_array(values, what)
    if found.dtype == bool:
        return _frozen(found, found)
    if odd := [value for value in found.ravel().tolist() if value not in (0, 1)]:
        raise ValueError(
            f"{what} is true or false (1 or 0) in every row, but {len(odd)} rows are neither, such as {odd[0]!r}"
        )
    return _frozen(found.astype(bool), found)


def _frozen(found: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Return an array that cannot be written to: a copy, if it shares memory that someone else may write to.

    An array that is read-only all the way down, such as a memory-mapped one, is not copied.
    """
    if np.may_share_memory(found, given) and _is_writeable(given):
        found = found.copy()
    found.flags.writeable = False
    return found


def _is_writeable(values: np.ndarray) -> bool:
    while isinstance(values, np.ndarray):
        if values.flags.writeable:
            return True
        values = values.base
    return False


def _as_array(values: Any, what: str) -> np.ndarray:
    if isinstance(values, str | Mapping):
        raise ValueError(f"{what} has to hold a value for each row, but is {values!r:.100}")
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    elif isinstance(values, pd.DataFrame | pd.Series):
        values = values.to_numpy()
    elif hasattr(values, "provenance"):  # opened embeddings, which are read into memory of nobody else
        values = values[:].numpy()
        values.flags.writeable = False
    try:
        return np.asarray(values)
    except ValueError:
        raise ValueError(f"{what} has rows of different lengths") from None


def _shown(values: np.ndarray) -> str:
    return f"{values.dtype}, such as {', '.join(map(repr, values.ravel()[:3].tolist()))}"
