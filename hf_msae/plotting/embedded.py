"""Figures as vector images inside a page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .look import write_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Drawing:
    """A figure of the page."""

    source: str  # a data URI
    alt: str  # what it shows, for people who cannot see it
    width: int  # in CSS pixels, below which its letters would be too small


def drawing(figure: Figure, alt: str) -> Drawing:
    """Convert a figure to SVG, whose bytes depend only on what is drawn."""
    import matplotlib

    stored = io.BytesIO()
    # Without a salt the ids inside are random; without metadata the time of day is left out.
    with matplotlib.rc_context({"svg.hashsalt": "hf_msae"}):
        write_figure(figure, stored, "svg", metadata={"Date": None, "Creator": None})
    return Drawing(data_uri(stored.getvalue(), "image/svg+xml"), alt, round(figure.get_figwidth() * 80))


def data_uri(content: bytes, kind: str) -> str:
    """Encode content as a data URI."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
