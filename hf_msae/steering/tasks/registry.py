"""The tasks by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from .task import Task

TASKS: dict[str, Callable[..., Task]] = {}
"""The tasks that can be made without data of one's own, by name: `TASKS["gaussian"](seed=1)` returns a `Task`."""

_F = TypeVar("_F", bound=Callable[..., Task])


def register_task(name: str) -> Callable[[_F], _F]:
    """Make a function that returns a task known by a name: `TASKS[name]`.

    Raises:
        ValueError: Another function has that name.
    """

    def add(function: _F) -> _F:
        if TASKS.setdefault(name, function) is not function:
            raise ValueError(f"there is a task named {name!r} already: {TASKS[name].__qualname__}")
        return function

    return add
