"""Pictures with known concepts, of which a network makes a task; their features are kept on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import Image, ImageDraw, ImageFont
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from tqdm.auto import tqdm
from transformers.utils import logging

from ..._utils.atomic import atomic_path
from ..._utils.cache import cache_folder
from ..._utils.paths import file_name
from .networks import Network
from .task import SPLITS, Task

logger = logging.get_logger(__name__)

DRAWING_VERSION = 1
"""To be increased by every change of how pictures of the same settings look; part of the name of kept features."""

NUM_CONCEPTS = 10
"""Concepts beside the label and the bias that a task has by default, at most."""

FEWEST = 10
"""Pictures of either split that such a concept needs."""

_CHUNK = 128


@dataclass(frozen=True, eq=False)
class TaskPictures:
    """The pictures of a task, each of which can be drawn with the bias and without it.

    `draw` draws the picture of a row, and can change the bias if they are `paired`. `sources` are what pictures are
    made of, scenes or authors, none of which is in both splits, and `inputs`, by default the same, what they show,
    which is the same in all seeds. `settings` is all that the pictures depend on, as JSON can hold it; the rest is as
    in `Task`.
    """

    name: str
    draw: Callable[[int, bool], Image.Image]
    sources: np.ndarray
    concepts: Mapping[str, np.ndarray]
    target: np.ndarray
    bias: str
    split: np.ndarray
    settings: Mapping[str, Any]
    paired: bool = True
    inputs: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.target)

    def picture(self, row: int, flipped: bool = False) -> Image.Image:
        """Draw the picture of a row, or the same with the bias flipped."""
        return self.draw(row, bool(self.concepts[self.bias][row]) != flipped)

    def task(self, network: Network) -> Task:
        """Return the task of a network's features of these pictures; they are computed once and kept on disk."""
        arrays = self._kept(network)
        inputs = self.sources if self.inputs is None else self.inputs
        return Task(
            name=self.name,
            backbone=network.name,
            features=arrays["features"],
            concepts=self.concepts,
            target=self.target,
            bias=self.bias,
            split=self.split,
            counterfactuals=arrays.get("counterfactuals"),
            provenance={**network.provenance(), **self.settings, "inputs": inputs.tolist()},
        )

    def _kept(self, network: Network) -> dict[str, np.ndarray]:
        file = self._file(network)
        if file.is_file():
            try:
                return load_file(file)
            except SafetensorError as error:  # what is damaged is computed again
                logger.warning(f"{file} cannot be read ({error}); the features are computed again")
        arrays = self._features(network)
        with atomic_path(file) as unfinished:
            save_file(arrays, unfinished)
        return arrays

    def _file(self, network: Network) -> Path:
        known = {"task": self.name, **self.settings, "network": network.known_by()}
        known |= {"version": DRAWING_VERSION, "pillow": PIL.__version__}
        key = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()
        return cache_folder("steering") / f"{file_name(self.name)}-{key[:32]}.safetensors"

    def _features(self, network: Network) -> dict[str, np.ndarray]:
        kinds = {"features": False, "counterfactuals": True} if self.paired else {"features": False}
        parts: dict[str, list[np.ndarray]] = {kind: [] for kind in kinds}
        with tqdm(total=len(self) * len(kinds), desc=self.name, unit="picture", delay=5) as bar:
            for start in range(0, len(self), _CHUNK):
                rows = range(start, min(start + _CHUNK, len(self)))
                for kind, flipped in kinds.items():
                    parts[kind].append(network.features([self.picture(row, flipped) for row in rows]))
                    bar.update(len(rows))
        return {kind: np.concatenate(found) for kind, found in parts.items()}


def check_numbers(num_rows: int, seed: int, correlation: float) -> None:
    """Raise ValueError if a setting that tasks of pictures share is out of range."""
    for name, value, least in (("num_rows", num_rows, 8), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
            raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
    if not -1 <= correlation <= 1:
        raise ValueError(f"correlation must lie between -1 and 1, got {correlation}")


def assign_bias(target: np.ndarray, split: np.ndarray, correlation: float, random: np.random.Generator) -> np.ndarray:
    """Choose the rows that have the bias: exactly as many of each label as the correlation asks for.

    In training, (1 + `correlation`) / 2 of the rows with the label 1 have it, and (1 - `correlation`) / 2 of those
    with 0, so that the correlation of label and bias is `correlation` if both labels are as frequent. In the test,
    half of both have it.
    """
    biased = np.zeros(len(target), dtype=bool)
    for part in SPLITS:
        for label in (0, 1):
            rows = random.permutation(np.flatnonzero((split == part) & (target == label)))
            share = (1 + (correlation if label else -correlation)) / 2 if part == "train" else 0.5
            biased[rows[: round(share * len(rows))]] = True
    return biased


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
