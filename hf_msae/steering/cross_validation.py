"""Hyper-parameters by cross-validation on the training rows alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.model_selection import GridSearchCV, train_test_split

from .data import NotDefinedError

MOST_ROWS = 5_000
"""Rows that hyper-parameters are chosen on, at most; the chosen model is fitted to all rows."""


def balanced_weights(concept: np.ndarray) -> np.ndarray:
    """Return weights that give both classes the same sum, at most 1."""
    counts = np.bincount(concept.astype(int), minlength=2)
    weights = 1 / counts[concept.astype(int)]
    return weights / weights.max()


def fit_best(
    estimator: BaseEstimator, grid: dict[str, Any], X: np.ndarray, y: np.ndarray, folds: int, seed: int
) -> BaseEstimator:
    """Fit an estimator with the best of some settings, both classes weighted alike.

    Settings are compared by the estimator's own score on `folds` folds.

    Raises:
        NotDefinedError: A class has fewer rows than there are folds.
    """
    concept = y > 0
    if (fewest := np.bincount(concept.astype(int), minlength=2).min()) < folds:
        raise NotDefinedError(f"one class has {fewest} rows, fewer than the {folds} folds of the cross-validation")
    weights, rows = balanced_weights(concept), np.arange(len(X))
    if len(X) > MOST_ROWS:
        rows, _ = train_test_split(rows, train_size=MOST_ROWS, stratify=concept, random_state=seed)
        if np.bincount(concept[rows].astype(int), minlength=2).min() < folds:
            raise NotDefinedError(f"a class has too few rows for {folds} folds among {MOST_ROWS}")
    search = GridSearchCV(estimator, grid, cv=folds, refit=False)
    search.fit(X[rows], y[rows], sample_weight=weights[rows])
    return estimator.set_params(**search.best_params_).fit(X, y, sample_weight=weights)
