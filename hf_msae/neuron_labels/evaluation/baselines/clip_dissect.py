"""CLIP-Dissect: the word that the embeddings of a neuron's top images agree on."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import pandas as pd
import torch

from ....concepts import Vocabulary
from .base import Baseline, as_frame, check_width, matching_activations, unit_embeds

_FIRST_WEIGHT, _LAST_WEIGHT = 0.998, 0.97
_CHUNK_ENTRIES = 2**24


class ClipDissect(Baseline):
    """Labels by soft-WPMI (Oikarinen and Weng, "CLIP-Dissect", ICLR 2023, arXiv 2204.10965).

    With P(w | x) the softmax over words of `temperature` times the cosine of image x and word w, and weights p that
    fall from 0.998 to 0.97 over the images that activate neuron j most, word w has

        s_j(w) = sum over images of log(1 + p (P(w | x) - 1)),   score_j(w) = s_j(w) - log mean_j' exp s_j'(w)

    The second term is taken over the neurons that are labeled together, so a neuron's label depends on the others.
    This is the plain form of [`name_by_activations`], which gives latents of an MSAE the same labels, for neurons of
    any kind. Images where the activation is at its minimum do not count.

    Args:
        vocabulary: The candidates.
        vocabulary_embeds: Text embeddings (len(vocabulary), d).
        image_embeds: Embeddings of the images by the same model (N, d).
        num_images: Number of top images; 100 in CLIP-Dissect.
        temperature: Temperature of the softmax; 10 in CLIP-Dissect.

    Raises:
        ValueError: Embeddings do not fit, or an option is out of range.
    """

    name: ClassVar[str] = "clip_dissect"

    def __init__(
        self,
        vocabulary: Vocabulary,
        vocabulary_embeds: np.ndarray | torch.Tensor,
        image_embeds: np.ndarray | torch.Tensor,
        num_images: int = 100,
        temperature: float = 10.0,
    ) -> None:
        self.vocabulary = vocabulary
        self.words = unit_embeds(vocabulary_embeds, "vocabulary_embeds", len(vocabulary.words))
        self.images = unit_embeds(image_embeds, "image_embeds")
        check_width(self.images, self.words)
        if not 2 <= num_images <= len(self.images):
            raise ValueError(f"num_images must be between 2 and the {len(self.images)} images, got {num_images}")
        if temperature <= 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        self.num_images, self.temperature = num_images, temperature

    @torch.no_grad()
    def label(self, activations: np.ndarray) -> pd.DataFrame:
        """Label neurons, with the soft-WPMI as score."""
        activations = matching_activations(activations, len(self.images))
        alive = np.flatnonzero(np.ptp(activations, axis=0) > 0)
        labels, scores = [None] * activations.shape[1], np.full(activations.shape[1], np.nan)
        if len(alive):
            found = self._scores(activations[:, alive])
            found -= torch.logsumexp(found, dim=0) - math.log(len(alive))
            best, word = found.max(dim=1)
            scores[alive] = best.numpy()
            for neuron, place in zip(alive, word.tolist(), strict=True):
                labels[neuron] = self.vocabulary.words[place]
        return as_frame(labels, scores)

    def _scores(self, activations: np.ndarray) -> torch.Tensor:
        top = np.argsort(-activations, axis=0, kind="stable")[: self.num_images].T
        active = np.take_along_axis(activations.T, top, axis=1) > activations.min(axis=0)[:, None]
        weights = torch.linspace(_FIRST_WEIGHT, _LAST_WEIGHT, self.num_images) * torch.from_numpy(active)
        used, place = np.unique(top, return_inverse=True)
        place = torch.from_numpy(place.reshape(top.shape))
        images = self.temperature * self.images[used]
        total = torch.cat([(part @ self.words.T).logsumexp(dim=1) for part in images.split(1024)])
        scores = torch.empty(len(top), len(self.words))
        size = max(1, _CHUNK_ENTRIES // max(len(used), self.num_images))
        for first in range(0, len(self.words), size):
            likely = (images @ self.words[first : first + size].T - total[:, None]).exp()  # P(w | x)
            for neuron in range(len(top)):
                terms = torch.log1p(weights[neuron, :, None] * (likely[place[neuron]] - 1))
                scores[neuron, first : first + size] = terms.sum(dim=0)
        return scores
