"""Checks of arguments that many functions share."""

from __future__ import annotations

from numbers import Integral
from typing import Any


def check_integers(**limits: tuple[Any, int]) -> None:
    """Raise ValueError for an argument that is no integer, or less than it may be.

    Args:
        limits: The value of each argument and the least that it may be; a value of None stands for a default.

    Example:
        >>> check_integers(batch_size=(batch_size, 1), seed=(seed, 0))
    """
    for name, (value, least) in limits.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, Integral) or value < least):
            raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
