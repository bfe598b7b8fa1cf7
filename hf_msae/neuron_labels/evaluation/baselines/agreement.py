"""Our own names: the word whose pictures a neuron's activations detect best."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from ....concepts import Vocabulary
from ....concepts.agreement import check_enough, choose_names
from ....concepts.moments import Moments
from ....concepts.zero_shot import RankedPictures
from .base import Baseline, as_frame, check_width, matching_activations, unit_embeds


class Agreement(Baseline):
    """Labels as [`name_by_agreement`] names latents of an MSAE, for neurons of any kind.

    The images are split at random into two halves. Labels are chosen on the first; the score is the zero-shot AUROC on
    the second. Unlike there, copies of an image may fall into both halves, so leave them out.

    Args:
        vocabulary: The candidates.
        vocabulary_embeds: Text embeddings (len(vocabulary), d).
        image_embeds: Embeddings of the images by the same model (N, d).
        seed: Random seed of the split.

    Raises:
        ValueError: Embeddings do not fit, or there are fewer than 20 images.
    """

    name: ClassVar[str] = "agreement"

    def __init__(
        self,
        vocabulary: Vocabulary,
        vocabulary_embeds: np.ndarray | torch.Tensor,
        image_embeds: np.ndarray | torch.Tensor,
        seed: int = 0,
    ) -> None:
        self.vocabulary = vocabulary
        self.words = unit_embeds(vocabulary_embeds, "vocabulary_embeds", len(vocabulary.words))
        self.images = unit_embeds(image_embeds, "image_embeds")
        check_width(self.images, self.words)
        check_enough(len(self.images), "image_embeds")
        order = np.random.default_rng(seed).permutation(len(self.images))
        self._choosing, self._testing = (np.sort(half) for half in np.array_split(order, 2))

    @torch.no_grad()
    def label(self, activations: np.ndarray) -> pd.DataFrame:
        """Label neurons, with the zero-shot AUROC on images that did not choose the label as score.

        Neurons whose activations do not vary on both halves, or agree with no word, have no label.
        """
        activations = matching_activations(activations, len(self.images))
        choosing, testing = activations[self._choosing], activations[self._testing]
        alive = (np.ptp(choosing, axis=0) > 0) & (np.ptp(testing, axis=0) > 0)
        labels, scores = [None] * len(alive), np.full(len(alive), np.nan)
        if alive.any():
            images = self.images[self._choosing]
            moments = Moments.of(torch.from_numpy(choosing[:, alive]), images)
            with tqdm(disable=True) as bar:
                found = choose_names(
                    moments, RankedPictures.of(choosing[:, alive], images), self.words, self.vocabulary, bar
                )
            pictures = RankedPictures.of(testing[:, alive], self.images[self._testing])
            areas = pictures.areas(self.words, torch.from_numpy(found["name"])[:, None])[0][:, 0]
            agrees = found["agreement"] > 0
            named = np.flatnonzero(alive)[agrees]
            scores[named] = areas.numpy()[agrees]
            for neuron, word in zip(named, found["name"][agrees], strict=True):
                labels[neuron] = self.vocabulary.words[word]
        return as_frame(labels, scores)
