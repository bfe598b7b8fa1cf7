"""What pictures of concepts have in common, to tell wordings of one concept from different concepts."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from .control import Control
from .gallery import Gallery
from .neuron import Neuron
from .words import WordEmbeds, same_words, unit_rows

PictureEmbeds = Callable[[Sequence[Image.Image]], Any]
"""Turns RGB pictures into features (n, d), such as `Backbone.image_embeds`."""

_NEXT = itertools.count()
ALIKE = 0.5
"""Concepts of at least this likeness have one meaning."""
_SHARED_WORD = 0.3
_RELATED = 0.6  # cosine of word embeddings


class Looks:
    """Compares concepts by what the pictures of them show that activate a neuron, and by their words.

    Pictures are compared by features: those of `embedded`, or else the neuron's own, if they are more than one number,
    such as the embeddings that a latent of an MSAE reads. Without either, words have to do.

    Let x be the features of a concept's pictures minus the mean of the control pictures', w their weights, in
    proportion to how far they activate the neuron above the median of the control pictures, and m = sum_i w_i x_i. The
    likeness of two concepts is m.m' / sqrt(s s'), where s = (m.m - sum_i w_i^2 x_i.x_i) / (1 - sum_i w_i^2) estimates
    m.m without the noise of few pictures, but is taken to be at least half of it. To concepts that share a word, or
    whose word embeddings have a cosine of at least 0.6, 0.3 is added: "red star" and "red circle" look different, and
    can yet be wordings of what a neuron for red responds to. Concepts with a picture in common have the likeness 1.
    """

    def __init__(
        self,
        neuron: Neuron,
        gallery: Gallery,
        control: Control,
        embedded: Embedded | None = None,
        word_embeds: WordEmbeds | None = None,
    ) -> None:
        self.neuron, self.gallery, self.word_embeds = neuron, gallery, word_embeds
        self.source = embedded or neuron
        of_control = control.features(self.source)
        self._can_see = of_control.ndim == 2 and of_control.shape[1] > 1
        self._center = of_control.mean(axis=0, dtype=np.float64)
        self._median = float(np.median(control.activations(neuron)))

    def likeness(self, concepts: Sequence[str], images: Sequence[Sequence[str]]) -> np.ndarray:
        """Return the likeness of concepts (n, n), given the SHA-256 of pictures of each."""
        found = self._of_words(concepts)
        if self._can_see:
            seen = [self._direction(names) for names in images]
            means, norms = np.stack([mean for mean, _ in seen]), np.sqrt([norm for _, norm in seen])
            found = np.clip(means @ means.T / np.outer(norms, norms), -1, 1) + _SHARED_WORD * (found >= _RELATED)
        shared = [[not set(own).isdisjoint(others) for others in images] for own in images]
        return np.where(shared, 1.0, found)

    def _direction(self, names: Sequence[str]) -> tuple[np.ndarray, float]:
        weights = np.clip(self.gallery.activations(self.neuron, names) - self._median, 0, None)
        weights = weights / weights.sum() if weights.any() else np.full(len(names), 1 / len(names))
        rows = self.gallery.features(self.source, names).astype(np.float64) - self._center
        mean = weights @ rows
        noise = float((weights**2 * (rows**2).sum(axis=1)).sum())
        norm = (mean @ mean - noise) / max(1 - float((weights**2).sum()), 1e-9)
        return mean, max(norm, mean @ mean / 2, 1e-12)

    def _of_words(self, concepts: Sequence[str]) -> np.ndarray:
        """Return cosines of word embeddings (n, n), and 1 where a word is shared, unless embeddings decide alone."""
        words = [set(same_words(concept).split()) for concept in concepts]
        shared = np.array([[float(not own.isdisjoint(others)) for others in words] for own in words])
        if self.word_embeds is None:
            return shared
        units = unit_rows(self.word_embeds(concepts))
        cosines = units @ units.T
        if self._can_see:
            return np.maximum(shared, cosines)
        return cosines + ALIKE - _RELATED  # from a cosine of 0.6 on, words alone say that concepts are alike


class Embedded(Neuron):
    """Features of pictures by a function, so that the gallery and the control keep them."""

    key = name = "picture_embeds"

    def __init__(self, embeds: PictureEmbeds) -> None:
        self.embeds, self.source = embeds, f"{self.key} {next(_NEXT)}"

    def features(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Call the function."""
        found = self.embeds(list(images))
        found = np.asarray(found.detach().float().cpu() if hasattr(found, "detach") else found, dtype=np.float32)
        if found.shape[:1] != (len(images),) or found.ndim != 2 or not np.isfinite(found).all():
            raise ValueError(f"picture_embeds gave {found.shape} for {len(images)} pictures, or what is not finite")
        return found

    def read(self, features: np.ndarray) -> np.ndarray:
        """Raise TypeError."""
        raise TypeError("features of pictures are no activations")
