"""Figures inside the page, as vector images whose bytes depend only on what is drawn."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .pictures import data_uri

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Drawing:
    """A figure of the page.

    Attributes:
        source: A data URI.
        alt: What it shows, for people who cannot see it.
        width: Width in CSS pixels below which its letters would be too small.
    """

    source: str
    alt: str
    width: int


def drawing(figure: Figure, alt: str) -> Drawing:
    """Convert a figure to SVG, which is sharp on every screen and on paper."""
    import matplotlib

    stored = io.BytesIO()
    # Without a salt the ids inside are random; without metadata the time of day is left out.
    with matplotlib.rc_context({"svg.hashsalt": "hf_msae"}):
        figure.savefig(stored, format="svg", metadata={"Date": None, "Creator": None})
    return Drawing(data_uri(stored.getvalue(), "image/svg+xml"), alt, round(figure.get_figwidth() * 80))
