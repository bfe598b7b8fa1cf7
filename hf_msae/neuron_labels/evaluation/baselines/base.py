"""What all baselines have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from ...._utils.tensors import as_tensor
from ..measures import checked_activations


class Baseline(ABC):
    """A method that labels neurons, given their activations on images that it knows.

    Attributes:
        name: Name in tables.
    """

    name: ClassVar[str]

    @abstractmethod
    def label(self, activations: np.ndarray) -> pd.DataFrame:
        """Label neurons.

        Args:
            activations: Activations of n neurons on the images (N, n).

        Returns:
            One row per neuron: neuron, label (None if it gets none) and score, whose meaning is the method's.

        Raises:
            ValueError: The activations are of other images, or not finite.
        """

    def __call__(self, activations: np.ndarray) -> pd.DataFrame:
        """Label neurons; see `label`."""
        return self.label(activations)


def unit_embeds(embeddings: np.ndarray | torch.Tensor, name: str, rows: int | None = None) -> torch.Tensor:
    """Return embeddings (n, d) as float32 of unit length."""
    values = as_tensor(embeddings).detach().float().cpu()
    if values.ndim != 2 or (rows is not None and len(values) != rows):
        wanted = "(n, d)" if rows is None else f"({rows}, d)"
        raise ValueError(f"{name} must have shape {wanted}, got {tuple(values.shape)}")
    if not values.isfinite().all():
        raise ValueError(f"{name} holds a value that is not finite")
    return F.normalize(values, dim=-1)


def check_width(images: torch.Tensor, words: torch.Tensor, name: str = "image_embeds") -> None:
    """Raise ValueError unless embeddings are as wide as those of the vocabulary."""
    if images.shape[1] != words.shape[1]:
        raise ValueError(f"{name} have {images.shape[1]} columns, but vocabulary_embeds {words.shape[1]}")


def matching_activations(activations: np.ndarray, images: int) -> np.ndarray:
    """Return activations of this number of images as float64 (N, n)."""
    activations = checked_activations(activations)
    if len(activations) != images:
        raise ValueError(f"there are activations of {len(activations)} images, but the baseline has {images}")
    return activations


def as_frame(labels: Sequence[str | None], scores: np.ndarray) -> pd.DataFrame:
    """Build the table that `Baseline.label` returns."""
    labels = pd.Series(list(labels), dtype=object)
    return pd.DataFrame({"neuron": np.arange(len(labels)), "label": labels, "score": np.asarray(scores, dtype=float)})
