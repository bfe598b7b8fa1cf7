"""What a concept does while other concepts and labels stay the same, and which rows have it."""

from __future__ import annotations

import numpy as np

from .covariance import covariance_of
from .data import NotDefinedError


def regressors(concept: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the weights (K, n) that turn rows (n, d) into the effects of a concept and of the others.

    Effects are coefficients of the least-squares regression of the rows on all of them and a constant; the first is
    the concept's.
    """
    labels = np.column_stack([concept, others]).astype(np.float64)
    labels -= labels.mean(axis=0)
    return np.linalg.pinv(labels.T @ labels, hermitian=True) @ labels.T


def discriminant(X: np.ndarray, concept: np.ndarray, others: np.ndarray) -> dict[str, np.ndarray]:
    """Fit the linear discriminant of a concept, with the others held fixed.

    With a the concept's effect and S the covariance of what the regression on all concepts leaves, shrunk towards a
    multiple of the identity, the log-odds of the concept are <x, w> - threshold with w = S^-1 a. The threshold lies
    halfway between the classes' means of <x, w>, moved by the log-odds of the training rows.

    Returns:
        `effect` (d,), `detector` w (d,) and `threshold`.

    Raises:
        NotDefinedError: The concept has no effect once the others are held fixed.
    """
    effects = regressors(concept, others) @ X
    explained = np.column_stack([concept, others]) @ effects
    detector = np.linalg.solve(covariance_of(X - explained, shrinkage=True), effects[0])
    means = [(X[rows] @ detector).mean() for rows in (~concept, concept)]
    if not means[1] > means[0]:
        raise NotDefinedError("with the other concepts held fixed, nothing tells rows with this one apart")
    threshold = np.mean(means) - np.log(concept.sum() / (~concept).sum())
    return {"effect": effects[0], "detector": detector, "threshold": threshold}
