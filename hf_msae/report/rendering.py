"""Render templates to HTML that requests nothing from the network, with figures as vector images inside."""

from __future__ import annotations

import base64
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from .wording import number, share, signed, small

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TEMPLATES = Path(__file__).with_name("templates")
_SECTIONS = Path(__file__).with_name("sections")


def environment(*folders: Path) -> Environment:
    """Make a Jinja environment that escapes everything and has the report's templates, macros and filters.

    Templates in further `folders` are found first.
    """
    made = Environment(
        loader=FileSystemLoader([*folders, _TEMPLATES, _SECTIONS]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters.update(number=number, signed=signed, share=share, small=small)
    return made


def render_page(**content: Any) -> str:
    """Render the page.

    Names, captions and paths are escaped. Should markup slip through nevertheless, the content security policy runs no
    script but the page's own, identified by its hash, and fetches nothing.
    """
    script = (_TEMPLATES / "filter.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    css = (_TEMPLATES / "style.css").read_text(encoding="utf-8")
    return (
        environment()
        .get_template("page.html")
        .render(css=Markup(css), script=Markup(script), script_hash=f"sha256-{digest}", **content)
    )


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
        figure.savefig(stored, format="svg", metadata={"Date": None, "Creator": None})
    return Drawing(data_uri(stored.getvalue(), "image/svg+xml"), alt, round(figure.get_figwidth() * 80))


def data_uri(content: bytes, kind: str) -> str:
    """Encode content as a data URI."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
