"""Hard negatives: control images that lack a label and are nearest to it, which CoSy compares its images with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..words import SYNONYM, WordEmbeds, form_of, unit_rows
from .cosy import CosyScore, cosy_score
from .measures import checked_presence


@dataclass(frozen=True)
class HardNegatives:
    """Control images for a label, the nearest to it first.

    Attributes:
        rows: Their numbers (n,).
        nearness: How near each one is to the label (n,).
        concepts: What each one shows that is near the label; "" if nearness was given for whole images.
    """

    rows: np.ndarray
    nearness: np.ndarray
    concepts: tuple[str, ...]

    def score(self, activations: np.ndarray, synthetic: np.ndarray, level: float = 0.95, seed: int = 0) -> CosyScore:
        """Score a label by CoSy with these images as controls.

        A neuron for horses that is labeled "zebra" tells images of zebras from most others, but not from horses.

        Args:
            activations: The neuron's activations on all images that `rows` counts (N,).
            synthetic: Its activations on images of the label (m,).
            level: Confidence level.
            seed: Random seed of the bootstrap.

        Raises:
            ValueError: There are fewer than 2 hard negatives.
        """
        return cosy_score(np.asarray(activations)[self.rows], synthetic, level=level, seed=seed)


def nearness_of_concepts(
    label: str, concepts: Sequence[str], word_embeds: WordEmbeds, synonym: float = SYNONYM
) -> np.ndarray:
    """Return the cosine of a label with each concept (n,); -1 for the label itself and its synonyms.

    Args:
        label: The label.
        concepts: Names of concepts.
        word_embeds: Embeds texts.
        synonym: Cosine from which on a concept means the same as the label, and is no negative.
    """
    rows = unit_rows(word_embeds([label, *concepts]))
    cosines = rows[1:] @ rows[0]
    same = np.array([form_of(concept) == form_of(label) for concept in concepts], dtype=bool)
    return np.where(same | (cosines >= synonym), -1.0, cosines)


def hard_negatives_by_concepts(
    has_label: np.ndarray, presence: np.ndarray, concepts: Sequence[str], nearness: np.ndarray, number: int = 100
) -> HardNegatives:
    """Choose images without the label that show the concepts nearest to it.

    Args:
        has_label: Which images show the label (N,), bool.
        presence: How much of each concept is in each image, between 0 and 1 (N, n).
        concepts: Names of the concepts (n,).
        nearness: How near each concept is to the label (n,), such as `nearness_of_concepts`; those that are not
            positive make no negatives.
        number: Number of images, at most.

    Raises:
        ValueError: Shapes differ, or no image without the label shows a concept that is near it.
    """
    presence, nearness = checked_presence(presence), np.asarray(nearness, dtype=np.float64)
    if presence.shape[1] != len(concepts) or nearness.shape != (len(concepts),):
        raise ValueError(
            f"there are {len(concepts)} concepts, but presence has shape {presence.shape}, and nearness "
            f"{nearness.shape}"
        )
    near = presence * np.maximum(nearness, 0)
    best = near.argmax(axis=1)
    chosen = hard_negatives_by_nearness(has_label, near[np.arange(len(near)), best], number)
    kept = chosen.nearness > 0
    if not kept.any():
        raise ValueError("no image without the label shows a concept that is near it; give other concepts or images")
    rows = chosen.rows[kept]
    return HardNegatives(rows, chosen.nearness[kept], tuple(concepts[place] for place in best[rows]))


def hard_negatives_by_nearness(has_label: np.ndarray, nearness: np.ndarray, number: int = 100) -> HardNegatives:
    """Choose the images without the label that are nearest to it.

    Args:
        has_label: Which images show the label (N,), bool.
        nearness: How near each image is to the label, e.g. the cosine of the embeddings of image and label (N,).
        number: Number of images, at most. Images that are equally near come in the order given.

    Raises:
        ValueError: Shapes differ, a value is not finite, or all images show the label.
    """
    has_label, nearness = np.asarray(has_label), np.asarray(nearness, dtype=np.float64)
    if has_label.dtype != bool or has_label.ndim != 1 or has_label.shape != nearness.shape:
        raise ValueError(
            f"expected booleans (N,) and nearness (N,), got {has_label.dtype} of shape {has_label.shape} and shape "
            f"{nearness.shape}"
        )
    if not np.isfinite(nearness).all():
        raise ValueError(f"nearness must be finite, got {nearness[~np.isfinite(nearness)][0]}")
    if number < 1:
        raise ValueError(f"number must be at least 1, got {number}")
    absent = np.flatnonzero(~has_label)
    if not len(absent):
        raise ValueError("every image shows the label, so there are no negatives")
    rows = absent[np.argsort(-nearness[absent], kind="stable")][:number]
    return HardNegatives(rows, nearness[rows], ("",) * len(rows))
