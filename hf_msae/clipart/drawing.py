"""A drawing of the Open Clip Art Library: its picture, and the words of its author that say what it shows."""

from __future__ import annotations

import gzip
import io
import re
from collections import Counter
from collections.abc import Iterable, Sequence
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


NOT_CONTENT = frozenset(
    "hash magick theme icon theme unsorted special openclipart clipart clip art collection miscellany misc stock "
    "historic svg other various".split()
) | {"clip art", "icon theme", "lemon theme icon", "svg theme", "signs and symbols"}
"""Tags about the collection or the file, not about what a drawing shows."""

_SHARED_TITLE = 5
"""A title that so many drawings share is the name of a collection, and says nothing about one of them."""


def clean_tags(drawings: Sequence[Drawing]) -> list[tuple[str, ...]]:
    """Bring the tags of all drawings of a collection to one form, sorted and without repetitions.

    Tags are lower-cased, underscores become spaces, a plural becomes the singular where the collection has both, and
    a compound is written as the collection writes it most often ("northamerica" becomes "north america"). Tags that
    are numbers, names of authors or words of `NOT_CONTENT` are dropped.
    """
    authors = {normalize(drawing.author) for drawing in drawings}
    normalized = [{tag for tag in map(normalize, drawing.tags) if tag not in authors} for drawing in drawings]
    counts = Counter(tag for tags in normalized for tag in tags)
    spaced = _commonest_spelling(counts)
    singular = {tag: _singular(tag, spaced.values()) for tag in set(spaced.values())}
    return [tuple(sorted(filter(_is_content, {singular[spaced[tag]] for tag in tags}))) for tags in normalized]


def clean_titles(drawings: Sequence[Drawing]) -> list[str]:
    """Return a title for each drawing: its own, or words of its file's name where the title names a collection."""
    counts = Counter(normalize(drawing.title) for drawing in drawings)
    return [
        _words_of_name(drawing) if counts[normalize(drawing.title)] >= _SHARED_TITLE else normalize(drawing.title)
        for drawing in drawings
    ]


def normalize(text: str) -> str:
    """Lower-case a text and turn everything between its words into single spaces."""
    text = re.sub(r"<[^>]*>|&\w+;", " ", text.casefold())
    return " ".join(re.sub(r"[^\w'+&-]|_", " ", text).split())


def _is_content(tag: str) -> bool:
    return 1 < len(tag) <= 40 and not re.fullmatch(r"[\d\W]+", tag) and tag not in NOT_CONTENT


def _commonest_spelling(counts: Counter[str]) -> dict[str, str]:
    by_letters: dict[str, list[str]] = {}
    for tag in counts:
        by_letters.setdefault(re.sub(r"[\s-]", "", tag), []).append(tag)
    # Words written apart are what a text model knows; the more frequent of several ways, the first of equals.
    best = {key: max(sorted(tags), key=lambda tag: (" " in tag, counts[tag])) for key, tags in by_letters.items()}
    return {tag: best[re.sub(r"[\s-]", "", tag)] for tag in counts}


def _singular(tag: str, tags: Iterable[str]) -> str:
    known = set(tags)
    for plural, ending in (("ies", "y"), ("es", ""), ("s", "")):
        if tag.endswith(plural) and tag.removesuffix(plural) + ending in known:
            return tag.removesuffix(plural) + ending
    return tag


def _words_of_name(drawing: Drawing) -> str:
    name = drawing.path.rpartition("/")[2].partition(".")[0]
    author = normalize(drawing.author).split()
    words = re.sub(r"[\W_]+", " ", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)).casefold().split()
    # File names end with the author's name, cut off somewhere, and a number.
    kept = [word for word in words if not word.isdigit() and not any(part.startswith(word) for part in author)]
    return " ".join(kept)
