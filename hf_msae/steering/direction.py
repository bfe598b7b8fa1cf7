"""Steering along one direction or in a subspace, with scores that are linear in the embeddings."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import torch

from .data import NotDefinedError
from .edit import Edit


class LinearScore(Edit):
    """An edit with score(x) = <x, w> - c. Subclasses implement `_reader`, and may yet have another `_score`."""

    @abstractmethod
    def _reader(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return w (d,) and c (), on the device and in the dtype of a tensor."""

    def _score(self, x: torch.Tensor) -> torch.Tensor:
        weights, constant = self._reader(x)
        return x @ weights - constant

    @property
    def _is_linear(self) -> bool:
        return type(self)._score is LinearScore._score


def scores_of(edits: Sequence[Edit], X: np.ndarray) -> np.ndarray:
    """Return the scores (edits, n) of each edit for the same embeddings (n, d)."""
    linear = [place for place, edit in enumerate(edits) if isinstance(edit, LinearScore) and edit._is_linear]

    def scores(x: torch.Tensor) -> torch.Tensor:
        readers = [edits[place]._reader(x) for place in linear]
        weights, constants = (torch.stack(parts) for parts in zip(*readers, strict=True))
        return x @ weights.T - constants

    found = np.empty((len(edits), len(X)), dtype=np.promote_types(X.dtype, np.float32))
    if linear:
        found[linear] = edits[linear[0]]._apply(scores, X, keep_dtype=False).T
    for place in set(range(len(edits))).difference(linear):
        found[place] = edits[place].score(X)
    return found


class Direction(LinearScore):
    """An edit along a unit vector v, a concept activation vector (CAV).

    With m the mean of all training embeddings, and m+ and m- the means of <x, v> with the concept and without it:

        score(x) = <x, v> - (m+ + m-) / 2
        remove(x) = x - <x - m, v> v
        add(x, amount) = x + amount (m+ - m-) v

    So removing leaves all training embeddings at the same place along v. Methods return v of any length and sign; it
    is turned so that m+ > m-. (CAVs: Kim et al., "Interpretability beyond feature attribution", ICML 2018.)
    """

    def _fit(self, X: np.ndarray, concept: np.ndarray, seed: int, others: np.ndarray) -> dict[str, np.ndarray]:
        direction = np.asarray(self._direction(X, concept, seed, others), dtype=np.float64).reshape(-1)
        length = np.linalg.norm(direction)
        if not length > 0:
            raise NotDefinedError(f"{self.method} finds no direction: it does not tell these rows apart")
        return levels(X, concept, direction / length)

    @abstractmethod
    def _direction(self, X: np.ndarray, concept: np.ndarray, seed: int, others: np.ndarray) -> np.ndarray:
        """Return the direction (d,), of any length and sign; arguments as for `_fit`."""

    @property
    def direction(self) -> torch.Tensor:
        """The unit vector (d,)."""
        return self.parameters["direction"]

    def _along(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self._get("direction", x)

    def _reader(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self._get("direction", like), self._get("levels", like).mean()

    def _remove(self, x: torch.Tensor) -> torch.Tensor:
        return self._move_to(x, self._get("center", x))

    def _move_to(self, x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        return torch.outer(level - self._along(x), self._get("direction", x)).add_(x)

    def _add(self, x: torch.Tensor, amount: float) -> torch.Tensor:
        without, with_concept = self._get("levels", x)
        return x + amount * (with_concept - without) * self._get("direction", x)


def levels(X: np.ndarray, concept: np.ndarray, direction: np.ndarray) -> dict[str, np.ndarray]:
    """Return a unit direction, turned towards the concept, and where training embeddings lie along it."""
    along = X @ direction
    found = np.array([along[~concept].mean(), along[concept].mean()])
    if found[1] < found[0]:
        direction, along, found = -direction, -along, -found
    return {"direction": direction, "center": along.mean(), "levels": found}


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
