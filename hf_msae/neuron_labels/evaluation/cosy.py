"""CoSy: does a neuron respond more to images of its label than to others, or to hard negatives, nearest to it?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...statistics import Result, auroc_interval, resampled_means
from ...statistics.intervals import check_share
from ..words import SYNONYM, WordEmbeds, same_words, unit_rows
from .measures import checked_presence


@dataclass(frozen=True)
class CosyScore(Result):
    """How a neuron's activations on images of its label compare with those on control images.

    Attributes:
        auc: Probability that an image of the label activates the neuron more than a control image; ties count half.
        auc_low: Lower end of its confidence interval.
        auc_high: Upper end.
        mad: Difference of the means in standard deviations of the controls; 0 if the controls do not vary.
        mad_low: Lower end of its confidence interval.
        mad_high: Upper end.
        u: Mann and Whitney's U of the images of the label.
        p_value: Two-sided p-value of their test.
        num_control: Number of control images.
        num_synthetic: Number of images of the label.
    """

    auc: float
    auc_low: float
    auc_high: float
    mad: float
    mad_low: float
    mad_high: float
    u: float
    p_value: float
    num_control: int
    num_synthetic: int

    def verdict(self) -> str:
        """Say what was found."""
        return (
            f"AUC {self.auc:.3f} [{self.auc_low:.3f}, {self.auc_high:.3f}], "
            f"MAD {self.mad:.2f} [{self.mad_low:.2f}, {self.mad_high:.2f}], p = {self.p_value:.2g}, "
            f"from {self.num_synthetic:,} images of the label and {self.num_control:,} controls"
        )


def cosy_score(
    control: np.ndarray, synthetic: np.ndarray, level: float = 0.95, num_resamples: int = 1000, seed: int = 0
) -> CosyScore:
    """Score a label by the neuron's activations on control images and on images made for the label.

    With A0 the activations on control images and A1 those on images of the label, AUC is the area under the ROC curve
    of the scores [A0; A1] with the classes [0; 1], and

        MAD = (mean A1 - mean A0) / std A0,    with the unbiased std; 0 if std A0 = 0

    (Kopf et al., "CoSy: Evaluating Textual Explanations of Neurons", NeurIPS 2024, section 3.) CoSy takes 50 generated
    images and a whole validation set as controls, and LINE takes 5 and the images of one class. The interval of AUC is
    Newcombe's (`auroc_interval`), that of MAD is the percentile bootstrap over both sets of images. The test compares
    A1 with A0.

    Both scores fail the sanity tests of arXiv 2506.05774: a label that is much too narrow keeps them, since they never
    look at what else activates the neuron. See `measures` for those that pass.

    Args:
        control: Activations on control images (n,), at least 2.
        synthetic: Activations on images of the label (m,), at least 1. None of them may have chosen the label.
        level: Confidence level.
        num_resamples: Number of resamples of the bootstrap.
        seed: Random seed of the bootstrap.

    Raises:
        ValueError: There are too few activations, or one is not finite.
    """
    check_share("level", level)
    control, synthetic = _checked("control", control, 2), _checked("synthetic", synthetic, 1)
    from scipy import stats  # here, since it takes most of a second

    u, p_value = stats.mannwhitneyu(synthetic, control, alternative="two-sided")
    auc = float(u) / (len(control) * len(synthetic))
    auc_low, auc_high = auroc_interval(auc, len(synthetic), len(control), level)
    # Moments about the control's mean: squares of large activations would lose the variance.
    center = control.mean() if np.ptp(control) else control[0]  # so that equal values have no variance from rounding
    moments = resampled_means(np.stack([control - center, (control - center) ** 2], axis=1), num_resamples, seed)
    above = resampled_means((synthetic - center)[:, None], num_resamples, seed + 1)[:, 0]
    draws = _mad(above - moments[:, 0], moments[:, 1] - moments[:, 0] ** 2, len(control))
    mad = _mad(np.array([synthetic.mean() - center]), np.array([(control - center).var()]), len(control))[0]
    mad_low, mad_high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    figures = (auc, auc_low, auc_high, mad, mad_low, mad_high, u, 1.0 if np.isnan(p_value) else p_value)
    return CosyScore(*map(float, figures), num_control=len(control), num_synthetic=len(synthetic))


def _mad(difference: np.ndarray, variance: np.ndarray, n: int) -> np.ndarray:
    """Divide differences by the unbiased standard deviation of n values with these biased variances."""
    spread = np.sqrt(np.maximum(variance, 0) * n / (n - 1))
    return np.divide(difference, spread, out=np.zeros_like(difference), where=spread > 0)


def _checked(name: str, activations: np.ndarray, least: int) -> np.ndarray:
    activations = np.asarray(activations, dtype=np.float64)
    if activations.ndim != 1 or len(activations) < least:
        raise ValueError(f"{name} needs at least {least} activations (n,), got an array of shape {activations.shape}")
    if not np.isfinite(activations).all():
        raise ValueError(f"{name} holds {activations[~np.isfinite(activations)][0]}; activations must be finite")
    return activations


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
    same = np.array([same_words(concept) == same_words(label) for concept in concepts], dtype=bool)
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
