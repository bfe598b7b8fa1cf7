"""How names that people chose are written: the mark of an unproven one, and cut to fit a figure."""

from __future__ import annotations

import re
from collections.abc import Sequence

UNVALIDATED = "(unvalidated)"
"""Follows a name that is not validated, wherever a name is shown."""
_SEPARATOR = " · "  # between a name and its number


def counted(number: int, noun: str, nouns: str | None = None) -> str:
    """Return a number and a noun, with an s unless there is one of it, or in the plural that is given."""
    return f"{number:,} {noun if number == 1 else nouns or noun + 's'}"


def joined(names: Sequence[str]) -> str:
    """Return names as a list in a sentence: "a", "a and b", or "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def mentions(text: str, name: str) -> bool:
    """Say whether a name is in a text, as a word of its own."""
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) is not None


def class_title(column: str, classes: Sequence[str], positive: str) -> str:
    """Return what a class of a column is called in text: the column's name for True, otherwise also the class."""
    return column if tuple(classes) == ("False", "True") and positive == "True" else f"{column} {positive}"


def marked(name: str, validated: bool) -> str:
    """Return a name, with `UNVALIDATED` after it if it is not validated."""
    return name if validated else f"{name} {UNVALIDATED}"


def with_number(name: str, number: int) -> str:
    """Return a name and the number of its latent."""
    return f"{name}{_SEPARATOR}{number}"


def shortened(text: str, most: int) -> str:
    """Cut every line of a text to at most this many characters; the mark and number at the end of a label stay."""
    return "\n".join(_shortened(line, most) for line in text.split("\n"))


def _shortened(line: str, most: int) -> str:
    if len(line) <= most:
        return line
    name, separator, number = line.rpartition(_SEPARATOR)
    name, end = (name, separator + number) if number.isdecimal() else (line, "")
    if name.endswith(f" {UNVALIDATED}"):
        name, end = name.removesuffix(f" {UNVALIDATED}"), f" {UNVALIDATED}{end}"
    return f"{name[: max(1, most - len(end) - 1)].rstrip()}…{end}"
