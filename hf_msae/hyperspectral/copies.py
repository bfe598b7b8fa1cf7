"""Rows that are copies of others: found, kept in one fold, and named."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Mapping, Sequence

import numpy as np

from .._utils.wording import counted, joined

_MOST_NAMED = 5


def digest(values: np.ndarray) -> bytes:
    """Return a digest of numbers, which is the same for those that are equal as float32."""
    with np.errstate(over="ignore"):
        numbers = np.ascontiguousarray(values, dtype=np.float32)
    return hashlib.blake2b((numbers + np.float32(0)).tobytes(), digest_size=16).digest()  # -0 equals 0


def first_copies(keys: Iterable[Hashable]) -> np.ndarray:
    """Return the position of the first equal key of each, which is its own where it is the first."""
    found: dict[Hashable, int] = {}
    return np.array([found.setdefault(key, row) for row, key in enumerate(keys)], dtype=np.int64)


def keep_together(folds: np.ndarray, first: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """Move copies to the fold of the first of them (`first_copies`); without copies, folds stay as they are."""
    if first is None:
        return folds
    found, distinct = folds[first], np.unique(first)
    for empty in np.setdiff1d(folds, found):
        names, counts = np.unique(found[distinct], return_counts=True)
        if counts.max() == 1:
            break  # there are fewer different rows than folds
        moved = rng.choice(distinct[found[distinct] == names[counts.argmax()]])
        found[first == moved] = empty
    return found


def named_copies(first: np.ndarray, names: Sequence[object]) -> str:
    """Name the first few copies, with what they are copies of."""
    rows = np.flatnonzero(first != np.arange(len(first)))
    pairs = [f"{names[row]} of {names[first[row]]}" for row in rows[:_MOST_NAMED]]
    return ", ".join(pairs) + ", ..." * (len(rows) > _MOST_NAMED)


def remark_on_copies(
    first: np.ndarray, names: Sequence[object], groups: Mapping[str, np.ndarray], is_fixed: bool
) -> str:
    """Say which rows are copies, that folds keep them together, and which groupings do not."""
    number = int((first != np.arange(len(first))).sum())
    copies = f"{counted(number, 'row is a copy', 'rows are copies')} of others ({named_copies(first, names)}). "
    if is_fixed:
        return f"{copies}Each copy counts as a row of its own: leave copies out."
    apart = [name for name, labels in groups.items() if (labels != labels[first]).any()]
    said = f"{copies}Copies stay in one fold, so that no model is tested on a row that it has learned from."
    if not apart:
        return said
    return (
        f"{said} But {joined(apart)} {'separates' if len(apart) == 1 else 'separate'} copies: with such a group left "
        "out, the model has seen its rows in another group, and the shortcut index is too low. Leave copies out."
    )
