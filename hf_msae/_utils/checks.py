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
