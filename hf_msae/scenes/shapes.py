"""Shapes as anti-aliased masks."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import distance_transform_edt

_OVERSAMPLE = 3
Point = tuple[float, float]


def _regular(corners: int, radius: float = 1.0, start: float = -90.0) -> list[Point]:
    angles = np.deg2rad(start + np.arange(corners) * 360.0 / corners)
    return [(radius * float(np.cos(a)), radius * float(np.sin(a))) for a in angles]


def _star(points: int = 5, inner: float = 0.45) -> list[Point]:
    outer, inside = _regular(points), _regular(points, inner, -90.0 + 180.0 / points)
    return [corner for pair in zip(outer, inside, strict=True) for corner in pair]


def _heart() -> list[Point]:
    t = np.linspace(0, 2 * np.pi, 60)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return [(float(a) / 17, -float(b + 2.5) / 17) for a, b in zip(x, y, strict=True)]


def _drop() -> list[Point]:
    angles = np.deg2rad(np.linspace(-30, 210, 40))
    round_part = [(0.68 * float(np.cos(a)), 0.3 + 0.68 * float(np.sin(a))) for a in angles]
    return [*round_part, (0.0, -1.0)]


# Polygons in a square from -1 to 1, y downwards; `_draw` draws the other shapes.
_POLYGONS: dict[str, list[Point]] = {
    "square": [(-0.82, -0.82), (0.82, -0.82), (0.82, 0.82), (-0.82, 0.82)],
    "triangle": [(0, -0.95), (0.98, 0.8), (-0.98, 0.8)],
    "star": _star(),
    "heart": _heart(),
    "cross": [
        *[(-0.32, -0.95), (0.32, -0.95), (0.32, -0.32), (0.95, -0.32), (0.95, 0.32), (0.32, 0.32)],
        *[(0.32, 0.95), (-0.32, 0.95), (-0.32, 0.32), (-0.95, 0.32), (-0.95, -0.32), (-0.32, -0.32)],
    ],
    "diamond": [(0, -1), (0.72, 0), (0, 1), (-0.72, 0)],
    "arrow": [(-0.95, -0.28), (0.1, -0.28), (0.1, -0.8), (0.98, 0), (0.1, 0.8), (0.1, 0.28), (-0.95, 0.28)],
    "house": [(0, -0.98), (0.95, -0.15), (0.68, -0.15), (0.68, 0.9), (-0.68, 0.9), (-0.68, -0.15), (-0.95, -0.15)],
    "bolt": [(0.25, -1), (-0.62, 0.12), (-0.08, 0.12), (-0.3, 1), (0.62, -0.25), (0.08, -0.25), (0.5, -1)],
    "drop": _drop(),
}


def _draw(draw: ImageDraw.ImageDraw, shape: str, center: float, radius: float) -> None:
    def disc(x: float, y: float, r: float, value: int = 255) -> None:
        cx, cy, rr = center + x * radius, center + y * radius, r * radius
        draw.ellipse((cx - rr, cy - rr, cx + rr, cy + rr), fill=value)

    if shape in _POLYGONS:
        draw.polygon([(center + x * radius, center + y * radius) for x, y in _POLYGONS[shape]], fill=255)
    elif shape == "circle":
        disc(0, 0, 0.92)
    elif shape == "ring":
        disc(0, 0, 0.98)
        disc(0, 0, 0.5, 0)
    elif shape == "crescent":
        disc(0, 0, 0.97)
        disc(0.48, -0.1, 0.78, 0)
    elif shape == "flower":
        for x, y in _regular(6, 0.58):
            disc(x, y, 0.42)
        disc(0, 0, 0.5)
    else:  # a cloud
        puffs = [(-0.55, 0.2, 0.42), (0.55, 0.2, 0.42), (-0.15, -0.15, 0.52), (0.3, -0.02, 0.42), (0, 0.25, 0.4)]
        for x, y, r in puffs:
            disc(x, y, r)


@lru_cache(maxsize=8192)
def shape_masks(shape: str, radius: int, rotation: int, line: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw a shape of `world.SHAPES` and its inside, which is the shape without an outline of `line` pixels.

    `radius` is half the extent in pixels, and `rotation` is counterclockwise in degrees. Returns the coverage of both,
    float32 (2 * radius + 5, 2 * radius + 5) in [0, 1].
    """
    size = 2 * radius + 5
    big = size * _OVERSAMPLE
    image = Image.new("L", (big, big), 0)
    _draw(ImageDraw.Draw(image), shape, big / 2, radius * _OVERSAMPLE)
    if rotation:
        image = image.rotate(rotation, resample=Image.Resampling.BILINEAR)
    outer = np.asarray(image, np.float32) / 255
    # The inside is farther from the outside than the line is wide.
    inner = (distance_transform_edt(outer > 0.5) > line * _OVERSAMPLE).astype(np.float32)

    def shrink(mask: np.ndarray) -> np.ndarray:
        return mask.reshape(size, _OVERSAMPLE, size, _OVERSAMPLE).mean((1, 3))

    return shrink(outer), shrink(inner)
