"""The pattern of many concepts at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..direction import Direction
from ..edit import register


@register("joint_pattern")
@dataclass
class JointPattern(Direction):
    """The multi-concept pattern: what this concept does to each coordinate while all other concepts stay the same.

    With Y the concepts (n, K) and both sides centered, W = pinv(Y^T Y) Y^T X is the regression of X on all concepts,
    and v the row of this one. Unlike `pattern`, it does not take in concepts that occur together with this one. It
    needs the other concepts: `fit(X, concept, others=...)`; without any, it is `pattern`.
    """

    def _direction(self, X: np.ndarray, concept: np.ndarray, seed: int, others: np.ndarray) -> np.ndarray:
        labels = np.column_stack([concept, others]).astype(np.float64)
        labels -= labels.mean(axis=0)
        patterns = np.linalg.pinv(labels.T @ labels, hermitian=True) @ labels.T @ (X - X.mean(axis=0))
        return patterns[0]
