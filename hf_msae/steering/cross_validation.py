"""Hyper-parameters by cross-validation on the training rows alone."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.svm import LinearSVC

from .data import NotDefinedError, digest_of

MOST_ROWS = 2_000
"""Rows that hyper-parameters are chosen on, at most; the chosen model is fitted to all rows."""

_MOST_KEPT = 1_000
_kept: dict[str, tuple[BaseEstimator, list[str]]] = {}  # the latest fits of this process, which methods share


def balanced_weights(concept: np.ndarray) -> np.ndarray:
    """Return weights that give both classes the same sum, at most 1."""
    counts = np.bincount(concept.astype(int), minlength=2)
    weights = 1 / counts[concept.astype(int)]
    return weights / weights.max()


def few_rows(concept: np.ndarray, number: int, seed: int) -> np.ndarray:
    """Draw at most `number` rows: all of the rarer class, up to half of them, and some of the other.

    Returns:
        The numbers of the rows, in order.
    """
    if len(concept) <= number:
        return np.arange(len(concept))
    rng = np.random.default_rng(seed)
    rare, common = sorted((np.flatnonzero(concept), np.flatnonzero(~concept)), key=len)
    rare = rng.permutation(rare)[: number // 2]
    return np.sort(np.concatenate([rare, rng.permutation(common)[: number - len(rare)]]))


@contextmanager
def noting_convergence() -> Iterator[list[str]]:
    """Collect the first lines of warnings that a fit did not converge, without showing them; others are shown."""
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        try:
            yield notes
        finally:
            noted = [each for each in caught if issubclass(each.category, ConvergenceWarning)]
            notes += [str(each.message).splitlines()[0] for each in noted]
    for each in caught:
        if each not in noted:
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)


def fit_best(
    estimator: BaseEstimator, grid: dict[str, Any], X: np.ndarray, y: np.ndarray, folds: int, seed: int
) -> BaseEstimator:
    """Fit an estimator with the best of some settings, both classes weighted alike.

    Settings are compared by the estimator's own score on `folds` folds, each with its share of both classes: in rows
    that are sorted by class, other folds would hold one class alone. SVMs are compared with a tolerance of 0.01: with
    a large C they converge slowly, and the choice does not need it. The same fit is not made twice by a process.
    Scikit-learn's warning that a fit did not converge is shown for the chosen one alone, whoever made it.

    Returns:
        The fitted estimator, which is not to be changed.

    Raises:
        NotDefinedError: A class has fewer rows than there are folds.
    """
    concept = y > 0
    if (fewest := np.bincount(concept.astype(int), minlength=2).min()) < folds:
        raise NotDefinedError(f"one class has {fewest} rows, fewer than the {folds} folds of the cross-validation")
    key = digest_of([type(estimator).__qualname__, estimator.get_params(), grid, folds, seed], X, y)
    if key not in _kept:
        weights, rows = balanced_weights(concept), few_rows(concept, MOST_ROWS, seed)
        rough = clone(estimator).set_params(tol=1e-2) if isinstance(estimator, LinearSVC) else estimator
        stratified = list(StratifiedKFold(folds).split(rows, concept[rows]))  # of regressors, sklearn takes others
        search = GridSearchCV(rough, grid, cv=stratified, refit=False)
        with noting_convergence():
            search.fit(X[rows], y[rows], sample_weight=weights[rows])
        with noting_convergence() as stopped:
            estimator.set_params(**search.best_params_).fit(X, y, sample_weight=weights)
        _kept[key] = estimator, [f"{type(estimator).__name__} with {search.best_params_}: {each}" for each in stopped]
        if len(_kept) > _MOST_KEPT:
            del _kept[next(iter(_kept))]
    fitted, stopped = _kept[key]
    for each in stopped:
        warnings.warn(each, ConvergenceWarning, stacklevel=2)
    return fitted
