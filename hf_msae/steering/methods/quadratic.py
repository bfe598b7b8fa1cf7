"""Quadratic concept erasure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.linalg import cho_solve, cholesky, eigh, solve_triangular
from sklearn.model_selection import StratifiedKFold

from ..data import NotDefinedError
from ..edit import Edit, register
from ..joint import covariance_from

POOLINGS = (0.0, 0.5, 0.9, 1.0)
"""What `pooling` is chosen from."""

_MOST_JUDGED = 400  # held-out rows of a fold: their loss takes as long as the rest


@register("quadratic")
@dataclass
class QuadraticErasure(Edit):
    """Quadratic concept erasure (Q-LEACE): both classes get the same mean and covariance, so quadratic probes fail.

    Rows of class c are moved by optimal transport between Gaussians to the barycenter of both classes,

        remove(x) = A_c (x - m_c) + m,  A_0 = p_0 I + p_1 T,  A_1 = p_1 I + p_0 T^-1
        T = S_0^-1/2 (S_0^1/2 S_1 S_0^1/2)^1/2 S_0^-1/2 = L^-T (L^T S_1 L)^1/2 L^-1,  S_0 = L L^T

    with the shares p, means m and covariances S of the classes. The class of a row has to be known, and for new
    embeddings it is not: it is predicted by the quadratic discriminant that was fitted to the training rows, whose
    log-odds are the score. So classes are equal to the extent that it is right. add(x, amount) = x + amount (m+ - m-).
    (Belrose et al., NeurIPS 2023, and the QuadraticEraser of their package, which is given the true classes and does
    not pool.)

    With few rows for each coordinate, the covariance of a class is mostly noise, and the discriminant is sure of its
    mistakes. Then S_c is replaced by (1 - g) S_c + g (p_0 S_0 + p_1 S_1), as in the regularized discriminant analysis
    of Friedman (1989). With g = 1 the discriminant is linear, and removal only equalizes the means of the classes.

    Attributes:
        shrinkage: Whether to shrink the covariances towards multiples of the identity (`covariance_of`). Without,
            each class needs more rows than the embeddings have coordinates, unless they are pooled.
        pooling: The share g of the pooled covariance. Defaults to the one of 0, 0.5, 0.9 and 1 whose discriminant has
            the lowest log loss in held-out folds of the training rows.
        folds: Folds of that cross-validation.
    """

    shrinkage: bool = True
    pooling: float | None = None
    folds: int = 5

    def __post_init__(self):
        if self.pooling is not None and not 0 <= self.pooling <= 1:
            raise ValueError(f"pooling must lie between 0 and 1, got {self.pooling}")

    def _fit(self, X: np.ndarray, concept: np.ndarray, seed: int, others: np.ndarray) -> dict[str, np.ndarray]:
        center = X.mean(axis=0)
        X, pooling = X - center, self.pooling
        if pooling is None:
            pooling, classes = self._best_pooling(X, concept, seed)
        else:
            classes = [_Rows.of(X[rows]) for rows in (~concept, concept)]
        discriminant = _Discriminant.of(classes, self.shrinkage).pooled(pooling)
        for rows, covariance in zip(classes, discriminant.covariances, strict=True):
            values = np.linalg.eigvalsh(covariance)
            if not values[0] > values[-1] * len(values) * np.finfo(np.float64).eps:
                raise NotDefinedError(
                    f"the covariance of one class ({rows.number} rows of width {X.shape[1]}) has no inverse: "
                    "use shrinkage=True or drop constant coordinates"
                )
        shares, (first, second) = discriminant.shares, discriminant.covariances
        identity, factors = np.eye(len(center)), [cholesky(each, lower=True) for each in (first, second)]
        map_, inverse = _transport(factors[0], second) if pooling < 1 else (identity, identity)
        precisions = [cho_solve((factor, True), identity) for factor in factors]
        toward = np.stack([precision @ mean for precision, mean in zip(precisions, discriminant.means, strict=True)])
        offsets = np.log(shares) - [np.log(np.diag(factor)).sum() for factor in factors]
        offsets -= (toward * discriminant.means).sum(axis=1) / 2
        return {
            "means": discriminant.means + center,
            "center": center,
            "maps": np.stack([shares[0] * identity + shares[1] * map_, shares[1] * identity + shares[0] * inverse]),
            "form": (precisions[0] - precisions[1]) / 2,
            "linear": toward[1] - toward[0],
            "constant": offsets[1] - offsets[0],
        }

    def _best_pooling(self, X: np.ndarray, concept: np.ndarray, seed: int) -> tuple[float, list[_Rows]]:
        if (fewest := min(concept.sum(), (~concept).sum())) < self.folds:
            raise NotDefinedError(
                f"one class has {fewest} rows, fewer than the {self.folds} folds of the cross-validation: set pooling"
            )
        losses, random = np.zeros(len(POOLINGS)), np.random.default_rng(seed)
        splitter = StratifiedKFold(self.folds, shuffle=True, random_state=seed)
        folds = [held_out for _, held_out in splitter.split(X, concept)]
        parts = [[_Rows.of(X[fold[has[fold]]]) for fold in folds] for has in (~concept, concept)]
        classes = [sum(rows[1:], rows[0]) for rows in parts]
        for held_out, *own in zip(folds, *parts, strict=True):
            left = [whole - part for whole, part in zip(classes, own, strict=True)]
            discriminant = _Discriminant.of(left, self.shrinkage)
            judged = random.permutation(held_out)[:_MOST_JUDGED]
            signs = np.where(concept[judged], 1, -1)
            for place, pooling in enumerate(POOLINGS):
                try:
                    odds = discriminant.pooled(pooling).log_odds(X[judged])
                except np.linalg.LinAlgError:  # a covariance without an inverse
                    losses[place] = np.inf
                else:
                    losses[place] += np.logaddexp(0, -signs * odds).mean()
        return POOLINGS[int(np.argmin(losses))], classes

    def _score(self, x: torch.Tensor) -> torch.Tensor:
        center, linear, form = (self._get(name, x) for name in ("center", "linear", "form"))
        score = x @ linear + (self._get("constant", x) - center @ linear)
        if form.any():  # it is 0 where the covariances are pooled entirely
            centered = x - center
            score = score + (centered @ form * centered).sum(dim=-1)
        return score

    def _remove(self, x: torch.Tensor) -> torch.Tensor:
        has, result = self._score(x) > 0, torch.empty_like(x)
        identity = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
        for rows, mean, map_ in zip((~has, has), self._get("means", x), self._get("maps", x), strict=True):
            moved = x[rows] - mean  # where the covariances are pooled entirely, maps do nothing
            result[rows] = (moved if torch.equal(map_, identity) else moved @ map_) + self._get("center", x)
        return result

    def _add(self, x: torch.Tensor, amount: float) -> torch.Tensor:
        without, with_concept = self._get("means", x)
        return x + amount * (with_concept - without)


@dataclass(frozen=True)
class _Rows:
    """What a mean and a covariance follow from: the number of rows, their sum and the sum of their products."""

    number: int
    sum: np.ndarray
    products: np.ndarray

    @classmethod
    def of(cls, X: np.ndarray) -> _Rows:
        return cls(len(X), X.sum(axis=0), X.T @ X)

    def __add__(self, other: _Rows) -> _Rows:
        return _Rows(self.number + other.number, self.sum + other.sum, self.products + other.products)

    def __sub__(self, other: _Rows) -> _Rows:
        return _Rows(self.number - other.number, self.sum - other.sum, self.products - other.products)

    @property
    def mean(self) -> np.ndarray:
        return self.sum / self.number

    def covariance(self, shrinkage: bool) -> np.ndarray:
        return covariance_from(self.products - np.outer(self.sum, self.mean), self.number, shrinkage)


@dataclass(frozen=True)
class _Discriminant:
    shares: np.ndarray
    means: np.ndarray
    covariances: list[np.ndarray]

    @classmethod
    def of(cls, classes: Sequence[_Rows], shrinkage: bool) -> _Discriminant:
        shares = np.array([rows.number for rows in classes]) / sum(rows.number for rows in classes)
        return cls(shares, np.stack([rows.mean for rows in classes]), [rows.covariance(shrinkage) for rows in classes])

    def pooled(self, pooling: float) -> _Discriminant:
        """Replace a share of both covariances by their mean."""
        both = self.shares[0] * self.covariances[0] + self.shares[1] * self.covariances[1]
        covariances = [(1 - pooling) * covariance + pooling * both for covariance in self.covariances]
        return replace(self, covariances=covariances)

    def log_odds(self, X: np.ndarray) -> np.ndarray:
        """Return the log-odds of the second class. Raises LinAlgError if a covariance has no inverse."""
        found = []
        for share, mean, covariance in zip(self.shares, self.means, self.covariances, strict=True):
            root = cholesky(covariance, lower=True)
            distances = (solve_triangular(root, (X - mean).T, lower=True) ** 2).sum(axis=0)
            found.append(np.log(share) - np.log(np.diag(root)).sum() - distances / 2)
        return found[1] - found[0]


def _transport(factor: np.ndarray, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return T, which takes a Gaussian to one with another covariance, and its inverse; `factor` is L of the first."""
    values, vectors = eigh(factor.T @ covariance @ factor)
    roots = np.sqrt(np.maximum(values, values[-1] * len(values) * np.finfo(values.dtype).eps))
    outer, inner = solve_triangular(factor, vectors, lower=True, trans="T"), factor @ vectors
    return (outer * roots) @ outer.T, (inner / roots) @ inner.T
