"""Bars as HTML tables: they fit any screen, follow light and dark, and are read out as the tables that they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Bar:
    """One line.

    Attributes:
        label: what it is of.
        value: how long; a negative one goes to the left.
        text: the number as it is printed; None prints `value` with three digits.
        note: a word beside the label, e.g. "unsure".
        muted: shown in grey: a name that is not validated, or what remains.
    """

    label: str
    value: float
    text: str | None = None
    note: str | None = None
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
    longest = max(abs(row.value) for row in rows) or 1.0
    signed = any(row.value < 0 for row in rows)
    lines = []
    for row in rows:
        width = abs(row.value) / longest * (50 if signed else 100)
        start = (50 - width if row.value < 0 else 50) if signed else 0
        kind = "muted" if row.muted else "negative" if row.value < 0 else "positive"
        note = f' <span class="msae-note">{escape(row.note)}</span>' if row.note else ""
        text = escape(f"{row.value:.3g}" if row.text is None else row.text)
        lines.append(
            f'<tr class="{"msae-muted" if row.muted else ""}"><th scope="row">{escape(row.label)}{note}</th>'
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
