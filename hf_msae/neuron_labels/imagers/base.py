"""What an imager has to do, and pictures under the names of their contents."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

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
