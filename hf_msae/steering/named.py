"""Things by name, such as methods and tasks: an unknown name is refused with the ones that there are."""

from __future__ import annotations

import difflib
from typing import NoReturn, TypeVar

T = TypeVar("T")


class UnknownNameError(KeyError, ValueError):
    """There is nothing of that name; the message has close names and all known ones."""

    def __str__(self) -> str:
        return str(self.args[0])  # a KeyError would show it in quotes


class Named(dict[str, T]):
    """A dictionary by name; `kind` is what its values are, for messages: "method"."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def __missing__(self, name: object) -> NoReturn:
        near = difflib.get_close_matches(str(name), self, n=3)
        meant = f": did you mean {' or '.join(near)}?" if near else "."
        raise UnknownNameError(
            f"there is no {self.kind} {name!r}{meant} The {self.kind}s are {', '.join(sorted(self))}"
        )
