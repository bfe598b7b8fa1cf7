"""The vocabulary's nearest word to a neuron's direction."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from ...._utils.tensors import as_tensor
from ....concepts import Vocabulary
from ..measures import checked_activations
from .base import Baseline, as_frame, check_width, unit_embeds


class VocabularyCosine(Baseline):
    """Labels by the word whose text embedding has the highest cosine with a direction of the embedding space.

    It needs neurons that have such a direction, such as rows of an MSAE's decoder, and looks at no image. (Rao et al.,
    "Discover-then-Name", ECCV 2024.)

    Args:
        vocabulary: The candidates.
        vocabulary_embeds: Text embeddings (len(vocabulary), d).
        directions: Direction of each neuron (n, d).
        center: Whether to subtract the mean of the words first, because directions are differences, while text
            embeddings share a large common part.

    Raises:
        ValueError: Embeddings or directions do not fit.
    """

    name: ClassVar[str] = "vocabulary_cosine"

    def __init__(
        self,
        vocabulary: Vocabulary,
        vocabulary_embeds: np.ndarray | torch.Tensor,
        directions: np.ndarray | torch.Tensor,
        center: bool = True,
    ) -> None:
        self.vocabulary = vocabulary
        words = as_tensor(vocabulary_embeds).detach().float().cpu()
        unit_embeds(words, "vocabulary_embeds", len(vocabulary.words))
        self.words = F.normalize(words - words.mean(dim=0) if center else words, dim=-1)
        self.directions = unit_embeds(directions, "directions")
        check_width(self.directions, self.words, "directions")

    def label(self, activations: np.ndarray) -> pd.DataFrame:
        """Label neurons, with the cosine as score; of the activations, only their number counts."""
        activations = checked_activations(activations)
        if activations.shape[1] != len(self.directions):
            raise ValueError(
                f"there are activations of {activations.shape[1]} neurons, but {len(self.directions)} directions"
            )
        best, word = (self.directions @ self.words.T).max(dim=1)
        return as_frame([self.vocabulary.words[place] for place in word.tolist()], best.numpy())
