"""What a concept does while other concepts and labels stay the same, and which rows have it."""

from __future__ import annotations

import numpy as np

from .covariance import covariance_of
from .data import NotDefinedError

_TINY = 1e-6  # what rounding leaves of a concept that follows from others, of its norm; a row of 10^9 leaves more


def regressors(concept: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the weights (K, n) that turn rows (n, d) into the effects of a concept and of the others.

    Effects are coefficients of the least-squares regression of the rows on all of them and a constant; the first is
    the concept's. Others may depend on each other, since that leaves the concept's effect what it is.
    """
    labels = np.column_stack([concept, others]).astype(np.float64)
    labels -= labels.mean(axis=0)
    follows = labels[:, 1:] @ np.linalg.lstsq(labels[:, 1:], labels[:, 0])[0]
    if np.linalg.norm(labels[:, 0] - follows) <= _TINY * np.linalg.norm(labels[:, 0]):
        raise NotDefinedError(f"the concept cannot be told from {_which(labels)}")
    return np.linalg.pinv(labels.T @ labels, hermitian=True) @ labels.T


def _which(labels: np.ndarray) -> str:
    """Name what the first column of centered labels is the same as, or the opposite of, up to rounding."""
    for number, other in enumerate(labels[:, 1:].T):
        for sign, name in ((1, ""), (-1, "the opposite of ")):
            if np.allclose(labels[:, 0], sign * other):
                return f"{name}others[:, {number}]: they hold in the same training rows"
    return "a sum of the other concepts, from which it follows in every training row"


def discriminant(X: np.ndarray, concept: np.ndarray, others: np.ndarray) -> dict[str, np.ndarray]:
    """Fit the linear discriminant of a concept, with the others held fixed.

    With a the concept's effect and S the covariance of what the regression on all concepts leaves, shrunk towards a
    multiple of the identity, the log-odds of the concept are <x, w> - threshold with w = S^-1 a. The threshold lies
    halfway between the classes' means of <x, w>, moved by the log-odds of the training rows.

    Returns:
        `effect` (d,), `detector` w (d,) and `threshold`.
    """
    effects = regressors(concept, others) @ X
    explained = np.column_stack([concept, others]) @ effects
    detector = np.linalg.solve(covariance_of(X - explained, shrinkage=True), effects[0])
    means = [(X[rows] @ detector).mean() for rows in (~concept, concept)]
    if not means[1] > means[0]:
        raise NotDefinedError("with the other concepts held fixed, nothing tells rows with this one apart")
    threshold = np.mean(means) - np.log(concept.sum() / (~concept).sum())
    return {"effect": effects[0], "detector": detector, "threshold": threshold}
