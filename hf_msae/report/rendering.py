"""From what was found to HTML: one page that asks nothing of the network."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from .wording import number, share, signed, small

_TEMPLATES = Path(__file__).with_name("templates")


def render(**sections: Any) -> str:
    """The page's text.

    Names, captions and paths are escaped, all of them (autoescape). Should markup slip through nevertheless, the
    content security policy lets no script run but the page's own, by its hash, and nothing be fetched.
    """
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(number=number, signed=signed, share=share, small=small)
    script = (_TEMPLATES / "filter.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    return environment.get_template("page.html").render(
        css=Markup((_TEMPLATES / "style.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=f"sha256-{digest}",
        **sections,
    )
