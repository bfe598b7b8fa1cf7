"""Old names that keep working for one release, with a warning that says the new one."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any


def warn_renamed(old: str, new: str, stacklevel: int = 3) -> None:
    """Warn that `old` is now called `new`."""
    warnings.warn(
        f"{old} is deprecated and will be removed in the next release: use {new}", DeprecationWarning, stacklevel
    )


def renamed_arguments(**new_names: str) -> Callable[[Callable], Callable]:
    """Let a function take keyword arguments by their old names, e.g. `renamed_arguments(activations="embeddings")`."""

    def decorate(function: Callable) -> Callable:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            for old in new_names.keys() & kwargs.keys():
                new = new_names[old]
                if new in kwargs:
                    raise TypeError(f"{function.__qualname__}() got both {new} and {old}, its old name")
                warn_renamed(f"{function.__qualname__}({old}=...)", f"{new}=...")
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return wrapper

    return decorate


def renamed_attributes(module: str, new_names: dict[str, Callable[[], Any]]) -> Callable[[str], Any]:
    """A module's `__getattr__` that still finds what was renamed: old name -> a function that returns the object."""

    def __getattr__(name: str) -> Any:
        if name not in new_names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        found = new_names[name]()
        warn_renamed(f"{module}.{name}", f"{module}.{found.__name__}")
        return found

    return __getattr__
