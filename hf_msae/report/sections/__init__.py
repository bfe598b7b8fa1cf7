"""The sections of a report, in the order of the page.

To add one, write `sections/<name>.py` with a function `build(context)` that returns what the template shows, and
`sections/<name>.html`, which finds that under its name; then add a line to `SECTIONS`. An audit adds its own section
in the same way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..context import Context
from . import bias, concepts, explained, hierarchy, quality, searches, steering


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    name: str  # its anchor, the name of its template, and the variable that the template reads
    title: str
    build: Callable[[Context], Any] | None  # None for a template that needs only the settings of the page


SECTIONS = (
    Section("quality", "Quality", quality.build),
    Section("concepts", "Concepts", concepts.build),
    Section("explained", "Explained", explained.build),
    Section("hierarchy", "Hierarchy", hierarchy.build),
    Section("bias", "Bias", bias.build),
    Section("steering", "Steering", steering.build),
    Section("searches", "Searches", searches.build),
    Section("limits", "Limits", None),
)
