"""Scores that are linear in the embeddings, so that those of many edits are one matrix product."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import torch

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
