"""Class artifact compensation: to where rows without the concept, or with it, lie along a CAV."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from sklearn.svm import LinearSVC

from ..cross_validation import fit_best
from ..direction import Direction
from ..edit import register
from .classifiers import LinearSVM


@register("clarc")
@dataclass
class ClassArtifactCompensation(Direction):
    """P-ClArC and A-ClArC: move embeddings along the pattern CAV v to the mean of one class.

        remove(x) = x + (m- - <x, v>) v                  (P-ClArC)
        add(x, amount) = x + amount (m+ - <x, v>) v      (A-ClArC for an amount of 1)

    with m+ and m- the means of <x, v> over training rows with the concept and without it. So, unlike with `pattern`,
    all embeddings look like those without the concept after removal. (Anders et al., "Finding and removing Clever
    Hans", Information Fusion 2022; with the pattern CAV: Pahde et al., 2025.)
    """

    def _direction(self, X: np.ndarray, concept: np.ndarray, seed: int, others: np.ndarray) -> np.ndarray:
        return X[concept].mean(axis=0) - X[~concept].mean(axis=0)

    def _remove(self, x: torch.Tensor) -> torch.Tensor:
        return self._move_to(x, self._get("levels", x)[0])

    def _add(self, x: torch.Tensor, amount: float) -> torch.Tensor:
        return torch.lerp(x, self._move_to(x, self._get("levels", x)[1]), amount)


@register("reactive_clarc")
@dataclass
class ReactiveClassArtifactCompensation(ClassArtifactCompensation):
    """Reactive ClArC: as `clarc`, but only for embeddings that need it.

    A linear SVM, fitted to the training rows, decides: its decision value is the score. Removal changes embeddings
    where it is positive, and addition those where it is not; all others stay the same to the last bit.
    (Bareeva et al., "Reactive model correction", 2024.)

    Attributes:
        folds: Folds of the cross-validation that chooses the SVM's C.
    """

    shares_fits: ClassVar[str] = "svm"

    folds: int = 5

    def _fit(self, X: np.ndarray, concept: np.ndarray, seed: int, others: np.ndarray) -> dict[str, np.ndarray]:
        svm = fit_best(LinearSVC(random_state=seed), LinearSVM.grid, X, np.where(concept, 1.0, -1.0), self.folds, seed)
        found = {"detector": svm.coef_[0], "threshold": -svm.intercept_[0]}
        return {**super()._fit(X, concept, seed, others), **found}

    def _reader(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self._get("detector", like), self._get("threshold", like)

    def _remove(self, x: torch.Tensor) -> torch.Tensor:
        return torch.where((self._score(x) > 0)[..., None], super()._remove(x), x)

    def _add(self, x: torch.Tensor, amount: float) -> torch.Tensor:
        return torch.where((self._score(x) > 0)[..., None], x, super()._add(x, amount))
