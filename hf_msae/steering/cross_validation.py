"""Hyper-parameters by cross-validation on the training rows alone."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Lasso, Ridge, lasso_path
from sklearn.metrics import r2_score
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import LinearSVC

from .data import NotDefinedError, digest_of

MOST_ROWS = 2_000
"""Rows that hyper-parameters are chosen on, at most; the chosen model is fitted to all rows."""

_ENOUGH = 3  # settings in a row that score lower than the best: after them, none is tried any more
_MOST_KEPT = 1_000
_kept: dict[str, tuple[BaseEstimator, list[str]]] = {}  # the latest fits of this process, which methods share


def balanced_weights(concept: np.ndarray) -> np.ndarray:
    """Return weights that give both classes the same sum, at most 1."""
    counts = np.bincount(concept.astype(int), minlength=2)
    weights = 1 / counts[concept.astype(int)]
    return weights / weights.max()


def few_rows(concept: np.ndarray, number: int, seed: int) -> np.ndarray:
    """Draw at most `number` rows: all of the rarer class, up to half of them, and some of the other."""
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
    a large C they converge slowly, and the choice does not need it. Settings of classifiers are tried in their order,
    and no more of them once three in a row score lower than the best before them. The same fit is not made twice by a
    process. Scikit-learn's warning that a fit did not converge is shown for the chosen one alone, whoever made it.

    The estimator that is returned is not to be changed.
    """
    concept = y > 0
    if (fewest := np.bincount(concept.astype(int), minlength=2).min()) < folds:
        raise NotDefinedError(f"one class has {fewest} rows, fewer than the {folds} folds of the cross-validation")
    key = digest_of([type(estimator).__qualname__, estimator.get_params(), grid, folds, seed], X, y)
    if key not in _kept:
        weights, rows = balanced_weights(concept), few_rows(concept, MOST_ROWS, seed)
        rough = clone(estimator).set_params(tol=1e-2) if isinstance(estimator, LinearSVC) else estimator
        stratified = list(StratifiedKFold(folds).split(rows, concept[rows]))  # of regressors, sklearn takes others
        with noting_convergence():
            best = _best_setting(rough, grid, X[rows], y[rows], weights[rows], stratified)
        with noting_convergence() as stopped:
            estimator.set_params(**best).fit(X, y, sample_weight=weights)
        _kept[key] = estimator, [f"{type(estimator).__name__} with {best}: {each}" for each in stopped]
        if len(_kept) > _MOST_KEPT:
            del _kept[next(iter(_kept))]
    fitted, stopped = _kept[key]
    for each in stopped:
        warnings.warn(each, ConvergenceWarning, stacklevel=2)
    return fitted


def _best_setting(
    estimator: BaseEstimator, grid: dict[str, list], X: np.ndarray, y: np.ndarray, weights: np.ndarray, folds: list
) -> dict[str, Any]:
    """Return the value of a setting with the highest mean score on held-out rows; the first of several as high."""
    ((name, values),) = grid.items()
    parts = [[(X[rows], y[rows], weights[rows]) for rows in fold] for fold in folds]
    if isinstance(estimator, Ridge | Lasso):
        predictions = _ridge_predictions if isinstance(estimator, Ridge) else _lasso_predictions
        scores = []
        for fitted, (judged, truth, weight) in parts:
            found, truths = predictions(estimator, values, *fitted, judged), np.tile(truth[:, None], len(values))
            scores.append(r2_score(truths, found, sample_weight=weight, multioutput="raw_values"))
        return {name: values[int(np.mean(scores, axis=0).argmax())]}
    best, found, worse = -np.inf, values[0], 0
    for value in values:
        estimator = clone(estimator).set_params(**{name: value})
        score = np.mean([estimator.fit(*fitted).score(*judged) for fitted, judged in parts])
        if score > best:
            best, found, worse = score, value, 0
        elif score < best:
            worse += 1
            if worse == _ENOUGH:
                break
    return {name: found}


def _ridge_predictions(
    estimator: Ridge, alphas: list[float], X: np.ndarray, y: np.ndarray, weights: np.ndarray, judged: np.ndarray
) -> np.ndarray:
    """Return predictions (rows, alphas), of as many targets as there are alphas: all share one product of the rows."""
    targets = np.tile(y[:, None], len(alphas))
    return clone(estimator).set_params(alpha=alphas).fit(X, targets, sample_weight=weights).predict(judged)


def _lasso_predictions(
    estimator: Lasso, alphas: list[float], X: np.ndarray, y: np.ndarray, weights: np.ndarray, judged: np.ndarray
) -> np.ndarray:
    """Return predictions (rows, alphas), of one path: each fit starts from that with the next larger alpha."""
    center, level = np.average(X, axis=0, weights=weights), np.average(y, weights=weights)
    roots = np.sqrt(weights / weights.mean())
    X, y, settings = (X - center) * roots[:, None], (y - level) * roots, estimator.get_params()
    path, coefs, _ = lasso_path(X, y, alphas=alphas, **{name: settings[name] for name in ("tol", "max_iter")})
    return (judged - center) @ coefs[:, [path.tolist().index(alpha) for alpha in alphas]] + level
