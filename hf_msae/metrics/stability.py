"""Do two trainings find the same dictionary? Matching of latents across seeds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from ._inputs import as_matrix, normalized_rows
from .assignment import assign_approximately

EXACT_LATENTS = 8192
"""Up to so many latents the matching is exact; its time grows with their cube."""


@dataclass(frozen=True)
class SeedStability:
    """How alike two dictionaries are; see `seed_stability`.

    Attributes:
        mean_cosine: mean cosine of matched latents, 1 where the dictionaries hold the same directions.
        error: by how much the best matching's mean cosine could exceed it at most; 0 where the matching is exact.
        fraction_above: share of matched pairs with a cosine above `threshold`.
        threshold: of `fraction_above`.
        pairs: (m, 2), the matched latents of the first and second dictionary; m is the size of the smaller one.
        cosines: (m,), of these pairs.
        exact: whether the matching is the best there is.
    """

    mean_cosine: float
    error: float
    fraction_above: float
    threshold: float
    pairs: np.ndarray
    cosines: np.ndarray
    exact: bool

    def __str__(self) -> str:
        how = "exact matching" if self.exact else f"approximate matching, the best has at most {self.error:.1e} more"
        return (
            f"mean cosine {self.mean_cosine:.4f} ({how}), {self.fraction_above:.1%} of {len(self.pairs)} pairs "
            f"above {self.threshold}"
        )


def seed_stability(
    dictionary_a: torch.Tensor | np.ndarray,
    dictionary_b: torch.Tensor | np.ndarray,
    threshold: float = 0.7,
    exact: bool | None = None,
) -> SeedStability:
    """Match the latents of two dictionaries one to one so that the sum of cosines is largest.

    The mean of cos(a_i, b_pi(i)) under the best matching pi tells how much of a dictionary another seed finds again
    ("Sparse Autoencoders Trained on the Same Data Learn Different Features", arXiv 2501.16615). The best one is found
    by scipy's `linear_sum_assignment`; above 8,192 latents, where that takes minutes to hours, an auction over each
    latent's nearest candidates finds one close to it, and its prices bound how close (`error`; a few thousandths, more
    where many latents of a dictionary point the same way).

    Dead latents keep the directions they began with: leave them out (`dictionary[alive]`). Random directions match
    at more than 0, and the more so the more there are: compare with `seed_stability` of random dictionaries.

    Args:
        dictionary_a: one latent's direction per row, (n_a, d); `model.dictionary`.
        dictionary_b: that of a model trained from another seed, (n_b, d). Of the larger one some remain unmatched.
        threshold: cosine above which a pair counts as found by both.
        exact: whether the matching is to be the best; by default up to 8,192 latents.

    Raises:
        ValueError: the widths differ, or a value is not finite.
    """
    a, b = as_matrix("dictionary_a", dictionary_a), as_matrix("dictionary_b", dictionary_b)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"the dictionaries have {a.shape[1]} and {b.shape[1]} columns: they must be equal")
    swapped = len(a) > len(b)
    small, large = (normalized_rows(each).cpu().numpy() for each in ((b, a) if swapped else (a, b)))
    exact = len(small) ** 2 * len(large) <= EXACT_LATENTS**3 if exact is None else exact
    if exact:
        _, matching = linear_sum_assignment(small @ large.T, maximize=True)
    else:
        matching, bound = assign_approximately(small, large)
    cosines = np.einsum("ij,ij->i", small, large[matching])
    pairs = np.stack([np.arange(len(small)), matching], axis=1)
    mean = float(cosines.mean())
    return SeedStability(
        mean_cosine=mean,
        error=0.0 if exact else max(0.0, bound / len(small) - mean),
        fraction_above=float((cosines > threshold).mean()),
        threshold=threshold,
        pairs=pairs[np.argsort(matching)][:, ::-1] if swapped else pairs,
        cosines=cosines[np.argsort(matching)] if swapped else cosines,
        exact=exact,
    )
