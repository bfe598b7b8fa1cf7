"""Concepts from a vocabulary, for machines without a language model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch

from ..._utils.fingerprint import array_fingerprint
from ...concepts.vocabulary import Vocabulary
from ..words import WordEmbeds, clean_concept, form_of, same_words, unit_rows
from .base import Answer, Proposer, Request

_LENGTH_SCALE = 0.7
"""Of the kernel exp(-|x - y|^2 / 2 l^2). Centered embeddings of unrelated words are about sqrt(2) apart, where it is
0.13; at a cosine of 0.6 it is 0.44."""
_NOISE = 0.1
"""Variance of a score's noise, relative to that of all scores."""
_MERGED = 3
"""Number of concepts that are merged."""


class VocabularyProposer(Proposer):
    """Searches a vocabulary for words like those that scored well; **this is not a language model**.

    It proposes nothing that is not in the vocabulary, and it understands nothing: it knows only which words have
    similar embeddings.

    With embeddings, a Gaussian process with the kernel exp(-|x - y|^2 / 2 l^2) on centered unit embeddings predicts
    the score of every word from all earlier scores, those of concepts outside the vocabulary included. The proposal is
    the word with the largest upper confidence bound, mean + exploration * standard deviation (GP-UCB, arXiv
    0912.3995), in units of the standard deviation of the scores. A merger is the word nearest to the mean of the three
    best concepts, weighted by how far they are above the worst.

    Without embeddings, words are proposed in an order that only the seed decides.

    Args:
        vocabulary: The words. Those that are no concepts, such as numbers, are left out, as are those that differ
            from an earlier one only in case or number. A `Vocabulary` is embedded with its templates.
        word_embeds: Embeds texts, such as `Backbone.text_embeds` or what `load_word_embeds()` returns.
        exploration: How much more uncertain words are preferred.
        seed: Random seed of the order of words without embeddings, and among words that are equally good.

    Raises:
        ValueError: The vocabulary has no concepts, or exploration is negative.
    """

    is_language_model: ClassVar[bool] = False

    def __init__(
        self,
        vocabulary: Vocabulary | Sequence[str],
        word_embeds: WordEmbeds | None = None,
        *,
        exploration: float = 1.0,
        seed: int = 0,
    ) -> None:
        if not exploration >= 0:
            raise ValueError(f"exploration must not be negative, got {exploration!r}")
        self._templates = vocabulary.templates if isinstance(vocabulary, Vocabulary) else ("{}",)
        self._places: dict[str, int] = {}  # the form that is the same for "star" and "Stars" -> its place in words
        self.words: list[str] = []
        for word in Vocabulary(vocabulary):
            self._add(word)
        if not self.words:
            raise ValueError(f"none of the {len(vocabulary)} words of the vocabulary is a concept")
        self.word_embeds, self.exploration, self.seed = word_embeds, exploration, seed
        self._order = np.random.default_rng(seed).permutation(len(self.words))
        self._outside: dict[str, np.ndarray] = {}

    def _add(self, word: str) -> None:
        try:
            concept = clean_concept(word)
            form = same_words(concept)
        except ValueError:  # a number, or too long
            return
        if form and self._places.setdefault(form, len(self.words)) == len(self.words):
            self.words.append(concept)

    def __repr__(self) -> str:
        how = "by their embeddings" if self.word_embeds else "in random order"
        return f"VocabularyProposer({len(self.words)} words, {how}; not a language model)"

    @property
    def settings(self) -> dict[str, Any]:
        """The vocabulary, its embeddings and the way they are searched."""
        return {
            "proposer": type(self).__name__,
            "is_language_model": self.is_language_model,
            "words": len(self.words),
            "words_sha256": hashlib.sha256(json.dumps([self.words, self._templates]).encode()).hexdigest(),
            "embeds": self.word_embeds and array_fingerprint(self._embeds),
            "length_scale": _LENGTH_SCALE,
            "noise": _NOISE,
            "exploration": self.exploration,
            "seed": self.seed,
        }

    def propose(self, requests: Sequence[Request]) -> list[Answer]:
        """Answer each request by itself; the answer depends on nothing else."""
        return [self._propose(request) for request in requests]

    def first(self, number: int, seed: int = 0) -> list[str]:
        """Return words that are far apart (k-means++), or without embeddings the first of the order."""
        number = min(number, len(self.words))
        if self.word_embeds is None:
            return [self.words[place] for place in self._order[:number]]
        from sklearn.cluster import kmeans_plusplus

        _, places = kmeans_plusplus(self._embeds, number, random_state=seed)
        return [self.words[place] for place in dict.fromkeys(places)]

    def _propose(self, request: Request) -> Answer:
        open_places = self._open_places(request.avoid)
        if not len(open_places):
            return Answer(None, problem=f"all {len(self.words)} words of the vocabulary were tried")
        scores = {concept: score for concept, score in request.scores if np.isfinite(score)}
        if self.word_embeds is None or not scores:
            return Answer(self.words[open_places[0]])
        goodness = self._similarity_to_best(scores) if request.merge else self._upper_bounds(scores)
        # argmax takes the first of equals, in the order of the seed.
        return Answer(self.words[open_places[int(goodness[open_places].argmax())]])

    def _open_places(self, avoid: Sequence[str]) -> np.ndarray:
        is_open = np.ones(len(self.words), dtype=bool)
        for concept in avoid:
            place = self._places.get(form_of(concept))
            if place is not None:
                is_open[place] = False
        return self._order[is_open[self._order]]

    def _upper_bounds(self, scores: dict[str, float]) -> np.ndarray:
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import RBF

        values = np.fromiter(scores.values(), dtype=np.float64)
        spread = values.std() or 1.0
        process = GaussianProcessRegressor(RBF(_LENGTH_SCALE), alpha=_NOISE, optimizer=None)
        process.fit(self._rows(list(scores)), (values - values.mean()) / spread)
        mean, deviation = process.predict(self._embeds, return_std=True)
        return mean + self.exploration * deviation

    def _similarity_to_best(self, scores: dict[str, float]) -> np.ndarray:
        best = sorted(scores, key=lambda concept: -scores[concept])[:_MERGED]
        weights = np.array([scores[concept] for concept in best]) - min(scores.values())
        if not weights.any():
            weights[:] = 1
        return self._embeds @ (weights @ self._rows(best)).astype(np.float32)

    def _rows(self, concepts: list[str]) -> np.ndarray:
        forms = [form_of(concept) for concept in concepts]
        unknown = [
            concept
            for concept, form in zip(concepts, forms, strict=True)
            if form not in self._places and concept not in self._outside
        ]
        if unknown:
            self._outside.update(zip(unknown, self._centered(self._embedded(unknown)), strict=True))
        return np.stack(
            [
                self._embeds[self._places[form]] if form in self._places else self._outside[concept]
                for concept, form in zip(concepts, forms, strict=True)
            ]
        )

    @cached_property
    def _embeds(self) -> np.ndarray:
        """Embeddings of the vocabulary (n, d), centered and of unit length, float32."""
        return self._centered(self._raw_embeds)

    @cached_property
    def _raw_embeds(self) -> np.ndarray:
        return self._embedded(self.words)

    @cached_property
    def _center(self) -> np.ndarray:
        # Embeddings of texts share a direction: without centering, all words are alike. One word is its own center.
        return self._raw_embeds.mean(axis=0) * (len(self.words) > 1)

    def _centered(self, embeds: np.ndarray) -> np.ndarray:
        return unit_rows(embeds - self._center).astype(np.float32)

    def _embedded(self, words: list[str]) -> np.ndarray:
        prompts = Vocabulary(words, self._templates)
        embeds = prompts.embed(lambda texts: torch.from_numpy(unit_rows(self.word_embeds(texts))))
        if not torch.isfinite(embeds).all():
            row = int((~torch.isfinite(embeds).all(1)).nonzero()[0])
            raise ValueError(f"the embedding of {words[row]!r} is not finite")
        return unit_rows(embeds).astype(np.float32)
