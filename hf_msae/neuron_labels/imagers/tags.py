"""Pictures of a dataset, found by their tags."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..._utils.images import ImageInput
from ..words import form_of
from .base import CannotDrawError, image_sha256
from .collection import CollectionImager

if TYPE_CHECKING:
    from datasets.arrow_dataset import Column

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
        """Return the rows without a tag that are not excluded."""
        others = ~self._excluded
        others[self._rows.get(form_of(concept), [])] = False
        return np.flatnonzero(others)
