"""The pattern, or signal, CAV."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..direction import Direction
from ..edit import register


@register("pattern")
@dataclass
class Pattern(Direction):
    """The pattern CAV, v = cov(X, y) / var(y): what the concept does to each coordinate, by regression of X on y.

    Unlike a classifier's weights, it does not bend away from what is correlated with the concept by chance. For a
    concept that is true or false, it is the difference of means. (Pahde et al., "Navigating neural space", ICLR 2025.)
    """

    def _direction(self, X: np.ndarray, concept: np.ndarray, seed: int, others: np.ndarray) -> np.ndarray:
        y = concept - concept.mean()
        return (X - X.mean(axis=0)).T @ y / (y @ y)
