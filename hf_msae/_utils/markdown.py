"""Values in Markdown that are never read as markup."""

from __future__ import annotations

import re
from typing import Any


def escaped(value: Any) -> str:
    """A value as plain text in Markdown, on one line, also in a cell of a table."""
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else "" if value is None else str(value)
    text = re.sub(r"&(?=#?\w+;)", "&amp;", " ".join(text.split())).replace("<", "&lt;")
    return re.sub(r"([\\|`*\[\]$~]|(?<!\w)_|_(?!\w)|^[#>+=-](?=\s|$))", r"\\\1", text)


def code(value: Any) -> str:
    """A value as a code span in Markdown, whatever backticks it contains."""
    text = " ".join(str(value).split())
    fence = "`" * (1 + longest_run(text))
    return f"{fence} {text} {fence}" if len(fence) > 1 else f"`{text}`"


def longest_run(text: str) -> int:
    """Length of the longest run of backticks."""
    return max(map(len, re.findall("`+", text)), default=0)
