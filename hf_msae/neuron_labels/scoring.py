"""How much more a neuron responds to pictures of a concept than to control pictures."""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy import stats

from ..statistics import auroc_interval, bootstrap_interval

Metric = Literal["auc", "mad", "mean"]
METRICS: tuple[Metric, ...] = ("auc", "mad", "mean")


def score(metric: Metric, shown: np.ndarray, control: np.ndarray) -> float:
    """Score the activations of a concept's pictures against those of control pictures.

    - "auc": the probability that a picture of the concept activates the neuron more than a control picture, ties
      counting half.
    - "mad": (mean of the concept's - mean of the control's) / standard deviation of the control's; 0 where that is 0.
    - "mean": the mean of the concept's.

    (Kopf et al., "CoSy: Evaluating Textual Explanations of Neurons", NeurIPS 2024; LINE, arXiv 2604.08039.)

    Args:
        metric: "auc", "mad" or "mean".
        shown: Activations of the concept's pictures (n,).
        control: Activations of control pictures (m,), at least 2.
    """
    if metric == "auc":
        return float(stats.mannwhitneyu(shown, control).statistic / (len(shown) * len(control)))
    if metric == "mad":
        # Not the deviation: rounding gives that of equal values a tiny one.
        return float((shown.mean() - control.mean()) / control.std(ddof=1)) if np.ptp(control) > 0 else 0.0
    return float(shown.mean())


def interval(metric: Metric, shown: np.ndarray, control: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Compute the 95% confidence interval of a score; NaN where there are fewer than two pictures of the concept.

    That of "auc" is Newcombe's. Those of the others resample the concept's pictures, since control pictures are many.
    """
    if len(shown) < 2:
        return np.nan, np.nan
    if metric == "auc":
        ends = auroc_interval(score("auc", shown, control), len(shown), len(control))
        return float(ends[0]), float(ends[1])
    low, high = bootstrap_interval(shown, seed=seed)
    if metric == "mad":
        if not np.ptp(control) > 0:
            return 0.0, 0.0
        low, high = ((end - control.mean()) / control.std(ddof=1) for end in (low, high))
    return float(low), float(high)


def p_value(shown: np.ndarray, control: np.ndarray) -> float:
    """Test whether the concept's pictures activate the neuron more than control pictures (Mann-Whitney, one-sided)."""
    return float(stats.mannwhitneyu(shown, control, alternative="greater").pvalue)


def check_metric(metric: str) -> None:
    """Raise ValueError unless this is a metric."""
    if metric not in METRICS:
        raise ValueError(f"there is no metric {metric!r}; the metrics are {', '.join(METRICS)}")
