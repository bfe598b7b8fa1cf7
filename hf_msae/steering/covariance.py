"""Covariances, shrunk towards a multiple of the identity."""

from __future__ import annotations

import numpy as np


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
