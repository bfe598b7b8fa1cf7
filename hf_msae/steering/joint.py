"""Shrunk covariances, and what a concept does while other concepts and labels stay the same."""

from __future__ import annotations

import numpy as np

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


def covariance_of(X: np.ndarray, shrinkage: bool) -> np.ndarray:
    """Return the covariance (d, d) of rows (n, d).

    With shrinkage it is a S + b (tr S / d) I, with S the maximum-likelihood covariance and a and b optimal in the
    Frobenius norm as n and d grow together:

        a = 1 - |tr S|^2 |T|^2 / n / (|S|^2 |T|^2 - (tr S T)^2),  b = 1 - a,  T = (tr S / d) I

    (Bodnar, Gupta and Parolya, "On the strong convergence of the optimal linear shrinkage estimator for large
    dimensional covariance matrix", Journal of Multivariate Analysis 2014.) Without, it has the factor 1 / (n - 1).
    """
    centered = X - X.mean(axis=0)
    return covariance_from(centered.T @ centered, len(X), shrinkage)


def covariance_from(scatter: np.ndarray, n: int, shrinkage: bool) -> np.ndarray:
    """Return what `covariance_of` returns, from the sum (d, d) of the products of n centered rows."""
    d = len(scatter)
    if not shrinkage:
        return scatter / (n - 1)
    sample = scatter / n
    mean_variance = np.trace(sample) / d
    # With T as above, |T|^2 = d v^2 and tr S T = d v^2, v the mean variance: both sides are divided by d v^2.
    spread = (sample**2).sum() - d * mean_variance**2
    kept = 1 - (d * mean_variance) ** 2 / n / spread if spread > 0 else 0.0
    kept = np.clip(kept, 0, 1)
    return kept * sample + (1 - kept) * mean_variance * np.eye(d)
