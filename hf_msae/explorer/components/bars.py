"""Bars as HTML tables: they fit any screen, follow light and dark, and are read out as the tables that they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from .names import UNVALIDATED


@dataclass(frozen=True)
class Bar:
    """One line.

    Attributes:
        label: what it is of.
        value: how long; a negative one goes to the left.
        text: the number as it is printed; None prints `value` with three digits.
        note: a word beside the label, e.g. "unsure".
        unvalidated: the label is a name that is not validated: in grey italics, and read out so.
        muted: shown in grey: what remains beside the concepts.
    """

    label: str
    value: float
    text: str | None = None
    note: str | None = None
    unvalidated: bool = False
    muted: bool = False


def bars(rows: Sequence[Bar], caption: str, columns: tuple[str, str] = ("concept", "strength")) -> str:
    """An HTML table with a bar in each row; everything in it is escaped.

    Args:
        rows: in the order of the table.
        caption: what the table shows, read out and printed above.
        columns: heads of the two columns.
    """
    if not rows:
        return f'<p class="msae-empty">{escape(caption)}: nothing to show.</p>'
    lowest, highest = min(0.0, *(row.value for row in rows)), max(0.0, *(row.value for row in rows))
    span = (highest - lowest) or 1.0
    lines = []
    for row in rows:
        # Zero lies where the longest bar of either side ends: a tiny negative one does not halve all others.
        width, start = abs(row.value) / span * 100, (min(0.0, row.value) - lowest) / span * 100
        muted = row.muted or row.unvalidated
        kind = "muted" if muted else "negative" if row.value < 0 else "positive"
        style = "msae-muted msae-unsure" if row.unvalidated else "msae-muted" if row.muted else ""
        note = f' <span class="msae-note">{escape(row.note)}</span>' if row.note else ""
        unsure = f'<span class="msae-unseen"> {UNVALIDATED}</span>' if row.unvalidated else ""
        text = escape(f"{row.value:.3g}" if row.text is None else row.text)
        lines.append(
            f'<tr class="{style}"><th scope="row">{escape(row.label)}{unsure}{note}</th>'
            f'<td><span class="msae-track" aria-hidden="true"><span class="msae-bar msae-{kind}" '
            f'style="left:{start:.2f}%;width:{width:.2f}%"></span></span>'
            f'<span class="msae-value">{text}</span></td></tr>'
        )
    head = (
        f'<thead><tr><th scope="col">{escape(columns[0])}</th><th scope="col">{escape(columns[1])}</th></tr></thead>'
    )
    return (
        f'<table class="msae-bars"><caption>{escape(caption)}</caption>{head}<tbody>{"".join(lines)}</tbody></table>'
    )
