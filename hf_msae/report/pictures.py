"""Thumbnails of the pictures a page shows, each in the page once however often it is shown."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

import datasets
from markupsafe import Markup
from PIL import Image
from tqdm.auto import tqdm

from .._utils.images import to_rgb

if TYPE_CHECKING:
    from datasets import Dataset

SIZE = 160
"""Pixels of a thumbnail's longer side, at most."""
_QUALITY = 78


class Pictures:
    """Notes which rows a page shows, and makes a style sheet with their thumbnails as background images.

    An `<img>` would hold its data once for each time it is shown; a class of a style sheet holds it once.

    Args:
        images: the data set, or None: then no row has a picture.
        column: of the pictures; images, paths or encoded bytes.
    """

    def __init__(self, images: Dataset | None, column: str) -> None:
        self._column = column
        self._stored = None
        if images is not None:  # not decoded yet, so that a bad row can be named
            stored = images.with_format(None).select_columns([column])
            self._stored = stored.cast_column(column, datasets.Image(decode=False))
            self._feature = datasets.Image(mode=getattr(images.features[column], "mode", None))
        self._rows: set[int] = set()

    def __bool__(self) -> bool:
        return self._stored is not None

    def use(self, row: int) -> str | None:
        """The class of a row's picture; None where there are no pictures."""
        if self._stored is None:
            return None
        self._rows.add(int(row))
        return f"p{int(row)}"

    def style(self, progress: bool) -> Markup:
        """The style sheet of all rows in use.

        Raises:
            ValueError: a picture cannot be decoded; says which row's.
        """
        rows = tqdm(sorted(self._rows), desc="thumbnails", unit="picture", disable=not progress)
        rules = [f".p{row}{{background-image:url({data_uri(self._thumbnail(row), 'image/webp')})}}" for row in rows]
        return Markup("\n".join(rules))

    def _thumbnail(self, row: int) -> bytes:
        picture = to_rgb(self._decode(row), self._name(row))
        picture.thumbnail((SIZE, SIZE), Image.Resampling.LANCZOS)
        stored = io.BytesIO()
        picture.save(stored, "WEBP", quality=_QUALITY, method=4)
        return stored.getvalue()

    def _decode(self, row: int) -> Image.Image:
        value: dict[str, Any] | None = self._stored[row][self._column]
        if value is None:
            raise ValueError(f"{self._name(row)} is missing (None)")
        try:
            return self._feature.decode_example(value)
        except Exception as error:  # Pillow raises nearly anything for a damaged file
            raise ValueError(f"{self._name(row)} cannot be decoded: {type(error).__name__}: {error}") from error

    def _name(self, row: int) -> str:
        return f"row {row} of column {self._column!r}"


def data_uri(content: bytes, kind: str) -> str:
    """Content as an address that needs no network."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
