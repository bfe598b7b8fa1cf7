"""Artifacts that are pasted on pictures, always at the same place."""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image, ImageDraw, ImageFont


def _square(draw: ImageDraw.ImageDraw, width: int, height: int, word: str) -> None:
    side, edge = round(min(width, height) * 0.2), round(min(width, height) * 0.03)
    box = (width - edge - side, height - edge - side, width - edge - 1, height - edge - 1)
    draw.rectangle(box, fill=(232, 16, 208))


def _watermark(draw: ImageDraw.ImageDraw, width: int, height: int, word: str) -> None:
    font = _fitting_font(word, width * 0.9, height * 0.3)
    place = (width / 2, height / 2)
    draw.text(
        place, word, fill=(255, 255, 255, 190), font=font, anchor="mm", stroke_width=1, stroke_fill=(60, 60, 60, 110)
    )


def _frame(draw: ImageDraw.ImageDraw, width: int, height: int, word: str) -> None:
    thick = round(min(width, height) * 0.06)
    draw.rectangle((0, 0, width - 1, height - 1), outline=(176, 132, 40), width=thick)
    draw.rectangle((thick, thick, width - 1 - thick, height - 1 - thick), outline=(70, 48, 16))


def _caption(draw: ImageDraw.ImageDraw, width: int, height: int, word: str) -> None:
    top = height - round(height * 0.24)
    draw.rectangle((0, top, width, height), fill=(255, 255, 255))
    font = _fitting_font(word, width * 0.94, (height - top) * 0.8)
    draw.text((width / 2, (top + height) / 2), word, fill=(0, 0, 0), font=font, anchor="mm")


ARTIFACTS: dict[str, Callable[[ImageDraw.ImageDraw, int, int, str], None]] = {
    "square": _square,
    "watermark": _watermark,
    "frame": _frame,
    "caption": _caption,
}
"""The kinds: a small square in a corner, a word across the picture, a frame, a word on a white strip below."""


def check_artifact(kind: str) -> None:
    """Raise ValueError if there is no such kind of artifact."""
    if kind not in ARTIFACTS:
        raise ValueError(f"unknown artifact {kind!r}; choose one of {', '.join(ARTIFACTS)}")


def paste(picture: Image.Image, kind: str, word: str = "") -> Image.Image:
    """Return a copy of an RGB picture with an artifact on it; `word` is what a watermark or caption says."""
    check_artifact(kind)
    if kind in ("watermark", "caption") and not word:
        raise ValueError(f"the artifact {kind!r} needs a word")
    layer = Image.new("RGBA", picture.size, (0, 0, 0, 0))
    ARTIFACTS[kind](ImageDraw.Draw(layer), *picture.size, word)
    return Image.alpha_composite(picture.convert("RGBA"), layer).convert("RGB")


def _fitting_font(word: str, width: float, height: float) -> ImageFont.FreeTypeFont:
    """Return Pillow's own font, as large as the word fits into this width and height."""
    left, _, right, _ = ImageFont.load_default(100).getbbox(word)
    return ImageFont.load_default(min(height, 100 * width / (right - left)))
