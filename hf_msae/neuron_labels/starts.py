"""Concepts to start a search from: what the control pictures already say."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..concepts.vocabulary import Vocabulary
from .control import Control
from .neuron import Neuron
from .words import concepts_among, unit_rows

if TYPE_CHECKING:
    from ..backbones import Backbone

_BATCH = 64  # pictures that are decoded at a time


class ZeroShotStart:
    """Starts from the words whose zero-shot scores correlate most with a neuron's activations on control pictures.

    The search then looks for something better, which need not be in the vocabulary. Any backbone with a text tower
    does, whatever network the neuron belongs to. Only the search's half of the control pictures is used.

    Args:
        control: The control pictures of the search.
        backbone: Embeds control pictures and words.
        vocabulary: The words. Those that are no concepts, such as numbers, are left out.
        number: Number of words.
    """

    def __init__(
        self, control: Control, backbone: Backbone, vocabulary: Vocabulary | Sequence[str], number: int = 5
    ) -> None:
        self.control, self.backbone, self.number = control, backbone, number
        templates = vocabulary.templates if isinstance(vocabulary, Vocabulary) else ("{}",)
        self.words = concepts_among(vocabulary)
        self._vocabulary = Vocabulary(self.words, templates)

    def __call__(self, neuron: Neuron) -> list[str]:
        """Return the words for a neuron, best first."""
        rows = self.control.search_rows
        activations = self.control.activations(neuron)[rows]
        centered = activations - activations.mean()
        scores = self._scores[rows] - self._scores[rows].mean(axis=0)
        norms = np.linalg.norm(scores, axis=0)
        correlations = centered @ scores / np.where(norms > 0, norms, np.inf)
        return [self.words[place] for place in np.argsort(-correlations, kind="stable")[: self.number]]

    @cached_property
    def _scores(self) -> np.ndarray:
        number = len(self.control)
        images = [
            self.backbone.read("image_embeds", [self.control.picture(row) for row in rows])
            for rows in np.array_split(np.arange(number), -(-number // _BATCH))
        ]
        return unit_rows(torch.cat(images)) @ unit_rows(self._vocabulary.embed(self.backbone)).T


def best_classes(control: Control, neuron: Neuron, number: int = 5) -> list[str]:
    """Return the classes of control pictures whose search half has the highest mean activation; none without any."""
    activations, classes = control.activations(neuron), control.search_classes
    order = sorted(classes, key=lambda name: -activations[classes[name]].mean())
    return concepts_among(order[:number])
