"""Least-squares concept erasure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..data import NotDefinedError
from ..direction import LinearScore
from ..edit import register
from ..joint import covariance_of


@register("leace")
@dataclass
class LeastSquaresConceptErasure(LinearScore):
    """Least-squares concept erasure (LEACE): the smallest affine change after which no linear probe finds the concept.

    With m the mean and S the covariance of all training embeddings, b = cov(x, y) and a = S^-1 b / (b^T S^-1 b):

        score(x) = <x - (m+ + m-) / 2, a>, the linear discriminant
        remove(x) = x - <x - m, a> b
        add(x, amount) = x + amount (m+ - m-)

    On the training rows both class means are then equal, whatever S is, so any linear probe is at chance exactly.
    Probes that are not linear may still find the concept: `quadratic` stops more of them.
    (Belrose et al., "LEACE: perfect linear concept erasure in closed form", NeurIPS 2023, theorem 4.3 for one concept
    that is true or false. The authors' package also keeps the trace of the covariance from growing by default, which
    leaves traces of the concept; this does not.)

    Attributes:
        shrinkage: Whether to shrink S towards a multiple of the identity (`covariance_of`).
    """

    shrinkage: bool = True

    def _fit(self, X: np.ndarray, concept: np.ndarray, seed: int, others: np.ndarray) -> dict[str, np.ndarray]:
        mean, y = X.mean(axis=0), concept - concept.mean()
        toward = (X - mean).T @ y / (len(X) - 1)
        found = np.linalg.pinv(covariance_of(X, self.shrinkage), hermitian=True) @ toward
        if not (size := toward @ found) > 0:
            raise NotDefinedError("leace finds nothing to remove: both classes have the same mean")
        reader = found / size
        levels = np.stack([X[~concept].mean(axis=0), X[concept].mean(axis=0)])
        return {"reader": reader, "writer": toward, "center": mean @ reader, "levels": levels}

    def _reader(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        weights = self._get("reader", like)
        return weights, self._get("levels", like).mean(dim=0) @ weights

    def _remove(self, x: torch.Tensor) -> torch.Tensor:
        along = x @ self._get("reader", x) - self._get("center", x)
        return x - along[..., None] * self._get("writer", x)

    def _add(self, x: torch.Tensor, amount: float) -> torch.Tensor:
        without, with_concept = self._get("levels", x)
        return x + amount * (with_concept - without)
