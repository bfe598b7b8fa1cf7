"""What a fit is given: embeddings and concepts, checked."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import numpy as np
import torch

from .._utils import tensors

if TYPE_CHECKING:
    from ..embeddings import EmbeddingDataset

MIN_ROWS = 2
"""Rows with the concept, and rows without it, that a fit needs at least."""


class NotDefinedError(ValueError):
    """A fit or a figure does not exist for these data, for a reason that the message says."""


def check_data(
    X: np.ndarray | torch.Tensor | EmbeddingDataset, concept: np.ndarray | torch.Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """Return embeddings as float64 (n, d) and a concept as bool (n,).

    Raises NotDefinedError if no fit can tell their rows apart.
    """
    values = as_array(X)
    labels = np.asarray(concept.cpu() if isinstance(concept, torch.Tensor) else concept)
    if labels.shape != (len(values),):
        raise ValueError(f"the concept has the shape {labels.shape}, but there are {len(values)} embeddings")
    if labels.dtype != bool and not np.isin(labels, (0, 1)).all():
        odd = labels[~np.isin(labels, (0, 1))].tolist()[0]
        raise ValueError(f"a concept is true or false (1 or 0) in every row, but one row has {odd!r}")
    labels = labels.astype(bool)
    for which, number in (("with", labels.sum()), ("without", (~labels).sum())):
        if number < MIN_ROWS:
            rows = "1 row" if number == 1 else f"{number} rows"
            raise NotDefinedError(f"{rows} {which} the concept: a fit needs at least {MIN_ROWS}")
    if (values == values[0]).all():
        raise NotDefinedError("all embeddings are alike")
    return values, labels


def check_others(others: np.ndarray | torch.Tensor | None, num_rows: int) -> np.ndarray:
    """Return the other concepts as bool (n, K - 1); one may be given as (n,)."""
    if others is None:
        return np.zeros((num_rows, 0), dtype=bool)
    labels = np.asarray(others.cpu() if isinstance(others, torch.Tensor) else others)
    if labels.ndim not in (1, 2) or len(labels) != num_rows:
        raise ValueError(
            f"others has the shape {labels.shape}, but must be ({num_rows}, number of other concepts), or for one of "
            f"them ({num_rows},)"
        )
    if labels.dtype != bool and not np.isin(labels, (0, 1)).all():
        raise ValueError("others are true or false (1 or 0) in every row")
    return labels.astype(bool).reshape(num_rows, -1)


def as_array(X: np.ndarray | torch.Tensor | EmbeddingDataset) -> np.ndarray:
    """Return embeddings as a float64 array (n, d)."""
    _refuse_sources(X)
    if not isinstance(X, np.ndarray | torch.Tensor):
        X = X[:]
    values = X.detach().double().cpu().numpy() if isinstance(X, torch.Tensor) else np.asarray(X, dtype=np.float64)
    if values.ndim != 2:
        hint = ": for tokens of a block, X.reshape(-1, X.shape[-1])" if values.ndim == 3 else ""
        raise ValueError(f"embeddings have the shape (rows, width), but got {values.shape}{hint}")
    _refuse_infinite(np.isfinite(values).all(axis=1))
    return values


def as_tensor(X: np.ndarray | torch.Tensor | EmbeddingDataset, width: int, whose: str) -> torch.Tensor:
    """Return embeddings (..., width) as they are, as a tensor; `whose` says in errors what needs them."""
    if not isinstance(X, torch.Tensor):
        X = X[:] if is_opened(X) else X
        if not isinstance(X, torch.Tensor):  # tensors can be written to, and the features of a task cannot
            _refuse_sources(X)
            X = tensors.as_tensor(np.require(X, requirements=("C", "W")))
    if not X.is_floating_point() or not X.ndim or X.shape[-1] != width:
        raise ValueError(
            f"{whose} is for floating-point embeddings (..., {width}), but got {X.dtype} of shape {tuple(X.shape)}"
        )
    if not X.sum().isfinite():  # which takes a tenth of the time of looking at each value
        _refuse_infinite(X.reshape(-1, width).isfinite().all(dim=1).cpu().numpy())
    return X


def is_opened(X: object) -> bool:
    """Return whether these are opened embeddings, which say where they are from, and not an array."""
    return hasattr(X, "provenance")


def _refuse_sources(X: object) -> None:
    """Refuse what embeddings are opened from, such as a path."""
    if isinstance(X, str | os.PathLike | dict) or hasattr(X, "column_names"):
        raise TypeError(
            f"embeddings are an array, a tensor or opened ones, but got {type(X).__name__}: pass load_embeddings(...)"
        )


def _refuse_infinite(finite: np.ndarray) -> None:
    if not finite.all():
        bad = np.flatnonzero(~finite)
        raise ValueError(f"{len(bad)} of {len(finite)} embeddings are not finite, the first of them row {bad[0]}")


def digest_of(settings: object, *arrays: np.ndarray) -> str:
    """Return a hash of settings, by their `repr`, and of the bytes of arrays."""
    digest = hashlib.sha256(repr(settings).encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    return digest.hexdigest()
