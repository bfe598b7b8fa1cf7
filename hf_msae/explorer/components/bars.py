"""Bars as HTML tables: they fit any screen, follow light and dark, and screen readers read them as tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..rendering import macros

_html = macros("components.html")


@dataclass(frozen=True)
class Bar:
    """One row."""

    label: str  # what the bar stands for
    value: float  # its length; a negative one goes to the left
    text: str | None = None  # the number as printed; None prints `value` with three digits
    note: str | None = None  # a word after the label, such as "latent 417"
    # Whether the label is a name that is not validated: shown in gray italics, and read out as such.
    unvalidated: bool = False
    muted: bool = False  # whether it is shown in gray, such as what remains besides the concepts

    @property
    def kind(self) -> str:
        """Which color it has."""
        return "muted" if self.muted or self.unvalidated else "negative" if self.value < 0 else "positive"


def bars(rows: Sequence[Bar], caption: str, columns: tuple[str, str] = ("concept", "strength")) -> str:
    """Draw a captioned table with a bar in each row (HTML)."""
    values = [row.value for row in rows]
    # Zero lies where the longest bar of either side ends: a tiny negative one does not halve all others.
    lowest, highest = min(0.0, *values, 0.0), max(0.0, *values, 0.0)
    return _html.bars(rows, caption, columns, lowest, (highest - lowest) or 1.0)
