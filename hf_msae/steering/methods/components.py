"""CAVs that are principal components: PCA and LAT."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..data import NotDefinedError
from ..direction import Direction
from ..edit import register


def first_component(rows: np.ndarray) -> np.ndarray:
    """Return the unit vector (d,) along which rows (n, d) have the largest mean square."""
    return np.linalg.eigh(rows.T @ rows)[1][:, -1]


@register("pca")
@dataclass
class PrincipalComponent(Direction):
    """The first principal component of the rows with the concept, centered at the mean of the rows without it.

    v = argmax over |v| = 1 of mean <x - m-, v>^2 over rows with the concept. So it finds the difference of means if
    that is large, and otherwise wherever these rows vary most. (After PCA in AxBench, Wu et al., ICML 2025, which
    centers at the mean of the rows themselves.)
    """

    def _direction(self, X: np.ndarray, concept: np.ndarray, seed: int, others: np.ndarray) -> np.ndarray:
        return first_component(X[concept] - X[~concept].mean(axis=0))


@register("lat")
@dataclass
class LinearArtificialTomography(Direction):
    """Linear artificial tomography (LAT): the first component of normalized differences of random pairs of rows.

    All rows are paired at random. v is the first principal component of (x - x') / |x - x'|; labels only turn it.
    (Zou et al., "Representation engineering", 2023; as in AxBench, pairs ignore the labels.)
    """

    def _direction(self, X: np.ndarray, concept: np.ndarray, seed: int, others: np.ndarray) -> np.ndarray:
        order = np.random.default_rng(seed).permutation(len(X))
        first, second = order[: 2 * (len(X) // 2)].reshape(2, -1)
        differences = X[first] - X[second]
        lengths = np.linalg.norm(differences, axis=1)
        if not lengths.any():
            raise NotDefinedError("lat finds no direction: both rows of all pairs are alike")
        apart = lengths > 0
        return first_component(differences[apart] / lengths[apart, None])
