"""Types of the fields of config.json, and errors in one line."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any, TypeVar

from huggingface_hub.errors import StrictDataclassError

T = TypeVar("T")

_LISTS = ("nesting_ks", "nesting_widths", "nesting_weights")
_FLOATS = ("sparsity_coefficient", "soft_cap", "jump_relu_threshold", "jump_relu_bandwidth")


def as_json_would(cls: type) -> type:
    """Convert numbers and arrays of numpy and torch, paths, tuples to lists, and ints to floats, as JSON would.

    A strict config checks the types of its values only then.
    """
    checked_setattr = cls.__setattr__

    def plain(value: Any) -> Any:
        return value.tolist() if hasattr(value, "tolist") else value

    def as_float(number: Any) -> Any:
        return float(number) if type(number) is int else number

    def __setattr__(self, name: str, value: Any) -> None:
        value = os.fspath(value) if isinstance(value, os.PathLike) else plain(value)
        if name in _LISTS and isinstance(value, (list, tuple, range)):
            value = [as_float(plain(each)) if name == "nesting_weights" else plain(each) for each in value]
        checked_setattr(self, name, as_float(value) if name in _FLOATS else value)

    cls.__setattr__ = __setattr__
    return cls


class MissingConfigError(OSError):
    """A folder or repository has no config.json, or one without settings."""


def read_config(read: Callable[[], T], source: str) -> T:
    """Make a config of the content of a file; errors are one line that begins with the name of the file."""
    try:
        return read()
    except (AttributeError, LookupError, TypeError, ValueError, StrictDataclassError) as error:
        problem = " ".join(str(error).split())
        if isinstance(error, StrictDataclassError):  # it names the field, its value and its type, after a heading
            problem = re.sub(r"^.*? \w+Error: ", "", problem)
        raise ValueError(f"{source}: {problem}") from error
