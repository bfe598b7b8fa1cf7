"""Steering in a subspace: the base of methods that find several directions of one concept."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
import torch

from .linear_score import LinearScore


class Subspace(LinearScore):
    """An edit in the subspace that the orthonormal rows of B (r, d) span.

    With m the mean of all training embeddings, m+ and m- those with the concept and without it, and u the unit vector
    along the linear discriminant inside the subspace, (B S B^T)^-1 B (m+ - m-) with S the covariance within classes:

        score(x) = <B (x - (m+ + m-) / 2), u>
        remove(x) = x - B^T B (x - m)
        add(x, amount) = x + amount B^T B (m+ - m-)
    """

    def _fit(self, X: np.ndarray, concept: np.ndarray, seed: int, others: np.ndarray) -> dict[str, np.ndarray]:
        basis = self._basis(X, concept, seed)
        inside = X @ basis.T
        without, with_concept = inside[~concept].mean(axis=0), inside[concept].mean(axis=0)
        within = inside - np.where(concept[:, None], with_concept, without)
        weights = np.linalg.pinv(within.T @ within / len(X), hermitian=True) @ (with_concept - without)
        return {
            "basis": basis,
            "center": inside.mean(axis=0),
            "levels": np.stack([without, with_concept]),
            "weights": weights / np.linalg.norm(weights),
        }

    @abstractmethod
    def _basis(self, X: np.ndarray, concept: np.ndarray, seed: int) -> np.ndarray:
        """Return orthonormal rows (r, d)."""

    def _reader(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        weights = self._get("weights", like)
        return weights @ self._get("basis", like), self._get("levels", like).mean(dim=0) @ weights

    def _remove(self, x: torch.Tensor) -> torch.Tensor:
        basis = self._get("basis", x)
        return x - (x @ basis.T - self._get("center", x)) @ basis

    def _add(self, x: torch.Tensor, amount: float) -> torch.Tensor:
        without, with_concept = self._get("levels", x)
        return x + amount * (with_concept - without) @ self._get("basis", x)
