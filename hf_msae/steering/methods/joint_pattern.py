"""What a concept does while all others stay the same: everywhere, or where the concept is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..direction import Direction, LinearScore
from ..edit import register
from ..joint import discriminant, regressors


@register("joint_pattern")
@dataclass
class JointPattern(Direction):
    """The multi-concept pattern: what this concept does to each coordinate while all other concepts stay the same.

    With Y the concepts (n, K) and both sides centered, W = pinv(Y^T Y) Y^T X is the regression of X on all concepts,
    and v the row of this one. Unlike `pattern`, it does not take in concepts that occur together with this one. It
    needs the other concepts: `fit(X, concept, others=...)`; without any, it is `pattern`.
    """

    def _direction(self, X: np.ndarray, concept: np.ndarray, seed: int, others: np.ndarray) -> np.ndarray:
        return regressors(concept, others)[0] @ X


@register("reactive_pattern")
@dataclass
class ReactivePattern(LinearScore):
    """The multi-concept pattern, only for embeddings that have the concept.

    With a the effect of the concept (`joint_pattern`), and w the linear discriminant, both with all other concepts
    held fixed:

        score(x) = <x, w> - threshold, the log-odds of the concept
        remove(x) = x - a              where score(x) > 0
        add(x, amount) = x + amount a  where score(x) <= 0

    All other embeddings stay the same to the last bit. Where a concept adds the same to every embedding, removal is
    exact wherever the discriminant is right. Give it what occurs together with the concept, above all the labels of a
    biased classifier: `fit(X, concept, others=...)`. (Ours; after reactive ClArC and the multi-concept pattern.)
    """

    def _fit(self, X: np.ndarray, concept: np.ndarray, seed: int, others: np.ndarray) -> dict[str, np.ndarray]:
        return discriminant(X, concept, others)

    def _reader(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self._get("detector", like), self._get("threshold", like)

    def _remove(self, x: torch.Tensor) -> torch.Tensor:
        return torch.where((self._score(x) > 0)[..., None], x - self._get("effect", x), x)

    def _add(self, x: torch.Tensor, amount: float) -> torch.Tensor:
        return torch.where((self._score(x) > 0)[..., None], x, x + amount * self._get("effect", x))
