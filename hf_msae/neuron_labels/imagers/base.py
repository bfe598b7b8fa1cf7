"""What an imager has to do, pictures under the names of their contents, and prompts of text-to-image models."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image


class CannotDrawError(ValueError):
    """The imager has no picture of a concept; the search goes on with another one.

    Attributes:
        made: Pictures that were made, and have to be paid, before another one of the same call could not be.
    """

    def __init__(self, message: str, made: int = 0) -> None:
        super().__init__(message)
        self.made = made


class Imager(ABC):
    """Makes pictures of a concept: draws, generates or retrieves them.

    Attributes:
        price: Of a picture, in the currency of the budget's cost.
    """

    price: float = 0.0

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Everything that the pictures depend on, as JSON, without secrets."""

    @abstractmethod
    def draw(self, concept: str, seeds: Sequence[int]) -> list[Image.Image]:
        """Make one RGB picture of the concept for each seed; other seeds give other pictures.

        Raises:
            CannotDrawError: It has none, or not enough, pictures of this concept.
        """

    def check(self) -> None:  # noqa: B027  most always can
        """Raise an error if it could not draw, as for want of a key, before any work is done."""

    def draw_pairs(self, concept: str, seeds: Sequence[int]) -> tuple[list[Image.Image], list[Image.Image]]:
        """Make pictures with the concept, and the same pictures without it.

        Raises:
            CannotDrawError: It cannot make pairs of this concept.
        """
        raise CannotDrawError(f"{type(self).__name__} cannot make pictures that differ in one concept only")

    def most_pictures(self, concept: str) -> int | None:
        """Return how many different pictures of a concept there are; None without a limit."""
        return None


def image_sha256(image: Image.Image) -> str:
    """SHA-256 of the pixels of an RGB picture and its size."""
    digest = hashlib.sha256(f"{image.width} {image.height}\n".encode())
    digest.update(image.tobytes())
    return digest.hexdigest()


_ANGLES = ("seen from close up", "seen from far away", "seen from above", "seen from below", "seen at eye level")
_LIGHTS = ("in bright daylight", "in soft evening light", "in studio light", "in dim light", "against the light")

STYLES = ("plain", "photo")
"""Styles of prompts: "plain" is "a picture of ...", and "photo" a realistic photograph from an angle and in a light
that depend on the seed, so that what pictures of a concept share is the concept."""


class Prompts:
    """Makes the prompt of a concept and seed, in one of `STYLES`, or a text with {} in the concept's place.

    The concept is data: nothing in it is replaced.
    """

    def __init__(self, style: str = "plain") -> None:
        self.style = style if style in STYLES else filled(style, f"a style is one of {', '.join(STYLES)}, or")

    def __call__(self, concept: str, seed: int) -> str:
        """Return the prompt."""
        if self.style == "plain":
            return f"a picture of {concept}"
        if self.style == "photo":
            random = np.random.default_rng(seed)
            return f"a realistic photograph of {concept}, {random.choice(_ANGLES)}, {random.choice(_LIGHTS)}"
        return self.style.replace("{}", concept)


def filled(template: str, what: str = "a template is") -> str:
    """Return a template, which needs exactly one place for a concept."""
    if template.count("{}") != 1:
        raise ValueError(f"{what} a text with one {{}} in the concept's place, got {template!r}")
    return template
