"""SemanticLens: how clear, how polysemantic and how redundant neurons are, from embeddings of their top images."""

from __future__ import annotations

import numpy as np
import torch

_SINGLE_PAIRS = 10


def clarity(embeddings: np.ndarray | torch.Tensor) -> np.ndarray:
    """Compute how alike the images are that activate a neuron most.

    With v the embeddings of n images scaled to unit length, the clarity is the mean cosine of two different images:

        (|mean v|^2 - 1/n) n / (n - 1)

    (Dreyer et al., "Mechanistic understanding and validation of large AI models with SemanticLens", Nature Machine
    Intelligence 2025.) It lies between -1 / (n - 1) and 1. Embeddings of one model all have something in common, so
    compare it with the clarity of random images.

    Args:
        embeddings: Embeddings of the top images of each neuron (..., n, d), at least 2.

    Raises:
        ValueError: The shape is another one, or a value is not finite.
    """
    units = _units(_checked(embeddings))
    n = units.shape[-2]
    return ((units.mean(axis=-2) ** 2).sum(axis=-1) - 1 / n) * n / (n - 1)


def redundancy(embeddings: np.ndarray | torch.Tensor) -> np.ndarray:
    """Compute how alike each neuron is to the neuron it resembles most.

    The largest cosine of a neuron's mean embedding with that of another neuron. The score of a set of neurons is the
    mean. (SemanticLens, as for `clarity`.)

    Args:
        embeddings: Embeddings of the top images of each neuron (neurons, n, d), or one embedding each (neurons, d);
            at least 2 neurons.

    Raises:
        ValueError: The shape is another one, or a value is not finite.
    """
    values = _array(embeddings)
    means = values.mean(axis=1) if values.ndim == 3 else values
    if means.ndim != 2 or len(means) < 2:
        raise ValueError(f"redundancy needs embeddings (neurons, n, d) of at least 2 neurons, got {values.shape}")
    units = _units(means)
    cosines = units @ units.T
    np.fill_diagonal(cosines, -np.inf)
    return cosines.max(axis=1)


def polysemanticity(embeddings: np.ndarray | torch.Tensor, seed: int = 0) -> np.ndarray:
    """Compute how different the two groups are that the top images of a neuron fall into.

    1 - the cosine of the centers of two clusters (k-means with 10 starts). If a cluster has one image only, it may be
    an outlier: then it is 1 - the mean cosine of the mean embedding with the first images, 10 at most. (SemanticLens,
    as for `clarity`.)

    Args:
        embeddings: Embeddings of the top images of each neuron (neurons, n, d), at least 2, most active first.
        seed: Random seed of k-means.

    Returns:
        Polysemanticity of each neuron (neurons,), between 0 and 2.

    Raises:
        ValueError: The shape is another one, or a value is not finite.
    """
    values = _checked(embeddings)
    if values.ndim != 3:
        raise ValueError(f"polysemanticity needs embeddings (neurons, n, d), got shape {values.shape}")
    return np.array([1 - _cosine_of_clusters(each, seed) for each in values])


def _cosine_of_clusters(embeddings: np.ndarray, seed: int) -> float:
    from sklearn.cluster import KMeans  # here, since it takes a second

    if len(np.unique(embeddings, axis=0)) >= 2:
        found = KMeans(n_clusters=2, n_init=10, random_state=seed).fit(embeddings)
        if np.bincount(found.labels_, minlength=2).min() >= 2:
            first, second = _units(found.cluster_centers_)
            return float(first @ second)
    return float((_units(embeddings[:_SINGLE_PAIRS]) @ _units(embeddings.mean(axis=0))).mean())


def _units(values: np.ndarray) -> np.ndarray:
    return values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-12)


def _array(embeddings: np.ndarray | torch.Tensor) -> np.ndarray:
    if isinstance(embeddings, torch.Tensor):
        embeddings = embeddings.detach().float().cpu()
    values = np.asarray(embeddings, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"embeddings must be finite, got {values[~np.isfinite(values)][0]}")
    return values


def _checked(embeddings: np.ndarray | torch.Tensor) -> np.ndarray:
    values = _array(embeddings)
    if values.ndim < 2 or values.shape[-2] < 2:
        raise ValueError(f"expected embeddings (..., n, d) of at least 2 images each, got shape {values.shape}")
    return values
