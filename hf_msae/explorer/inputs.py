"""Checks of what visitors give, made before anything is computed from it; each raises `VisitorError`."""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from .._utils.images import readable_formats, to_rgb

MAX_BYTES = 20 * 2**20
MAX_PIXELS = 50_000_000
"""Limit for a JPEG, which is decoded no larger than needed."""
MAX_DECODED_PIXELS = 16_000_000
"""Limit for other formats, which are decoded whole: with 16 bits and transparency, that takes about 0.5 GB."""
MAX_SIDE = 1024
"""Pixels to which the longer side of a picture is reduced: backbones see far fewer."""
MAX_TEXT = 500


class VisitorError(ValueError):
    """A visitor gave something that cannot be used; the message tells them why and what to do."""


def read_picture(path: str | os.PathLike | None) -> Image.Image:
    """Read an uploaded picture as upright 8-bit RGB, at most `MAX_SIDE` on a side; of an animation, one frame."""
    if not path:
        raise VisitorError("Choose a picture first.")
    path = Path(path)
    if not path.is_file():
        raise VisitorError("The picture is gone: upload it again.")
    if path.stat().st_size > MAX_BYTES:
        raise VisitorError(f"The file is larger than {MAX_BYTES >> 20} MB: make it smaller.")
    try:
        # Opening reads the header alone: a picture that would fill the memory is refused by its size.
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=readable_formats()) as picture:
                most = MAX_PIXELS if picture.format == "JPEG" else min(MAX_PIXELS, MAX_DECODED_PIXELS)
                if picture.width * picture.height > most:
                    raise VisitorError(f"The picture has more than {_million(most)} pixels: shrink it, or use JPEG.")
                if picture.mode in ("F", "I"):
                    raise VisitorError("The picture has 32-bit values of unknown scale: save it with 8 or 16 bits.")
                picture.draft("RGB", (MAX_SIDE, MAX_SIDE))  # a JPEG is decoded no larger than needed
                picture.load()
                found = to_rgb(picture)
    except VisitorError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise VisitorError(f"The picture has more than {_million(MAX_PIXELS)} pixels: make it smaller.") from None
    except UnidentifiedImageError:
        raise VisitorError(f"This is not a picture that can be read ({', '.join(readable_formats())}).") from None
    except Exception as error:  # Pillow raises nearly anything for a damaged file
        raise VisitorError("The picture is damaged and cannot be read: save it again, for example as PNG.") from error
    found.thumbnail((MAX_SIDE, MAX_SIDE))
    return found


def _million(number: int) -> str:
    return f"{number // 1_000_000} million"


def read_text(text: object, what: str = "text") -> str:
    """Read a visitor's words, at most `MAX_TEXT` characters, with single spaces between them."""
    if text is not None and not isinstance(text, str):
        raise VisitorError(f"The {what} has to be words.")
    # JSON can hold halves of characters, which cannot be encoded.
    words = " ".join((text or "").replace("\0", " ").encode(errors="replace").decode().split())
    if not words:
        raise VisitorError(f"Write a {what} first.")
    if len(words) > MAX_TEXT:
        raise VisitorError(f"The {what} has {len(words):,} characters; at most {MAX_TEXT} can be read.")
    return words


def read_number(value: object, least: float, most: float, what: str) -> float:
    """Read a finite number within bounds, from a slider or a client."""
    # JSON's whole numbers can be so large that isfinite raises an error.
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300
    if not is_number:
        raise VisitorError(f"{what} has to be a number from {least:g} to {most:g}.")
    if not least <= value <= most:
        raise VisitorError(f"{what} is {value:g}, but has to be from {least:g} to {most:g}.")
    return float(value)


def read_whole_number(value: object, least: int, most: int, what: str) -> int:
    """Read a whole number within bounds."""
    number = read_number(value, least, most, what)
    if number != int(number):
        raise VisitorError(f"{what} has to be a whole number from {least} to {most}.")
    return int(number)


def read_choice(value: object, choices: Collection[str], what: str) -> str:
    """Read one of several choices."""
    if not isinstance(value, str) or value not in choices:
        raise VisitorError(f"Choose a {what} from the list.")
    return value
