"""The difference of means, and of medians."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..direction import Direction
from ..edit import register


@register("mean_difference")
@dataclass
class MeanDifference(Direction):
    """The difference of class means, v = mean(X | concept) - mean(X | no concept).

    FastCAV's mean(X | concept) - mean(X) is the same direction. (Also DiffMean in AxBench, Wu et al., ICML 2025;
    FastCAV: Schmalwasser et al., ICML 2025.)
    """

    def _direction(self, X: np.ndarray, concept: np.ndarray, seed: int, others: np.ndarray) -> np.ndarray:
        return X[concept].mean(axis=0) - X[~concept].mean(axis=0)


@register("median_difference")
@dataclass
class MedianDifference(Direction):
    """The difference of class medians, coordinate by coordinate. It resists outliers."""

    def _direction(self, X: np.ndarray, concept: np.ndarray, seed: int, others: np.ndarray) -> np.ndarray:
        return np.median(X[concept], axis=0) - np.median(X[~concept], axis=0)
