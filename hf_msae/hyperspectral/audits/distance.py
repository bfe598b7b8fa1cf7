"""How far rows lie from the others: from the rows that a model learned from, and from what is usual."""

from __future__ import annotations

import numpy as np
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from ..subject import splits

USUAL_SHARE = 0.05
"""Share of rows that are called far if nothing is special about them."""
_COMPONENTS, _NEIGHBORS = 10, 3


def far_rows(X: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Find rows that are farther from the rows of other folds than 95% of these are from each other.

    The distance is the mean distance to the three nearest rows, in up to ten principal components of the standardized
    columns.
    """
    far = np.zeros(len(X), dtype=bool)
    for train, test in splits(folds):
        scale = StandardScaler().fit(X[train])
        components = min(_COMPONENTS, X.shape[1], len(train) - 1)
        pca = PCA(components, svd_solver="randomized", random_state=0).fit(scale.transform(X[train]))
        known, new = pca.transform(scale.transform(X[train])), pca.transform(scale.transform(X[test]))
        number = min(_NEIGHBORS, len(train) - 1)
        nearest = NearestNeighbors(n_neighbors=number).fit(known)
        own = nearest.kneighbors(n_neighbors=number)[0].mean(axis=1)
        far[test] = nearest.kneighbors(new)[0].mean(axis=1) > np.quantile(own, 1 - USUAL_SHARE)
    return far


def unusual_rows(X: np.ndarray) -> np.ndarray:
    """Find the 5% of rows that are farthest from the mean.

    The distance is T^2, the squared length in up to ten whitened principal components of the standardized columns,
    plus Q, the squared length of what these leave over, each divided by its mean over the rows.
    """
    scaled = StandardScaler().fit_transform(X)
    components = min(_COMPONENTS, X.shape[1], len(X) - 1)
    pca = PCA(components, svd_solver="randomized", random_state=0).fit(scaled)
    scores = pca.transform(scaled)
    explained = (scores**2 / np.maximum(pca.explained_variance_, 1e-12)).sum(axis=1)
    left = np.maximum((scaled**2).sum(axis=1) - (scores**2).sum(axis=1), 0)
    distance = explained / explained.mean() + (left / left.mean() if left.mean() > 1e-9 else 0)
    return distance > np.quantile(distance, 1 - USUAL_SHARE)
