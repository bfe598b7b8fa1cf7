"""Patterns of many concepts, made orthogonal by gradient descent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from ..direction import Direction
from ..edit import register


@register("orthogonal")
@dataclass
class OrthogonalPattern(Direction):
    """Pattern CAVs of all concepts, moved apart until they are nearly orthogonal.

    From the unit patterns P (K, d) of all concepts, Adam minimizes over W (K, d)

        mean over c of |w_c - p_c|^2  +  alpha |U U^T - I|_F,  u_c = w_c / |w_c|

    and v is the row of this concept. The first term is how much worse w_c explains X than the pattern does: the
    regression loss mean |x - y_c w_c - b_c|^2, with the best b_c, is var(y_c) |w_c - pattern_c|^2 plus a constant. So
    no step passes over rows. Here every concept counts alike, in units of what its pattern explains.
    (After Erogullari et al., "Post-hoc concept disentanglement", arXiv 2503.05522. Scaling, step size and the lack of
    stopping by uniqueness are ours.) It needs the other concepts: `fit(X, concept, others=...)`; without any, it is
    `pattern`. Concepts that are never or always present among the rows are left out.

    Attributes:
        alpha: Weight of orthogonality.
        steps: Steps of Adam.
        learning_rate: Step size, for patterns of length 1; it falls to zero along a cosine.
    """

    alpha: float = 1.0
    steps: int = 300
    learning_rate: float = 1e-2

    def _direction(self, X: np.ndarray, concept: np.ndarray, seed: int, others: np.ndarray) -> np.ndarray:
        labels = np.column_stack([concept, others]).astype(np.float64)
        labels -= labels.mean(axis=0)
        patterns = torch.from_numpy(labels.T @ (X - X.mean(axis=0)))
        known = patterns.norm(dim=1) > 1e-12 * patterns.norm()
        known[0] = True  # the base judges whether it has a direction
        return self._descend(F.normalize(patterns[known]))[0].numpy()

    @torch.enable_grad()
    def _descend(self, patterns: torch.Tensor) -> torch.Tensor:
        weights = patterns.clone().requires_grad_()
        optimizer = torch.optim.Adam([weights], lr=self.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, self.steps))
        off_diagonal = 1 - torch.eye(len(patterns), dtype=patterns.dtype)
        for _ in range(self.steps if len(patterns) > 1 else 0):
            units = F.normalize(weights)
            # The root of a sum of squares has no gradient at 0, where all are orthogonal already.
            apart = ((units @ units.T * off_diagonal).square().sum() + 1e-12).sqrt()
            loss = (weights - patterns).square().sum(dim=1).mean() + self.alpha * apart
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        return weights.detach()
