"""Iterative null-space projection."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import StratifiedKFold

from ...statistics import auroc
from ..cross_validation import balanced_weights
from ..data import NotDefinedError
from ..direction import Subspace
from ..edit import register


@register("inlp")
@dataclass
class IterativeNullSpaceProjection(Subspace):
    """Iterative null-space projection (INLP): probe, project the probe's direction out, and probe again.

    Each probe is a ridge regression of the concept, both classes weighted alike, on what the earlier ones left. It
    stops before a probe whose AUROC on held-out folds of the training rows is at chance: at most 1/2 plus two standard
    errors of the Mann-Whitney statistic, sqrt((n + 1) / (12 n+ n-)). Rows are held out from all probes that led to the
    one they judge: each fold has a sequence of its own. The concept is removed more completely from rows that a probe
    was fitted to than from new ones. The first probe is always kept. (Ravfogel et al., "Null it out", ACL 2020.)

    Probes are computed from covariances, so a round makes no pass over rows except to score those held out.

    Attributes:
        rounds: Number of directions to project out, at most.
        folds: Folds of the cross-validation.
        ridge: Penalty of the probes, as a share of the mean variance of a coordinate.
    """

    rounds: int = 32
    folds: int = 5
    ridge: float = 1e-3

    def _basis(self, X: np.ndarray, concept: np.ndarray, seed: int) -> np.ndarray:
        if (fewest := min(concept.sum(), (~concept).sum())) < self.folds:
            raise NotDefinedError(
                f"one class has {fewest} rows, fewer than the {self.folds} folds of the cross-validation"
            )
        n, d = X.shape
        splitter = StratifiedKFold(self.folds, shuffle=True, random_state=seed)
        held_out = [rows for _, rows in splitter.split(X, concept)]
        sums = [_Moments.of(X[rows], concept[rows], balanced_weights(concept)[rows]) for rows in held_out]
        whole = sum(sums[1:], sums[0])
        chance = 0.5 + 2 * np.sqrt((n + 1) / (12 * concept.sum() * (~concept).sum()))
        basis = np.zeros((0, d))
        of_folds = [basis] * self.folds
        while len(basis) < min(self.rounds, d):
            of_folds = [
                _extended(of_fold, whole - own, self.ridge) for of_fold, own in zip(of_folds, sums, strict=True)
            ]
            extended = _extended(basis, whole, self.ridge)
            if not all(len(each) > len(basis) for each in (extended, *of_folds)):
                break
            scores = [X[rows] @ of_fold[-1] for rows, of_fold in zip(held_out, of_folds, strict=True)]
            area = np.mean([auroc(concept[rows], each) for rows, each in zip(held_out, scores, strict=True)])
            if len(basis) and area <= chance:
                break
            basis = extended
        if not len(basis):
            raise NotDefinedError("inlp finds no direction: it does not tell these rows apart")
        return basis


def _extended(basis: np.ndarray, moments: _Moments, ridge: float) -> np.ndarray:
    """Return the basis with the direction of one more probe, or as it is if there is none."""
    probe = moments.probe(basis, ridge)
    probe -= basis.T @ (basis @ probe)
    length = np.linalg.norm(probe)
    return np.concatenate([basis, probe[None] / length]) if length > 0 else basis


@dataclass(frozen=True)
class _Moments:
    weight: float
    x: np.ndarray
    xx: np.ndarray
    y: float
    xy: np.ndarray

    @classmethod
    def of(cls, X: np.ndarray, concept: np.ndarray, weights: np.ndarray) -> _Moments:
        y, weighted = np.where(concept, 1.0, -1.0), X * weights[:, None]
        return cls(weights.sum(), weighted.sum(axis=0), weighted.T @ X, weights @ y, weighted.T @ y)

    def __add__(self, other: _Moments) -> _Moments:
        return _Moments(*(mine + its for mine, its in zip(self._all(), other._all(), strict=True)))

    def __sub__(self, other: _Moments) -> _Moments:
        return _Moments(*(mine - its for mine, its in zip(self._all(), other._all(), strict=True)))

    def _all(self) -> tuple:
        return self.weight, self.x, self.xx, self.y, self.xy

    def probe(self, basis: np.ndarray, ridge: float) -> np.ndarray:
        """Return the weights (d,) of the ridge regression on rows without the subspace."""
        mean = self.x / self.weight
        covariance = self.xx / self.weight - np.outer(mean, mean)
        toward = self.xy / self.weight - mean * (self.y / self.weight)
        penalty = ridge * np.trace(covariance) / len(mean)
        covariance = covariance - basis.T @ (basis @ covariance)
        covariance = covariance - (covariance @ basis.T) @ basis
        covariance[np.diag_indices(len(mean))] += penalty
        return np.linalg.solve(covariance, toward - basis.T @ (basis @ toward))
