"""Rendering of scenes: deterministic, about a millisecond per image."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from .backgrounds import NUM_VARIANTS, background
from .shapes import shape_masks
from .world import Scene, SceneObject, scene_generator

IMAGE_SIZE = 96

RGB = {
    **{"red": (214, 34, 40), "orange": (250, 132, 24), "yellow": (250, 218, 40), "green": (40, 150, 54)},
    **{"turquoise": (52, 214, 204), "blue": (38, 70, 220), "purple": (134, 48, 186), "pink": (250, 132, 190)},
    **{"brown": (118, 70, 34), "white": (250, 250, 250), "black": (22, 22, 24)},
}
_RADIUS = {"small": 11, "medium": 16, "large": 22}
_CENTER = {"left": (20, 48), "right": (76, 48), "top": (48, 20), "bottom": (48, 76), "center": (48, 48)}


def _second_tone(color: str) -> np.ndarray:
    """The other color of a pattern: a paler or, for pale colors, a darker version of the same hue."""
    base = np.asarray(RGB[color], np.float32)
    return base * 0.55 if color in ("white", "yellow", "turquoise", "pink") else base + (255 - base) * 0.72


@lru_cache(maxsize=1024)
def _pattern(fill: str, size: int, radius: int) -> np.ndarray:
    """Where a pattern shows its second tone: float32 (size, size) in {0, 1}."""
    y, x = np.mgrid[:size, :size].astype(np.float32) - (size - 1) / 2
    step = max(6.0, radius * 0.62)
    if fill == "striped":
        second = ((x + y) % step) < step / 2
    elif fill == "dotted":
        second = ((x % step) - step / 2) ** 2 + ((y % step) - step / 2) ** 2 < (step * 0.3) ** 2
    else:  # checkered
        second = ((x // (step / 2)) + (y // (step / 2))) % 2 < 1
    return second.astype(np.float32)


def _paste(canvas: np.ndarray, mask: np.ndarray, color: np.ndarray, left: int, top: int) -> None:
    """Blend a color ((3,) or (h, w, 3)) into the canvas under a mask whose corner is at (left, top)."""
    height, width = mask.shape
    y0, x0 = max(top, 0), max(left, 0)
    y1, x1 = min(top + height, canvas.shape[0]), min(left + width, canvas.shape[1])
    window = (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
    weight = mask[window][..., None]
    region = canvas[y0:y1, x0:x1]
    region += weight * ((color[window] if color.ndim == 3 else color) - region)


def _draw_object(canvas: np.ndarray, thing: SceneObject, random: np.random.Generator) -> None:
    radius = _RADIUS[thing.size]
    rotation = int(random.integers(-1, 2)) * 6
    center = np.asarray(_CENTER[thing.position]) + random.integers(-2, 3, 2)
    line = {"small": 3, "medium": 4, "large": 5}[thing.size] if thing.fill == "outlined" else 1
    outer, inner = shape_masks(thing.shape, radius, rotation, line)
    size = outer.shape[0]
    left, top = (int(v) - size // 2 for v in center)
    base = np.asarray(RGB[thing.colour], np.float32) * np.float32(random.uniform(0.92, 1.06))
    base = np.clip(base, 0, 255)
    edge = np.asarray((232, 232, 232) if thing.colour == "black" else (36, 32, 34), np.float32)
    if thing.fill == "outlined":
        # A hairline of the edge color keeps the stroke visible on any background.
        rim, _ = shape_masks(thing.shape, radius + 1, rotation, line)
        pad = (rim.shape[0] - size) // 2
        stroke = np.clip(outer - inner, 0, 1)
        halo = np.clip(rim - np.pad(outer, pad), 0, 1)
        _paste(canvas, halo * 0.8, edge, left - pad, top - pad)
        _paste(canvas, stroke, base, left, top)
        return
    _paste(canvas, outer * 0.28, np.zeros(3, np.float32), left + 2, top + 3)  # a soft shadow
    _paste(canvas, outer, edge, left, top)
    if thing.fill == "solid":
        _paste(canvas, inner, base, left, top)
    else:
        second = _pattern(thing.fill, size, radius)[..., None]
        _paste(canvas, inner, second * _second_tone(thing.colour) + (1 - second) * base, left, top)


@lru_cache(maxsize=4)
def _vignette(size: int) -> np.ndarray:
    y, x = np.mgrid[:size, :size].astype(np.float32) / (size - 1) * 2 - 1
    return np.clip(1.15 - 0.33 * (x * x + y * y), 0.2, 1)[..., None]


@lru_cache(maxsize=4)
def _watermark(size: int) -> np.ndarray:
    layer = Image.new("L", (size, size), 0)
    font = ImageFont.load_default(size * 0.17)
    draw = ImageDraw.Draw(layer)
    draw.text((size / 2, size * 0.86), "SAMPLE", fill=255, font=font, anchor="mm", stroke_width=1)
    return np.asarray(layer, np.float32) / 255


def _apply_style(canvas: np.ndarray, style: str, random: np.random.Generator) -> np.ndarray:
    size = canvas.shape[0]
    if style == "blurry":
        image = Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))
        return np.asarray(image.filter(ImageFilter.GaussianBlur(1.2)), np.float32)
    if style == "pixelated":
        block = 3
        coarse = canvas.reshape(size // block, block, size // block, block, 3).mean((1, 3))
        return coarse.repeat(block, 0).repeat(block, 1)
    if style == "grainy":
        return canvas + random.standard_normal((size, size, 1), dtype=np.float32) * 24
    if style == "vintage":
        gray = canvas.mean(-1, keepdims=True)
        faded = 0.72 * canvas + 0.28 * gray * np.asarray((1.06, 0.98, 0.8), np.float32)
        return (faded * 0.86 + 22) * _vignette(size)
    return canvas


def render_scene(scene: Scene) -> Image.Image:
    """Draw a scene as an RGB image of IMAGE_SIZE x IMAGE_SIZE, always the same for the same scene."""
    return Image.fromarray(render_array(scene))


def render_array(scene: Scene) -> np.ndarray:
    """Draw a scene as a uint8 array (IMAGE_SIZE, IMAGE_SIZE, 3)."""
    random = scene_generator(scene.split, scene.seed, scene.index, 1)
    canvas = background(scene.background, int(random.integers(NUM_VARIANTS)), IMAGE_SIZE)
    if random.random() < 0.5:
        canvas = canvas[:, ::-1]
    canvas = canvas * np.float32(random.uniform(0.9, 1.06)) + random.uniform(-6, 6, 3).astype(np.float32)
    for thing in scene.objects:
        _draw_object(canvas, thing, random)
    canvas = _apply_style(canvas, scene.style, random)
    if scene.watermark:
        words = _watermark(IMAGE_SIZE)
        canvas = canvas + words[..., None] * 0.8 * (np.float32(245) - canvas)
    if scene.frame:
        width = 5
        canvas = np.array(canvas)
        for edge in (np.s_[:width], np.s_[-width:], np.s_[:, :width], np.s_[:, -width:]):
            canvas[edge] = (246, 244, 238)
        inside = slice(width, -width)
        for edge in ((width, inside), (-width - 1, inside), (inside, width), (inside, -width - 1)):
            canvas[edge] *= 0.6
    return np.clip(canvas, 0, 255).astype(np.uint8)
