"""CoSy: does a neuron respond more to images of its label than to others?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...statistics import Result, auroc_interval, resampled_means
from ...statistics.intervals import check_share


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
