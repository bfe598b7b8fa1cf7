"""Pictures of a dataset, found by how well they fit a text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from ..._utils.fingerprint import array_fingerprint, weights_sha256
from ..._utils.images import ImageInput
from ...backbones import Backbone
from ..words import unit_rows
from .base import CannotDrawError, filled
from .collection import CollectionImager

if TYPE_CHECKING:
    from datasets.arrow_dataset import Column

LEVEL = 0.1
"""A concept has pictures if at most this share of invented words has better ones."""

_INVENTED_WORDS = 200
_SAME = 0.999  # centered cosine from which on two rows are the same picture
_CHUNK = 1024
_BEST = 10  # pictures whose mean similarity says how well a text is met


class RetrievalImager(CollectionImager):
    """Takes pictures of a concept from a dataset: those most similar to its text, as a CLIP-like model sees it.

    The similarity is the cosine of the text's embedding and the picture's, as a difference from the mean picture: what
    all pictures share, the modality gap included, says nothing about any of them.

    Every dataset has a picture that fits best. Whether a concept is there at all is tested: the mean similarity of its
    10 best pictures is compared with that of 200 invented words such as "pigebabal". With a p-value, (1 + number of
    words that are as good) / 201, above `level`, there are no pictures of it. Concepts without pictures thus pass
    about as often as `level` says if their words are as strange to the model as invented ones, and more often if the
    dataset has something similar. Concepts with pictures are refused too, where the model is weak.

    Args:
        images: A column of a dataset, or a list of images. After all of them were embedded, only those that are drawn
            are decoded.
        backbone: A model with a text tower, or what `Backbone.from_pretrained` loads.
        embeddings: Embeddings of the images by this backbone at "image_embeds" (n, d); computed if not given.
        exclude: What is never drawn, such as the pictures that controls or scores use: numbers of rows, images, or
            their `image_sha256`. Rows whose embedding is nearly that of an excluded row (centered cosine of 0.999 and
            more) are the same picture, and are not drawn either.
        pool: Number of pictures of a concept at most. What fits worse than that is not drawn.
        template: The text of a concept, with {} in its place.
        level: See above; None takes the best pictures, however bad.
        progress: Whether to show a progress bar while images are embedded. None shows one for many.

    Raises:
        ValueError: There are fewer than two images, another number of embeddings, or embeddings of another width; the
            backbone has no text tower; or an option is out of range.
    """

    def __init__(
        self,
        images: Column | Sequence[ImageInput],
        backbone: Backbone | str,
        embeddings: np.ndarray | torch.Tensor | None = None,
        exclude: Iterable[int | str | Image.Image] = (),
        pool: int = 50,
        template: str = "{}",
        level: float | None = LEVEL,
        progress: bool | None = None,
    ) -> None:
        if level is not None and not 0 < level < 1:
            raise ValueError(f"level must be between 0 and 1, or None, got {level!r}")
        super().__init__(images, exclude, pool)
        self.template, self.level = filled(template), level
        self.backbone = backbone if isinstance(backbone, Backbone) else Backbone.from_pretrained(backbone)
        self.backbone.require("text_embeds")
        if embeddings is None:
            embeddings = self.backbone.read("image_embeds", images, progress=progress)
        self._centered = self._checked(embeddings)
        self._exclude_same()
        self._allowed = np.flatnonzero(~self._excluded)
        self._invented: np.ndarray | None = None

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The fingerprint of the dataset's embeddings, the hash of the model's weights, what is excluded, options."""
        return {
            "imager": "retrieval",
            "images": len(self.images),
            "embeddings": self._fingerprint,
            "backbone": weights_sha256(self.backbone.model),
            "excluded": self._exclusions,
            "pool": self.pool,
            "template": self.template,
            "level": self.level,
        }

    def p_value(self, concept: str) -> float:
        """Return the share of invented words whose best pictures fit as well as those of a concept."""
        if self._invented is None:
            self._invented = self._fit(self._similarities(map(self._text, _invented_words())))
        own = self._fit(self._similarities([self._text(concept)]))[0]
        return float((1 + (self._invented >= own).sum()) / (1 + len(self._invented)))

    def candidates(self, concept: str) -> Iterable[int]:
        """Return all rows that are not excluded, those that fit a concept best first."""
        if len(self._allowed) and self.level is not None and (p_value := self.p_value(concept)) > self.level:
            raise CannotDrawError(
                f"the dataset has no pictures of {concept!r}: those that fit best do not fit better than those of "
                f"invented words (p = {p_value:.2f}, allowed is {self.level})"
            )
        return self._allowed[np.argsort(-self._similarities([self._text(concept)])[0], kind="stable")]

    def unlike(self, concept: str) -> np.ndarray:
        """Return the rows of the half of the pictures that fit a concept less."""
        similarity = self._similarities([self._text(concept)])[0]
        return self._allowed[np.argsort(similarity, kind="stable")[: len(similarity) // 2]]

    def _text(self, concept: str) -> str:
        return self.template.replace("{}", concept)

    def _similarities(self, texts: Iterable[str]) -> np.ndarray:
        units = unit_rows(self.backbone.text_embeds(list(texts))).astype(np.float32)
        return units @ self._centered[self._allowed].T

    def _fit(self, similarities: np.ndarray) -> np.ndarray:
        return np.sort(similarities, axis=1)[:, -_BEST:].mean(axis=1)

    def _checked(self, embeddings: np.ndarray | torch.Tensor) -> np.ndarray:
        units = unit_rows(embeddings)
        if units.ndim != 2 or len(units) != len(self.images):
            raise ValueError(f"there are embeddings of shape {units.shape} for {len(self.images)} images")
        if len(units) < 2:
            raise ValueError(f"retrieval needs at least two images, got {len(units)}")
        if units.shape[1] != (width := self.backbone.width("text_embeds")):
            raise ValueError(f"embeddings have {units.shape[1]} columns, but texts are embedded into {width}")
        if not np.isfinite(units).all():
            raise ValueError(f"the embedding of image {int(np.argmin(np.isfinite(units).all(axis=1)))} is not finite")
        self._fingerprint = array_fingerprint(units)
        return unit_rows(units - units.mean(axis=0)).astype(np.float32)

    def _exclude_same(self) -> None:
        theirs = self._centered[self._excluded]
        if not len(theirs):
            return
        for start in range(0, len(self._centered), _CHUNK):
            rows = slice(start, start + _CHUNK)
            self._excluded[rows] |= (self._centered[rows] @ theirs.T).max(axis=1) >= _SAME


def _invented_words() -> list[str]:
    """Return words of two to four syllables that no language has, always the same."""
    random = np.random.default_rng(0)
    consonants, vowels = list("bcdfghjklmnprstvwz"), list("aeiou")
    return [
        "".join(random.choice(consonants) + random.choice(vowels) for _ in range(random.integers(2, 5)))
        + str(random.choice(["", *"nrtls"]))
        for _ in range(_INVENTED_WORDS)
    ]
