"""How much more a neuron responds to pictures of a concept than to control pictures."""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy import stats

from ..statistics import auroc_interval, bootstrap_interval
from .evaluation.cosy import cosy_score

Metric = Literal["auc", "mad", "mean"]
METRICS: tuple[Metric, ...] = ("auc", "mad", "mean")
_RESTING, _TWO_KINDS, _MOST_SHOWN, _MOST_RATE = 0.1, 0.8, 0.75, 0.75


def score(metric: Metric, shown: np.ndarray, control: np.ndarray) -> float:
    """Score the activations of a concept's pictures against those of control pictures.

    - "auc": the probability that a picture of the concept activates the neuron more than a control picture, ties
      counting half.
    - "mad": (mean of the concept's - mean of the control's) / standard deviation of the control's; 0 where that is 0.
    - "mean": the mean of the concept's.

    (Kopf et al., "CoSy: Evaluating Textual Explanations of Neurons", NeurIPS 2024; LINE, arXiv 2604.08039.)
    """
    if metric == "auc":
        ordered = np.sort(control)  # scipy's test takes far longer
        return float(
            (np.searchsorted(ordered, shown) + np.searchsorted(ordered, shown, "right")).mean() / 2 / len(ordered)
        )
    if metric == "mad":
        # Not the deviation: rounding gives that of equal values a tiny one.
        return float((shown.mean() - control.mean()) / control.std(ddof=1)) if np.ptp(control) > 0 else 0.0
    return float(shown.mean())


def score_interval(metric: Metric, shown: np.ndarray, control: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Compute the 95% confidence interval of a score; NaN where there are fewer than two pictures of the concept.

    That of "auc" is Newcombe's, and those of the others are bootstraps, of "mad" over both sets of pictures.
    """
    if len(shown) < 2:
        return np.nan, np.nan
    if metric == "auc":
        low, high = auroc_interval(score("auc", shown, control), len(shown), len(control))
    elif metric == "mad":
        found = cosy_score(control, shown, seed=seed)
        low, high = found.mad_low, found.mad_high
    else:
        low, high = bootstrap_interval(shown, seed=seed)
    return float(low), float(high)


def p_value(shown: np.ndarray, control: np.ndarray) -> float:
    """Test whether the concept's pictures activate the neuron more than control pictures (Mann-Whitney, one-sided)."""
    return float(stats.mannwhitneyu(shown, control, alternative="greater").pvalue)


def activation_rate(control: np.ndarray, shown: np.ndarray) -> float:
    """Estimate which share of control pictures activates a neuron as pictures of a concept do, at most 3/4.

    They cap the AUC of the concept, be it right or not: pictures that activate the neuron alike tie. There have to be
    two kinds of control pictures, those that activate the neuron and those that do not, or the rate is 0: a tenth and
    more have the least activation, as those of sparse latents, or Otsu's threshold, which divides activations so that
    the variance between the parts is largest, explains at least 0.8 of the variance (of normal noise, it explains
    0.64, and of uniform noise 0.75). And since p of the control pictures being of the concept means that at least
    0.75 p of them have the activation that 0.75 of its pictures have, p is at most that share / 0.75.
    """
    values, n = np.sort(control), len(control)
    resting = int(np.searchsorted(values, values[0], side="right"))
    if resting < _RESTING * n:
        low = np.arange(1, n)
        between = (np.cumsum(values)[:-1] - low * values.mean()) ** 2 / (low * (n - low))
        between[np.diff(values) == 0] = 0
        if between.max() < _TWO_KINDS * values.var():
            return 0.0
        resting = int(between.argmax()) + 1
    as_active = (control >= np.quantile(shown, 1 - _MOST_SHOWN)).mean() / _MOST_SHOWN
    return float(min(1 - resting / n, as_active, _MOST_RATE))


def reach(auc: float, rate: float, shown: int, control: int) -> tuple[float, float]:
    """Return the lower end of the 95% interval of a concept's AUC, and the limit from which on it is confirmed.

    If a share q of the control pictures activates the neuron as the concept does, a perfect concept has the AUC
    c = 1 - q / 2, not 1, so Newcombe's interval is that of AUC / c, times c. The limit is 0.5 + 0.3 (1 - q): three
    fifths of the way from chance to c, which is 0.8 where nothing else activates the neuron. Of a neuron that is
    active or not, the AUC is 0.5 + (h - q) / 2, where h is the share of the concept's pictures that activate it; the
    limit then asks that (h - q) / (1 - q), the hits beyond chance, are at least 0.6.
    """
    perfect = 1 - rate / 2
    return float(auroc_interval(min(auc / perfect, 1.0), shown, control)[0]) * perfect, 0.5 + 0.3 * (1 - rate)
