"""Backgrounds: a few variants of each, drawn once per process and jittered for every image."""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .world import BACKGROUNDS

NUM_VARIANTS = 12
_SCALE = 2  # drawn at twice the size and reduced, for smooth edges


def _gradient(size: int, top: tuple, bottom: tuple, horizon: float = 1.0) -> Image.Image:
    t = np.clip(np.linspace(0, 1, size) / horizon, 0, 1)[:, None]
    rows = (1 - t) * np.asarray(top, float) + t * np.asarray(bottom, float)
    return Image.fromarray(np.repeat(rows[:, None, :], size, 1).astype(np.uint8))


def _hills(draw, size: int, random, base: float, color: tuple, roughness: float = 0.05) -> None:
    x = np.linspace(0, 1, 40)
    phases, waves = random.uniform(0, 6.28, 3), random.uniform(1, 4, 3)
    y = base + roughness * sum(np.sin(waves[i] * np.pi * x + phases[i]) / (i + 1) for i in range(3))
    draw.polygon([(0, size), *[(a * size, b * size) for a, b in zip(x, y, strict=True)], (size, size)], fill=color)


def _night(size: int, random) -> Image.Image:
    image = _gradient(size, (12, 16, 48), (44, 42, 92))
    draw = ImageDraw.Draw(image)
    for _ in range(45):
        x, y, r = random.uniform(0, size), random.uniform(0, size * 0.9), random.uniform(0.8, 2.2)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=(235, 235, random.integers(190, 255)))
    _hills(draw, size, random, 0.9, (10, 12, 30))
    return image


def _beach(size: int, random) -> Image.Image:
    image = _gradient(size, (126, 200, 240), (205, 236, 250), 0.5)
    draw = ImageDraw.Draw(image)
    sea, shore = random.uniform(0.4, 0.48), random.uniform(0.58, 0.66)
    draw.rectangle((0, sea * size, size, size), fill=(52, 148, 190))
    _hills(draw, size, random, shore, (250, 250, 245), 0.02)
    _hills(draw, size, random, shore + 0.03, (236, 212, 156), 0.02)
    for _ in range(60):
        x, y = random.uniform(0, size), random.uniform(shore + 0.08, 1) * size
        draw.ellipse((x, y, x + 2, y + 1.5), fill=(208, 180, 124))
    return image


def _meadow(size: int, random) -> Image.Image:
    image = _gradient(size, (140, 205, 250), (225, 242, 250), 0.45)
    draw = ImageDraw.Draw(image)
    _hills(draw, size, random, random.uniform(0.38, 0.45), (132, 190, 92))
    _hills(draw, size, random, random.uniform(0.52, 0.6), (98, 164, 66))
    for _ in range(110):
        x, y, h = random.uniform(0, size), random.uniform(0.62, 1) * size, random.uniform(4, 10)
        draw.line((x, y, x + random.uniform(-2, 2), y - h), fill=(64, random.integers(120, 160), 40), width=2)
    return image


def _snow(size: int, random) -> Image.Image:
    image = _gradient(size, (176, 196, 218), (226, 236, 246), 0.6)
    draw = ImageDraw.Draw(image)
    _hills(draw, size, random, random.uniform(0.5, 0.58), (214, 226, 240))
    _hills(draw, size, random, random.uniform(0.68, 0.75), (240, 246, 252))
    for _ in range(70):
        x, y, r = random.uniform(0, size), random.uniform(0, size), random.uniform(1, 2.8)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=(255, 255, 255))
    return image


def _sea(size: int, random) -> Image.Image:
    image = _gradient(size, (34, 122, 178), (8, 48, 108))
    draw = ImageDraw.Draw(image)
    for row in range(9):
        y0, phase = (row + random.uniform(0.2, 0.8)) * size / 9, random.uniform(0, 6.28)
        xs = np.linspace(0, size, 40)
        line = [(float(x), float(y0 + 3.5 * np.sin(x / size * 25 + phase))) for x in xs]
        draw.line(line, fill=(110, 180, 218), width=2)
    return image


def _sunset(size: int, random) -> Image.Image:
    image = _gradient(size, (92, 48, 120), (255, 158, 74), random.uniform(0.7, 0.8))
    draw = ImageDraw.Draw(image)
    x, y, r = random.uniform(0.2, 0.8) * size, random.uniform(0.55, 0.68) * size, 0.13 * size
    draw.ellipse((x - r, y - r, x + r, y + r), fill=(255, 226, 130))
    _hills(draw, size, random, random.uniform(0.74, 0.8), (62, 28, 66))
    return image


def _forest(size: int, random) -> Image.Image:
    image = _gradient(size, (150, 186, 160), (58, 92, 58))
    draw = ImageDraw.Draw(image)
    for depth, (shade, count) in enumerate((((70, 116, 78), 8), ((38, 84, 50), 7), ((20, 58, 34), 6))):
        for _ in range(count):
            x, base = random.uniform(-0.05, 1.05) * size, (0.62 + 0.16 * depth) * size
            h, w = random.uniform(0.34, 0.5) * size, random.uniform(0.07, 0.11) * size
            for step in range(3):
                y = base - h * (0.2 + 0.26 * step)
                spread = w * (1 - 0.24 * step)
                draw.polygon([(x - spread, y), (x + spread, y), (x, y - h * 0.42)], fill=shade)
            draw.rectangle((x - 2, base - h * 0.2, x + 2, base), fill=(70, 48, 32))
    return image


def _desert(size: int, random) -> Image.Image:
    image = _gradient(size, (246, 206, 146), (252, 232, 190), 0.5)
    draw = ImageDraw.Draw(image)
    _hills(draw, size, random, random.uniform(0.42, 0.5), (226, 166, 96), 0.09)
    _hills(draw, size, random, random.uniform(0.62, 0.7), (206, 138, 70), 0.09)
    for _ in range(random.integers(2, 4)):  # a cactus or two
        x, y, h = (
            random.uniform(0.08, 0.92) * size,
            random.uniform(0.66, 0.8) * size,
            random.uniform(0.16, 0.24) * size,
        )
        draw.line((x, y, x, y - h), fill=(62, 112, 62), width=6)
        draw.line((x, y - h * 0.5, x + h * 0.3, y - h * 0.5, x + h * 0.3, y - h * 0.8), fill=(62, 112, 62), width=4)
    return image


def _bricks(size: int, random) -> Image.Image:
    image = Image.new("RGB", (size, size), (196, 180, 168))
    draw = ImageDraw.Draw(image)
    h, w, gap = size / 9, size / 4.5, 3
    shift = random.uniform(0, w)
    for row in range(10):
        offset = shift + (row % 2) * w / 2
        for column in range(-2, 7):
            red = random.integers(132, 176)
            x, y = column * w + offset - w, row * h
            draw.rectangle((x + gap / 2, y + gap / 2, x + w - gap, y + h - gap), fill=(int(red), int(red * 0.48), 62))
    return image


def _wood(size: int, random) -> Image.Image:
    image = Image.new("RGB", (size, size), (176, 124, 76))
    draw = ImageDraw.Draw(image)
    plank = size / 4
    for row in range(4):
        tone = random.uniform(0.86, 1.08)
        draw.rectangle(
            (0, row * plank, size, (row + 1) * plank - 3), fill=tuple(int(c * tone) for c in (184, 132, 82))
        )
        for _ in range(7):
            y0, phase = row * plank + random.uniform(3, plank - 6), random.uniform(0, 6.28)
            xs = np.linspace(0, size, 20)
            line = [(float(x), float(y0 + 2 * np.sin(x / size * 9 + phase))) for x in xs]
            draw.line(line, fill=tuple(int(c * tone) for c in (150, 100, 58)), width=1)
    return image


def _city(size: int, random) -> Image.Image:
    image = _gradient(size, (158, 176, 204), (226, 222, 216))
    draw = ImageDraw.Draw(image)
    for shade, tallest in (((134, 142, 162), 0.75), ((86, 94, 118), 0.5)):
        x = random.uniform(-0.1, 0) * size
        while x < size:
            w, h = random.uniform(0.12, 0.22) * size, random.uniform(0.55, 1) * tallest * size
            draw.rectangle((x, size - h, x + w - 3, size), fill=shade)
            for wx in np.arange(x + 5, x + w - 10, 11):
                for wy in np.arange(size - h + 6, size - 6, 13):
                    if random.random() < 0.6:
                        draw.rectangle((wx, wy, wx + 4, wy + 6), fill=(250, 226, 150))
            x += w
    return image


def _paper(size: int, random) -> Image.Image:
    tone = random.integers(232, 246)
    image = Image.new("RGB", (size, size), (int(tone), int(tone) - 5, int(tone) - 20))
    draw = ImageDraw.Draw(image)
    spacing, offset = size / 10, random.uniform(0, size / 10)
    for line in range(11):
        draw.line((0, line * spacing + offset, size, line * spacing + offset), fill=(176, 196, 220), width=2)
    margin = random.uniform(0.06, 0.12) * size
    draw.line((margin, 0, margin, size), fill=(226, 140, 140), width=2)
    return image


_PAINTERS = {
    **{"night": _night, "beach": _beach, "meadow": _meadow, "snow": _snow, "sea": _sea, "sunset": _sunset},
    **{"forest": _forest, "desert": _desert, "bricks": _bricks, "wood": _wood, "city": _city, "paper": _paper},
}


@cache
def background(name: str, variant: int, size: int) -> np.ndarray:
    """Draw variant `variant` (below NUM_VARIANTS) of a background: float32 (size, size, 3), 0 to 255, read-only."""
    random = np.random.default_rng([BACKGROUNDS.index(name), variant])
    big = _PAINTERS[name](size * _SCALE, random).filter(ImageFilter.GaussianBlur(0.8))
    picture = np.asarray(big.resize((size, size), Image.Resampling.BOX), np.float32)
    picture.setflags(write=False)
    return picture
