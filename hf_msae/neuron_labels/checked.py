"""What neurons give, checked, so that the failure of one can be told from other errors."""

from __future__ import annotations

import numpy as np

from .neuron import Images, Neuron


class NeuronError(ValueError):
    """A neuron fails, so that it cannot be labeled; others can."""


def features_of(neuron: Neuron, images: Images) -> np.ndarray:
    """Compute features, one row for each image; raise NeuronError if the neuron does not."""
    try:
        found = np.asarray(neuron.features(images))
    except Exception as error:  # a function of the user may raise anything
        raise NeuronError(f"{neuron!r} failed ({type(error).__name__}: {error})") from error
    if found.ndim == 0 or len(found) != len(images):
        raise NeuronError(f"{neuron!r} gave an array of shape {found.shape} for {len(images)} pictures")
    return found


def activations_of(neuron: Neuron, features: np.ndarray) -> np.ndarray:
    """Read activations from features; raise NeuronError unless they are one finite number for each."""
    try:
        found = np.asarray(neuron.read(features), dtype=np.float64)
    except Exception as error:  # likewise
        raise NeuronError(f"{neuron!r} failed ({type(error).__name__}: {error})") from error
    if found.shape != (len(features),):
        raise NeuronError(f"{neuron!r} gave activations of shape {found.shape} for {len(features)} pictures")
    if not np.isfinite(found).all():
        raise NeuronError(f"{neuron!r} gave {found[~np.isfinite(found)][0]} for a picture; activations must be finite")
    return found
