"""Drawings on other backgrounds, in other sizes, turned and moved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageFilter
from scipy.ndimage import label

from ..._utils.checks import check_integers
from .base import CannotDrawError, Imager
from .collection import CollectionImager

Backgrounds = Literal["varied", "white"]
_PAPER = 24  # how far a channel may be from white in what is cut off around a drawing
_SCALES = (0.5, 0.75)  # of the picture that a drawing takes; a distractor takes half of that
_MOST_DEGREES = 25


class CompositionImager(Imager):
    """Cuts drawings out of their white ground and pastes them onto a background, in a size, place and angle by chance.

    A neuron that responds to how drawings of a concept are usually shown, and not to what they show, does not respond
    to these. Another drawing, taken at random from those that do not fit the concept, is in a corner of every picture,
    and remains in the pictures without the concept.

    Args:
        drawings: Finds the drawings: a `TagsImager` or `RetrievalImager`, such as one over the clip art of a split
            whose authors the neuron's model has not seen.
        size: Side of the pictures in pixels.
        per_drawing: Number of pictures that one drawing is used for. With 1, no two pictures share a drawing.
        background: "varied" for color gradients with clouds, or "white".
        seed: Random seed of the compositions.

    Raises:
        ValueError: An option is out of range.
    """

    def __init__(
        self,
        drawings: CollectionImager,
        size: int = 96,
        per_drawing: int = 1,
        background: Backgrounds = "varied",
        seed: int = 0,
    ) -> None:
        check_integers(size=(size, 16), per_drawing=(per_drawing, 1), seed=(seed, 0))
        if background not in ("varied", "white"):
            raise ValueError(f'background must be "varied" or "white", got {background!r}')
        self.drawings, self.size, self.per_drawing = drawings, size, per_drawing
        self.background, self.seed = background, seed

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the drawings, and the options."""
        return {
            "imager": "composition",
            "drawings": self.drawings.settings,
            "size": self.size,
            "per_drawing": self.per_drawing,
            "background": self.background,
            "seed": self.seed,
        }

    def most_pictures(self, concept: str) -> int:
        """Return how many pictures of a concept there are."""
        return self.per_drawing * self.drawings.most_pictures(concept)

    def draw(self, concept: str, seeds: Sequence[int]) -> list[Image.Image]:
        """Compose pictures with a drawing of the concept."""
        return self.draw_pairs(concept, seeds)[0]

    def draw_pairs(self, concept: str, seeds: Sequence[int]) -> tuple[list[Image.Image], list[Image.Image]]:
        """Compose pictures with a drawing of the concept, and the same ones without that drawing."""
        rows = self.drawings.rows(concept, seeds)
        of_drawing = Counter(dict(zip(seeds, rows, strict=True)).values())
        if max(of_drawing.values(), default=0) > self.per_drawing:
            raise CannotDrawError(
                f"there are {self.most_pictures(concept)} pictures of {concept!r}, too few for {len(seeds)} seeds"
            )
        others = self.drawings.unlike(concept)
        pairs = [self._compose(row, others, seed) for row, seed in zip(rows, seeds, strict=True)]
        return [pair[0] for pair in pairs], [pair[1] for pair in pairs]

    def _compose(self, row: int, others: np.ndarray, seed: int) -> tuple[Image.Image, Image.Image]:
        random = np.random.default_rng([self.seed, row, seed])
        without = self._background(random)
        scale = random.uniform(*_SCALES)
        corner = random.permutation(2).tolist() if random.random() < 0.5 else [int(random.integers(2))] * 2
        if (row_of_other := self._choose(others, random)) is not None:
            other = self._cut_out(row_of_other, scale / 2, random)
            place = [last * (self.size - side) for side, last in zip(other.size, corner, strict=True)]
            _paste(without, other, *place)
        drawing = self._cut_out(row, scale, random)
        # Away from the corner of the other drawing, by up to a third of the free space from the opposite one.
        free = [
            (self.size - side) * (random.uniform(0, 1 / 3) if last else random.uniform(2 / 3, 1))
            for side, last in zip(drawing.size, corner, strict=True)
        ]
        picture = without.copy()
        _paste(picture, drawing, *map(round, free))
        return picture, without

    def _choose(self, rows: np.ndarray, random: np.random.Generator) -> int | None:
        """Choose a row that is not excluded at random; None if all are."""
        while len(rows):
            row = int(random.choice(rows))
            if not self.drawings.is_excluded(row):
                return row
            rows = rows[rows != row]
        return None

    def _cut_out(self, row: int, scale: float, random: np.random.Generator) -> Image.Image:
        drawing = cut_out(self.drawings.image(row))
        drawing = drawing.rotate(random.uniform(-_MOST_DEGREES, _MOST_DEGREES), Image.Resampling.BICUBIC, expand=True)
        drawing = drawing.crop(drawing.getbbox(alpha_only=True))
        factor = scale * self.size / max(drawing.size)
        return drawing.resize([max(1, round(side * factor)) for side in drawing.size], Image.Resampling.LANCZOS)

    def _background(self, random: np.random.Generator) -> Image.Image:
        if self.background == "white":
            return Image.new("RGB", (self.size, self.size), "white")
        # Colors in four corners and clouds, pale enough for black lines to stay visible.
        coarse = random.uniform(130, 250, (2, 2, 3)).astype(np.uint8)
        smooth = Image.fromarray(coarse).resize((self.size, self.size), Image.Resampling.BILINEAR)
        clouds = Image.fromarray(random.integers(0, 256, (6, 6), dtype=np.uint8))
        clouds = clouds.resize((self.size, self.size), Image.Resampling.BICUBIC)
        values = np.asarray(smooth, float) + (np.asarray(clouds, float)[..., None] - 128) * random.uniform(0.05, 0.3)
        return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def cut_out(drawing: Image.Image) -> Image.Image:
    """Make the white around a drawing transparent (RGBA), with a soft edge; one without any is left whole."""
    drawing = drawing.convert("RGB")
    # A white margin, so that the ground around the drawing is in one piece.
    padded = Image.new("RGB", (drawing.width + 2, drawing.height + 2), "white")
    padded.paste(drawing, (1, 1))
    pieces, _ = label(np.asarray(padded).min(axis=2) > 255 - _PAPER)
    inside = pieces != pieces[0, 0]
    if not inside.any():
        inside[:] = True
    soft = np.asarray(Image.fromarray((inside * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.5)))
    padded.putalpha(Image.fromarray(np.where(inside, soft, 0).astype(np.uint8)))
    return padded


def _paste(canvas: Image.Image, drawing: Image.Image, left: int, top: int) -> None:
    canvas.paste(drawing, (left, top), drawing)
