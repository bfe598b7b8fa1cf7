"""Edits whose effect is known."""

import numpy as np
import torch

from hf_msae.steering import Edit
from hf_msae.steering.direction import Direction

STRENGTH = 2.5


class Known(Direction):
    """An edit along a given direction."""

    method = "known"

    def __init__(self, direction):
        self._given = np.asarray(direction)

    def _direction(self, X, concept, seed, others):
        return self._given


class KnownAsWithout(Known):
    """The same, but embeddings are moved to the mean of rows without the concept."""

    def _remove(self, x):
        return self._move_to(x, self._get("levels", x)[0])


class Oracle(Edit):
    """An edit that looks up the counterfactual of each row that has the bias."""

    method = "oracle"

    def __init__(self, task):
        has = task.concepts[task.bias]
        self._of = {
            row.tobytes(): other for row, other in zip(task.features[has], task.counterfactuals[has], strict=True)
        }
        self.parameters, self.provenance = {}, {"width": task.features.shape[1]}

    def _fit(self, X, concept, seed, *others):
        raise AssertionError

    def _score(self, x):
        return x[..., 0]

    def _remove(self, x):
        return torch.stack([torch.from_numpy(self._of.get(row.numpy().tobytes(), row.numpy())) for row in x])

    def _add(self, x, amount):
        return x


def fit(edit, task, concept="bias"):
    return edit.fit(task.features[task.train], task.concepts[concept][task.train])
