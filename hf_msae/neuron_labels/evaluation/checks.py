"""What arrays of activations and of presence have to be, and where measures of them say nothing."""

from __future__ import annotations

import numpy as np


def checked_activations(activations: np.ndarray) -> np.ndarray:
    """Return activations as float64 (N, n); one neuron may be (N,)."""
    return _columns("activations", activations)


def checked_presence(presence: np.ndarray) -> np.ndarray:
    """Return presence, between 0 and 1, as float64 (N, m); one concept may be (N,)."""
    presence = _columns("presence", presence)
    outside = (presence < 0) | (presence > 1)
    if outside.any():
        raise ValueError(f"presence must lie between 0 and 1, got {presence[outside][0]}")
    return presence


def unmeasurable(activations: np.ndarray, presence: np.ndarray) -> np.ndarray:
    """Say for every neuron and concept why no measure can compare them; "" if measures can, (n, m)."""
    total = presence.sum(axis=0)
    reasons = np.full((activations.shape[1], presence.shape[1]), "", dtype=object)
    reasons[:, total == 0] = "no image shows the concept"
    reasons[:, total == len(presence)] = "every image shows the concept"
    reasons[np.ptp(activations, axis=0) == 0] = "the activation is the same in all images"
    return reasons


def _columns(name: str, values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or len(values) < 2:
        raise ValueError(f"{name} must be an array (images, columns) of at least 2 images, got shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} holds {values[~np.isfinite(values)][0]}; all values must be finite")
    return values
