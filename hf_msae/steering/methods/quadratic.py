"""Quadratic concept erasure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..covariance import covariance_of, roots
from ..data import NotDefinedError
from ..edit import Edit, register


@register("quadratic")
@dataclass
class QuadraticErasure(Edit):
    """Quadratic concept erasure (Q-LEACE): both classes get the same mean and covariance, so quadratic probes fail.

    Rows of class c are moved by optimal transport between Gaussians to the barycenter of both classes,

        remove(x) = A_c (x - m_c) + m,  A_c = S_c^-1/2 (S_c^1/2 S S_c^1/2)^1/2 S_c^-1/2

    with S the covariance of the barycenter, weighted by the shares p of the classes: with K = (S_0 S_1)^1/2,
    S = p_0^2 S_0 + p_1^2 S_1 + p_0 p_1 (K + K^T). The class of a row has to be known, and for new embeddings it is
    not: it is predicted by the quadratic discriminant that was fitted to the training rows, whose log-odds are the
    score. So classes are equal to the extent that it is right. add(x, amount) = x + amount (m+ - m-).
    (Belrose et al., NeurIPS 2023, and the QuadraticEraser of their package, which is given the true classes.)

    Attributes:
        shrinkage: Whether to shrink the covariances towards multiples of the identity (`covariance_of`). Without,
            each class needs more rows than the embeddings have coordinates.
    """

    shrinkage: bool = True

    def _fit(self, X: np.ndarray, concept: np.ndarray, seed: int, others: np.ndarray) -> dict[str, np.ndarray]:
        parts = [X[~concept], X[concept]]
        covariances = [covariance_of(part, self.shrinkage) for part in parts]
        for part, covariance in zip(parts, covariances, strict=True):
            values = np.linalg.eigvalsh(covariance)
            if not values[0] > values[-1] * len(values) * np.finfo(np.float64).eps:
                raise NotDefinedError(
                    f"the covariance of one class ({len(part)} rows of width {X.shape[1]}) has no inverse: "
                    "use shrinkage=True or drop constant coordinates"
                )
        (root, inverse), (_, inverse_of_other) = (roots(covariance) for covariance in covariances)
        shares = np.array([len(part) for part in parts]) / len(X)
        between = root @ roots(root @ covariances[1] @ root)[0] @ inverse
        barycenter = shares[0] ** 2 * covariances[0] + shares[1] ** 2 * covariances[1]
        barycenter = barycenter + shares[0] * shares[1] * (between + between.T)
        means, center = np.stack([part.mean(axis=0) for part in parts]), X.mean(axis=0)
        precisions, shifts = np.stack([inverse @ inverse, inverse_of_other @ inverse_of_other]), means - center
        toward = np.einsum("cij,cj->ci", precisions, shifts)
        offsets = np.log(shares) - [np.linalg.slogdet(covariance)[1] / 2 for covariance in covariances]
        offsets -= (toward * shifts).sum(axis=1) / 2
        return {
            "means": means,
            "center": center,
            "maps": np.stack([transport(covariance, barycenter) for covariance in covariances]),
            "form": (precisions[0] - precisions[1]) / 2,
            "linear": toward[1] - toward[0],
            "constant": offsets[1] - offsets[0],
        }

    def _score(self, x: torch.Tensor) -> torch.Tensor:
        centered = x - self._get("center", x)
        squares = (centered @ self._get("form", x) * centered).sum(dim=-1)
        return squares + centered @ self._get("linear", x) + self._get("constant", x)

    def _remove(self, x: torch.Tensor) -> torch.Tensor:
        moved = [
            (x - mean) @ map_ + self._get("center", x)
            for mean, map_ in zip(self._get("means", x), self._get("maps", x), strict=True)
        ]
        return torch.where((self._score(x) > 0)[..., None], moved[1], moved[0])

    def _add(self, x: torch.Tensor, amount: float) -> torch.Tensor:
        without, with_concept = self._get("means", x)
        return x + amount * (with_concept - without)


def transport(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the symmetric map (d, d) that optimally moves a Gaussian with one covariance to one with another."""
    root, inverse = roots(source)
    return inverse @ roots(root @ target @ root)[0] @ inverse
