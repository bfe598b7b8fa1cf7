"""Steering along one direction: the base of all methods that find a concept activation vector."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
import torch

from .data import NotDefinedError
from .linear_score import LinearScore


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
