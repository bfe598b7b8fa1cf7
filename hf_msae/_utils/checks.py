"""Checks of arguments that many functions share."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral
from typing import Any


def check_integers(*optional: str, **limits: tuple[Any, int]) -> None:
    """Raise ValueError for an argument that is no integer, or less than it may be.

    Args:
        optional: Names of the arguments that may be None, which stands for a default.
        limits: The value of each argument and the least that it may be.

    Example:
        >>> check_integers("batch_size", batch_size=(batch_size, 1), seed=(seed, 0))
    """
    for name, (value, least) in limits.items():
        if value is None and name in optional:
            continue
        if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
            raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")


def check_several(what: str, **given: Any) -> None:
    """Raise ValueError for an argument that is one text, whose letters would be taken for several, or no iterable.

    Example:
        >>> check_several("latents", indices=indices)
    """
    for name, value in given.items():
        if isinstance(value, str) or not isinstance(value, Iterable):
            raise ValueError(f"{name} must be several {what}, got {value!r}: pass [{value!r}]")


def refuse_other_order(**tables: Any) -> None:
    """Refuse pandas objects whose indexes hold the same labels in another order: rows are matched by their places."""
    import pandas as pd  # here, since commands check their flags before it is there

    (first, table), *others = [
        (name, each.index) for name, each in tables.items() if isinstance(each, pd.Series | pd.DataFrame)
    ] or [("", None)]
    for name, index in others:
        if index.equals(table) or not table.is_unique or len(index) != len(table) or set(index) != set(table):
            continue
        place = next((row for row, (one, other) in enumerate(zip(index, table, strict=True)) if one != other), None)
        if place is not None:
            raise ValueError(
                f"{name} has the rows of {first} in another order: row {place} is {index[place]} in {name} and "
                f"{table[place]} in {first}. Sort one like the other, or reset both indexes"
            )


def refuse_masked(name: str, values: Any) -> None:
    """Raise ValueError for an array of numpy.ma with masked values: what is stored there is no data."""
    import numpy as np  # here, since commands check their flags before it is there

    if np.ma.is_masked(values):
        masked = np.argwhere(np.ma.getmaskarray(values))
        raise ValueError(
            f"{name} masks {len(masked):,} of its values, the first in row {masked[0][0]}: leave out such rows, or "
            "put values there with .filled(...)"
        )
