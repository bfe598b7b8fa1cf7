"""Pictures that exist already: which seed stands for which, which are never taken, and those found by their tags."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..._utils.images import ImageInput, to_rgb
from ..words import form_of
from .base import CannotDrawError, Imager, image_sha256

if TYPE_CHECKING:
    from datasets.arrow_dataset import Column


class CollectionImager(Imager):
    """Takes pictures of a concept from a collection; subclasses find them.

    A seed stands for one picture: those of a concept are in random order, fixed for each concept, and seeds go through
    them round and round. As many consecutive seeds as there are pictures give different ones. The arguments are those
    of `RetrievalImager`.
    """

    def __init__(
        self, images: Column | Sequence[ImageInput], exclude: Iterable[int | str | Image.Image], pool: int | None
    ) -> None:
        if not len(images):
            raise ValueError("there are no images")
        if pool is not None and pool < 1:
            raise ValueError(f"pool must be positive, got {pool}")
        self.images, self.pool = images, pool
        self._excluded = np.zeros(len(images), dtype=bool)
        self._excluded_hashes: set[str] = set()
        for each in exclude:
            self._exclude(each)
        rows = np.flatnonzero(self._excluded).tolist()
        self._exclusions = hashlib.sha256(f"{rows} {sorted(self._excluded_hashes)}".encode()).hexdigest()
        self._found: dict[str, list[int]] = {}

    @abstractmethod
    def candidates(self, concept: str) -> Iterable[int]:
        """Return the rows that show a concept, those to prefer first; excluded ones are left out afterwards."""

    @abstractmethod
    def unlike(self, concept: str) -> np.ndarray:
        """Return rows that do not show a concept; ask `is_excluded` of those that are taken."""

    def draw(self, concept: str, seeds: Sequence[int]) -> list[Image.Image]:
        """Return the picture of each seed; raise CannotDrawError where two different seeds would give the same."""
        different = list(dict.fromkeys(seeds))
        rows = self.rows(concept, different)
        if len(set(rows)) < len(rows):
            raise CannotDrawError(
                f"there are {self.most_pictures(concept)} pictures of {concept!r}, too few for {len(rows)} seeds"
            )
        of_seeds = dict(zip(different, map(self.image, rows), strict=True))
        return [of_seeds[seed] for seed in seeds]

    def rows(self, concept: str, seeds: Iterable[int]) -> list[int]:
        """Return the row of each seed's picture."""
        if concept not in self._found:
            self._found[concept] = self._search(concept)
        rows = self._found[concept]
        if not rows:
            raise CannotDrawError(f"there are no pictures of {concept!r} that are not excluded")
        return [rows[seed % len(rows)] for seed in seeds]

    def most_pictures(self, concept: str) -> int:
        """Return how many pictures of a concept there are."""
        try:
            self.rows(concept, ())
        except CannotDrawError:  # there are none
            return 0
        return len(self._found[concept])

    def image(self, row: int) -> Image.Image:
        """Return a picture of the collection."""
        return to_rgb(self.images[int(row)], f"image {row}")

    def is_excluded(self, row: int) -> bool:
        """Whether the picture of a row is never drawn, by its number or by its content."""
        hashes = self._excluded_hashes
        return bool(self._excluded[row]) or (bool(hashes) and image_sha256(self.image(row)) in hashes)

    def _search(self, concept: str) -> list[int]:
        rows: list[int] = []
        seen = set(self._excluded_hashes)
        for row in self.candidates(concept):
            if self._excluded[row] or (name := image_sha256(self.image(row))) in seen:
                continue
            seen.add(name)
            rows.append(int(row))
            if len(rows) == self.pool:
                break
        order = np.random.default_rng(list(hashlib.sha256(concept.encode()).digest())).permutation(len(rows))
        return [rows[place] for place in order]

    def _exclude(self, each: int | str | Image.Image) -> None:
        if isinstance(each, str):
            self._excluded_hashes.add(each)
        elif isinstance(each, Image.Image):
            self._excluded_hashes.add(image_sha256(to_rgb(each)))
        elif isinstance(each, bool | np.bool_):
            raise TypeError("exclude takes numbers of rows, not a mask: pass mask.nonzero()[0]")
        elif not 0 <= int(each) < len(self.images):
            raise ValueError(f"row {int(each)} is excluded, but there are {len(self.images)} images")
        else:
            self._excluded[int(each)] = True


_HASHED = 16  # images; all would take long, and the same tags in another size or color differ in these as well


class TagsImager(CollectionImager):
    """Takes pictures that people tagged with a concept from a dataset, such as `load_clipart("validation")`.

    A concept is a tag if the words are the same but for number and punctuation ("Birds!" is "bird"). This needs no
    model, and is as right as the tags are; but it knows tags alone, where `RetrievalImager` knows any text.

    Args:
        images: A column of a dataset, or a list of images.
        tags: The tags of each image.
        exclude: What is never drawn: numbers of rows, images, or their `image_sha256`.
        pool: Number of pictures of a concept at most; None takes all.

    Raises:
        ValueError: There are no images, another number of tags, an excluded row is not there, or `pool` is not
            positive.
    """

    def __init__(
        self,
        images: Column | Sequence[ImageInput],
        tags: Sequence[Sequence[str]],
        exclude: Iterable[int | str | Image.Image] = (),
        pool: int | None = None,
    ) -> None:
        super().__init__(images, exclude, pool)
        tags = list(tags)
        if len(tags) != len(images):
            raise ValueError(f"there are {len(images)} images, but tags of {len(tags)}")
        self._tags_sha256 = hashlib.sha256(json.dumps(tags).encode()).hexdigest()
        self._rows: dict[str, list[int]] = {}
        for row, own in enumerate(tags):
            for tag in {form_of(tag) for tag in own}:
                self._rows.setdefault(tag, []).append(row)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The dataset as the hashes of its tags and of some of its images, what is excluded, and the options."""
        rows = dict.fromkeys(np.linspace(0, len(self.images) - 1, _HASHED).astype(int).tolist())
        return {
            "imager": "tags",
            "images": len(self.images),
            "some": hashlib.sha256("".join(image_sha256(self.image(row)) for row in rows).encode()).hexdigest(),
            "tags": self._tags_sha256,
            "excluded": self._exclusions,
            "pool": self.pool,
        }

    def candidates(self, concept: str) -> list[int]:
        """Return the rows with a tag, in random order."""
        rows = self._rows.get(form_of(concept))
        if rows is None:
            raise CannotDrawError(f"no picture has the tag {concept!r}")
        return np.random.default_rng(0).permutation(rows).tolist()

    def unlike(self, concept: str) -> np.ndarray:
        """Return the rows without a tag whose numbers are not excluded."""
        others = ~self._excluded
        others[self._rows.get(form_of(concept), [])] = False
        return np.flatnonzero(others)
