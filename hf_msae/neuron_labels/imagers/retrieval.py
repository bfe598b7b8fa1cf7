"""Pictures of a dataset, found by how well they fit a text."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from ..._utils.fingerprint import weights_sha256
from ..._utils.images import ImageInput, to_rgb
from ...backbones import Backbone
from ..words import unit_rows
from .base import CannotDrawError, Imager, image_sha256
from .prompts import filled

if TYPE_CHECKING:
    from datasets.arrow_dataset import Column

LEVEL = 0.1
"""A concept has pictures if at most this share of invented words has better ones."""

_INVENTED_WORDS = 200
_SAME = 0.999  # centered cosine from which on two rows are the same picture
_CHUNK = 1024
_BEST = 10  # pictures whose mean similarity says how well a text is met


class RetrievalImager(Imager):
    """Takes pictures of a concept from a dataset: those most similar to its text, as a CLIP-like model sees it.

    The similarity is the cosine of the text's embedding and the picture's, as a difference from the mean picture: what
    all pictures share, the modality gap included, says nothing about any of them.

    Every dataset has a picture that fits best. Whether a concept is there at all is tested: the mean similarity of its
    10 best pictures is compared with that of 200 invented words such as "pigebabal", and with p-value (1 + number of
    words as good) / 201 above `level`, there are no pictures of it. Concepts without pictures thus pass about as often
    as `level` says if the model knows their words as little as invented ones, and more often if something similar is
    there.

    A seed stands for one picture: the `pool` best ones are in random order, fixed for each concept, and seeds go
    through them round and round. As many consecutive seeds as there are pictures give different ones.

    Args:
        images: A column of a dataset, or a list of images. Only the pictures that are drawn are decoded, after all of
            them were embedded.
        backbone: A model with a text tower, or what `Backbone.from_pretrained` loads.
        embeddings: Embeddings of the images by this backbone at "image_embeds" (n, d); computed if not given.
        exclude: What is never drawn, such as the pictures that controls or scores use: numbers of rows, images, or
            their `image_sha256`. Rows whose embedding is nearly that of an excluded row (centered cosine of 0.999 and
            more) are the same picture, and are not drawn either.
        pool: Number of pictures of a concept at most.
        template: The text of a concept, with {} in its place.
        level: See above; None takes the best pictures, however bad.

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
    ) -> None:
        if pool < 1:
            raise ValueError(f"pool must be positive, got {pool}")
        if level is not None and not 0 < level < 1:
            raise ValueError(f"level must be between 0 and 1, or None, got {level!r}")
        self.images, self.pool, self.template, self.level = images, pool, filled(template), level
        self.backbone = backbone if isinstance(backbone, Backbone) else Backbone.from_pretrained(backbone)
        self.backbone.require("text_embeds")
        if embeddings is None:
            embeddings = self.backbone.read("image_embeds", images, progress=None)
        self._centered = self._checked(embeddings)
        self._excluded_rows, self._excluded_hashes = self._exclusions(exclude)
        self._allowed = self._not_excluded()
        self._invented: np.ndarray | None = None
        self._found: dict[str, list[int]] = {}

    @property
    def settings(self) -> dict[str, Any]:
        """The dataset as the hash of its embeddings, the model as that of its weights, what is excluded, options."""
        excluded = "\n".join([*map(str, sorted(self._excluded_rows)), *sorted(self._excluded_hashes)])
        return {
            "imager": "retrieval",
            "images": len(self.images),
            "embeddings": self._embeddings_sha256,
            "backbone": weights_sha256(self.backbone.model),
            "excluded": hashlib.sha256(excluded.encode()).hexdigest(),
            "pool": self.pool,
            "template": self.template,
            "level": self.level,
        }

    def draw(self, concept: str, seeds: Sequence[int]) -> list[Image.Image]:
        """Return the picture of each seed.

        Raises:
            CannotDrawError: The concept has no pictures, or too few: two different seeds would give the same.
        """
        rows = self.rows(concept, dict.fromkeys(seeds))
        if len(set(rows)) < len(rows):
            raise CannotDrawError(
                f"the dataset has {self.most_pictures(concept)} pictures of {concept!r}, too few for {len(rows)} seeds"
            )
        of_seeds = dict(zip(dict.fromkeys(seeds), map(self.image, rows), strict=True))
        return [of_seeds[seed] for seed in seeds]

    def rows(self, concept: str, seeds: Iterable[int]) -> list[int]:
        """Return the row of each seed's picture.

        Raises:
            CannotDrawError: The concept has no pictures.
        """
        rows = self._rows_of(concept)
        return [rows[seed % len(rows)] for seed in seeds]

    def unlike(self, concept: str) -> np.ndarray:
        """Return the rows of the half of the pictures that fit a concept less."""
        similarity = self._similarities([self._text(concept)])[0]
        return self._allowed[np.argsort(similarity, kind="stable")[: len(similarity) // 2]]

    def most_pictures(self, concept: str) -> int:
        """Return how many pictures of a concept there are."""
        try:
            return len(self._rows_of(concept))
        except CannotDrawError:
            return 0

    def image(self, row: int) -> Image.Image:
        """Return a picture of the dataset."""
        return to_rgb(self.images[row], f"image {row}")

    def p_value(self, concept: str) -> float:
        """Return the share of invented words whose best pictures fit as well as those of a concept."""
        if self._invented is None:
            self._invented = self._fit(self._similarities(_invented_words()))
        own = self._fit(self._similarities([self._text(concept)]))[0]
        return float((1 + (self._invented >= own).sum()) / (1 + len(self._invented)))

    def _rows_of(self, concept: str) -> list[int]:
        if concept not in self._found:
            self._found[concept] = self._search(concept)
        if not self._found[concept]:
            raise CannotDrawError(
                f"the dataset has no pictures of {concept!r}: those that fit best do not fit better than those of "
                f"invented words (p = {self.p_value(concept):.2f}, allowed is {self.level})"
                if len(self._allowed)
                else "all pictures are excluded"
            )
        return self._found[concept]

    def _search(self, concept: str) -> list[int]:
        """Return the rows of the best pictures, each picture once, in the concept's random order."""
        if not len(self._allowed) or (self.level is not None and self.p_value(concept) > self.level):
            return []
        similarity = self._similarities([self._text(concept)])[0]
        rows, seen = [], set(self._excluded_hashes)
        for row in self._allowed[np.argsort(-similarity, kind="stable")]:
            if (name := image_sha256(self.image(int(row)))) not in seen:
                seen.add(name)
                rows.append(int(row))
                if len(rows) == self.pool:
                    break
        order = np.random.default_rng(list(hashlib.sha256(concept.encode()).digest())).permutation(len(rows))
        return [rows[place] for place in order]

    def _text(self, concept: str) -> str:
        return self.template.replace("{}", concept)

    def _similarities(self, texts: Sequence[str]) -> np.ndarray:
        """Return the similarity (texts, allowed rows) of texts and pictures."""
        texts = unit_rows(self.backbone.text_embeds(list(texts))).astype(np.float32)
        return texts @ self._centered[self._allowed].T

    def _fit(self, similarities: np.ndarray) -> np.ndarray:
        return np.sort(similarities, axis=1)[:, -_BEST:].mean(axis=1)

    def _checked(self, embeddings: np.ndarray | torch.Tensor) -> np.ndarray:
        units = unit_rows(embeddings)
        if units.ndim != 2 or len(units) != len(self.images):
            raise ValueError(f"there are embeddings of shape {units.shape} for {len(self.images)} images")
        if len(units) < 2:
            raise ValueError(f"retrieval needs at least two images, got {len(units)}")
        if units.shape[1] != (width := self.backbone.width("text_embeds")):
            raise ValueError(
                f"embeddings have {units.shape[1]} columns, but {self.backbone.label} embeds into {width}"
            )
        if not np.isfinite(units).all():
            raise ValueError(f"the embedding of image {int(np.argmin(np.isfinite(units).all(axis=1)))} is not finite")
        self._embeddings_sha256 = hashlib.sha256(units.astype(np.float32).tobytes()).hexdigest()
        return unit_rows(units - units.mean(axis=0)).astype(np.float32)

    def _exclusions(self, exclude: Iterable[int | str | Image.Image]) -> tuple[set[int], set[str]]:
        rows: set[int] = set()
        hashes: set[str] = set()
        for each in exclude:
            if isinstance(each, str):
                hashes.add(each)
            elif isinstance(each, Image.Image):
                hashes.add(image_sha256(to_rgb(each)))
            elif isinstance(each, bool | np.bool_):
                raise TypeError("exclude takes numbers of rows, not a mask: pass mask.nonzero()[0]")
            elif not 0 <= (row := int(each)) < len(self.images):
                raise ValueError(f"row {row} is excluded, but there are {len(self.images)} images")
            else:
                rows.add(row)
        return rows, hashes

    def _not_excluded(self) -> np.ndarray:
        """Return the rows that are not excluded and not the same picture as one that is."""
        excluded = np.zeros(len(self.images), dtype=bool)
        excluded[list(self._excluded_rows)] = True
        theirs = self._centered[excluded]
        for rows in np.array_split(np.flatnonzero(~excluded), max(1, len(excluded) // _CHUNK)):
            if len(theirs):
                excluded[rows] = (self._centered[rows] @ theirs.T).max(axis=1, initial=-1) >= _SAME
        return np.flatnonzero(~excluded)


def _invented_words() -> list[str]:
    """Return words of two to four syllables that no language has, always the same."""
    random = np.random.default_rng(0)
    consonants, vowels = list("bcdfghjklmnprstvwz"), list("aeiou")
    return [
        "".join(random.choice(consonants) + random.choice(vowels) for _ in range(random.integers(2, 5)))
        + str(random.choice(["", *"nrtls"]))
        for _ in range(_INVENTED_WORDS)
    ]
