"""Render templates to HTML that requests nothing from the network."""

from __future__ import annotations

import base64
import hashlib
import os
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from .wording import number, share, signed, small

_TEMPLATES = Path(__file__).with_name("templates")
_SECTIONS = Path(__file__).with_name("sections")


def check_path(path: str | os.PathLike) -> Path:
    """Return the path of the page; raise ValueError if it is a folder or does not end in .html or .htm."""
    path = Path(path).expanduser()
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give the name of a file, such as {path / 'report.html'}")
    if path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"{path} does not end in .html: choose {path.with_suffix('.html')}")
    return path


@cache  # it keeps compiled templates, and compiling them takes 0.2 s
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


def style() -> Markup:
    """Return the style sheet of pages."""
    return Markup((_TEMPLATES / "style.css").read_text(encoding="utf-8"))


def render_page(**content: Any) -> str:
    """Render the page.

    Names, captions and paths are escaped. Should markup slip through nevertheless, the content security policy runs no
    script but the page's own, identified by its hash, and fetches nothing.
    """
    script = (_TEMPLATES / "filter.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    return (
        environment()
        .get_template("page.html")
        .render(css=style(), script=Markup(script), script_hash=f"sha256-{digest}", **content)
    )
