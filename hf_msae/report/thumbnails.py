"""Thumbnails of the pictures of a page; each is stored once, however often it is shown."""

from __future__ import annotations

import io

from datasets import Dataset
from markupsafe import Markup
from tqdm.auto import tqdm

from .._utils.images import thumbnail, to_rgb, undecoded
from ..plotting.look import data_uri

_SIZE = 160  # pixels of a thumbnail's longer side, at most
_QUALITY = 78


class Thumbnails:
    """Note which rows of a dataset (None: no pictures) a page shows, and make a style sheet with their thumbnails.

    An `<img>` would hold its data each time it is shown; a class with a background image holds it once.
    """

    def __init__(self, images: Dataset | None, column: str) -> None:
        self._column = column
        self._stored = None
        if images is not None:  # not decoded yet, so that a bad row can be named
            self._stored = undecoded(images.with_format(None).select_columns([column]), column)
        self._rows: set[int] = set()

    def __bool__(self) -> bool:
        return self._stored is not None

    def use(self, row: int) -> str | None:
        """Return the class of a row's picture, or None without pictures."""
        if self._stored is None:
            return None
        self._rows.add(int(row))
        return f"p{int(row)}"

    def style(self, progress: bool) -> Markup:
        """Make the style sheet of all rows in use; raise ValueError with the row if a picture cannot be decoded."""
        rows = tqdm(sorted(self._rows), desc="thumbnails", unit="picture", disable=not progress)
        rules = [f".p{row}{{background-image:url({data_uri(self._thumbnail(row), 'image/webp')})}}" for row in rows]
        return Markup("\n".join(rules))

    def _thumbnail(self, row: int) -> bytes:
        stored = self._stored[row][self._column]
        picture = to_rgb({"bytes": stored} if isinstance(stored, bytes) else stored or {}, self._name(row))
        small = io.BytesIO()
        thumbnail(picture, _SIZE).save(small, "WEBP", quality=_QUALITY, method=4)
        return small.getvalue()

    def _name(self, row: int) -> str:
        return f"row {row} of column {self._column!r}"
