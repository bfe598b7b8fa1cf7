"""A drawing of the Open Clip Art Library: its picture, and what its author says about it."""

from __future__ import annotations

import gzip
import io
import re
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image

PUBLIC_DOMAIN = "publicdomain"

_RENDERED_WIDTH = 256
"""Pixels that a page is rendered at before the drawing is cut out of it, since many are small on a large page."""


@dataclass(frozen=True)
class Drawing:
    """What the metadata of an SVG file says."""

    path: str  # the file, relative to the root of the collection, with forward slashes
    title: str  # title, or an empty string
    tags: tuple[str, ...]  # keywords as the author wrote them
    author: str  # name of the author, or an empty string
    public_domain: bool  # whether the author dedicated the drawing to the public domain

    @property
    def category(self) -> str:
        """Folder of the collection, such as "animals/birds"."""
        return self.path.rpartition("/")[0]


def read_drawing(file: Path, root: Path) -> Drawing:
    """Read the metadata of an SVG file in a collection, compressed or not; raise ParseError if it is not XML."""
    content = file.read_bytes()
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    title, author, license_, tags = "", "", "", []
    # The files use several versions of the Creative Commons namespace: only local names are compared.
    elements = ElementTree.fromstring(content).iter()
    work = next((element for element in elements if _local_name(element) == "Work"), ())
    for element in work:
        match _local_name(element):
            case "title":
                title = _text(element)
            case "creator":
                author = _text(element)
            case "license":
                license_ = " ".join(element.attrib.values())
            case "subject":
                tags = [_text(item) for item in element.iter() if _local_name(item) == "li"]
    return Drawing(
        path=file.relative_to(root).as_posix(),
        title=title,
        tags=tuple(tag for tag in tags if tag),
        author=re.sub(r"\s*[\[(<].*", "", author),  # without an address in brackets
        public_domain=PUBLIC_DOMAIN in license_.casefold(),
    )


def render_drawing(file: Path, size: int) -> Image.Image | None:
    """Render an SVG file on a white RGB square, `size` pixels wide; None if it shows nothing or cannot be rendered.

    The drawing is cut out of its page and centered. Text is left out, because it would look different on every
    machine: it depends on the fonts that are installed.
    """
    import resvg_py

    try:
        # 96 dots per inch is what CSS defines; without it a page measured in millimeters has no size.
        png = resvg_py.svg_to_bytes(svg_path=str(file), width=_RENDERED_WIDTH, dpi=96, skip_system_fonts=True)
    except ValueError:  # of whatever the renderer cannot draw
        return None
    return centered_on_white(bytes(png), size)


def centered_on_white(png: bytes, size: int) -> Image.Image | None:
    """Cut a drawing out of its transparent page and center it on a white RGB square; None if nothing is seen."""
    page = Image.open(io.BytesIO(png), formats=["PNG"]).convert("RGBA")
    box = page.getchannel("A").getbbox()
    if box is None:
        return None
    page = page.crop(box)
    side = max(page.size)
    square = Image.new("RGBA", (side, side), "white")
    square.alpha_composite(page, ((side - page.width) // 2, (side - page.height) // 2))
    picture = square.convert("RGB").resize((size, size), Image.Resampling.LANCZOS)
    return None if np.ptp(np.asarray(picture), axis=(0, 1)).max() == 0 else picture


def _local_name(element: ElementTree.Element) -> str:
    return str(element.tag).rpartition("}")[2]


def _text(element: ElementTree.Element) -> str:
    return " ".join("".join(element.itertext()).split())
