"""CAVs that are the weights of linear models, fitted by scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Lasso, LogisticRegression, Ridge
from sklearn.svm import LinearSVC

from ..cross_validation import fit_best
from ..direction import Direction
from ..edit import register

_EXPONENTS = range(-5, 5)


@dataclass
class _Linear(Direction):
    """The weights of a linear model, both classes weighted alike, as regularized as folds of the rows choose."""

    folds: int = 5

    grid: ClassVar[dict[str, Any]] = {"C": [10.0**i for i in _EXPONENTS]}

    def _direction(self, X: np.ndarray, concept: np.ndarray, seed: int, others: np.ndarray) -> np.ndarray:
        y = np.where(concept, 1.0, -1.0)
        return fit_best(self._estimator(seed), self.grid, X, y, self.folds, seed).coef_

    def _estimator(self, seed: int) -> BaseEstimator:
        raise NotImplementedError


@register("svm")
@dataclass
class LinearSVM(_Linear):
    """The weights of a linear support vector machine (squared hinge loss), C from 10^-5 to 10^4."""

    shares_fits: ClassVar[str] = "svm"

    def _estimator(self, seed: int) -> BaseEstimator:
        return LinearSVC(random_state=seed)


@register("logistic")
@dataclass
class Logistic(_Linear):
    """The weights of a logistic regression, C from 10^-5 to 10^4."""

    def _estimator(self, seed: int) -> BaseEstimator:
        return LogisticRegression(max_iter=1000)


@register("ridge")
@dataclass
class RidgeRegression(_Linear):
    """The weights of a ridge regression of -1 and 1, alpha from 10^-5 to 10^4."""

    grid: ClassVar[dict[str, Any]] = {"alpha": [10.0**i for i in _EXPONENTS]}

    def _estimator(self, seed: int) -> BaseEstimator:
        return Ridge()


@register("lasso")
@dataclass
class LassoRegression(_Linear):
    """The weights of a lasso regression of -1 and 1, alpha from 10^-5 to 1; few of them are not zero."""

    grid: ClassVar[dict[str, Any]] = {"alpha": [10.0**i for i in range(-5, 1)]}

    def _estimator(self, seed: int) -> BaseEstimator:
        return Lasso()


@register("lda")
@dataclass
class LinearDiscriminant(Direction):
    """Linear discriminant analysis, v = S^-1 (m+ - m-), with the within-class covariance shrunk by Ledoit and Wolf."""

    def _direction(self, X: np.ndarray, concept: np.ndarray, seed: int, others: np.ndarray) -> np.ndarray:
        return LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(X, concept).coef_
