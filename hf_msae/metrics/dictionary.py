"""Metrics of dictionaries alone: how orthogonal the rows are, and whether another seed finds them again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from .accumulator import as_matrix, normalized_rows

EXACT_LATENTS = 8192
"""Largest number of latents that is matched exactly by default; the time grows with its cube."""

_BLOCK_ELEMENTS = 2**24


def decoder_orthogonality(dictionary: torch.Tensor, unit_rows: bool = True, count_diagonal: bool = False) -> float:
    """Mean squared cosine between different latents' directions: sum_{i != j} (d_i . d_j)^2 / (n (n - 1)).

    0 for orthogonal rows, about 1/d for random ones. Computed as (||D^T D||_F^2 - sum_i ||d_i||^4) / (n (n - 1)), so
    memory is d x d, not n x n.

    Args:
        dictionary: D, one latent's direction per row, (n, d).
        unit_rows: Scale rows to length 1 first; a row of zeros stays and counts as orthogonal to all others.
        count_diagonal: Divide by n^2, counting the diagonal as zeros. With `unit_rows=False` that is the MSAE
            authors' `orthogonal_decoder` (arXiv 2502.20578).

    Raises:
        ValueError: The dictionary is not a matrix of at least two rows, or not finite.
    """
    rows = as_matrix("dictionary", dictionary)
    if len(rows) < 2:
        raise ValueError(f"the orthogonality of a dictionary needs at least two rows, got {len(rows)}")
    if unit_rows:
        rows = normalized_rows(rows)
    off_diagonal = (rows.T @ rows).square().sum() - rows.square().sum(dim=1).square().sum()
    pairs = len(rows) ** 2 if count_diagonal else len(rows) * (len(rows) - 1)
    return max(0.0, float(off_diagonal)) / pairs


@dataclass(frozen=True)
class SeedStability:
    """How alike two dictionaries are; see `seed_stability`.

    Attributes:
        mean_cosine: Mean cosine of matched latents; 1 if the dictionaries hold the same directions.
        error: Upper bound on how much higher the best matching's mean cosine could be; 0 if the matching is exact.
        fraction_above: Share of matched pairs with a cosine above `threshold`.
        threshold: Threshold of `fraction_above`.
        pairs: (m, 2), the matched latents of the first and second dictionary; m is the size of the smaller one.
        cosines: (m,), the cosines of these pairs.
        exact: Whether the matching is known to be the best one.
    """

    mean_cosine: float
    error: float
    fraction_above: float
    threshold: float
    pairs: np.ndarray
    cosines: np.ndarray
    exact: bool

    def __str__(self) -> str:
        error = "exact" if self.exact else f"approximate: the best is higher by at most {self.error:.1e}"
        return (
            f"mean cosine {self.mean_cosine:.4f} ({error}), {self.fraction_above:.1%} of {len(self.pairs)} pairs "
            f"above {self.threshold}"
        )


def seed_stability(
    dictionary_a: torch.Tensor | np.ndarray,
    dictionary_b: torch.Tensor | np.ndarray,
    threshold: float = 0.7,
    exact: bool | None = None,
) -> SeedStability:
    """Match the latents of two dictionaries one to one so that the sum of cosines is largest.

    The mean of cos(a_i, b_pi(i)) under the best matching pi says how much of a dictionary another seed finds again
    ("Sparse Autoencoders Trained on the Same Data Learn Different Features", arXiv 2501.16615). Up to 8,192 latents
    scipy's `linear_sum_assignment` finds the best one. Above, where that takes minutes to hours, each latent is
    matched within a graph of near candidates, and linear programming duality bounds how far that is from the best
    (`error`, usually below 1e-4). For two random dictionaries of 2,048 x 64 the mean cosine is 0.400454 instead of the
    exact 0.400458; a pair of 16,384 x 768 takes about a minute on one core, and 1.1 GB.

    Dead latents keep the directions they were initialized with: leave them out (`dictionary[alive]`). Random
    directions match at more than 0, increasingly so the more there are: compare with `seed_stability` of random
    dictionaries.

    Args:
        dictionary_a: One latent's direction per row, (n_a, d), e.g. `model.dictionary`.
        dictionary_b: The dictionary of a model trained with another seed, (n_b, d). Some latents of the larger
            dictionary remain unmatched.
        threshold: Cosine above which a pair counts as found by both.
        exact: Whether to find the best matching. Defaults to whether there are at most 8,192 latents.

    Raises:
        ValueError: The widths differ, or a value is not finite.
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
        matching, bound = match_candidates(small, large)
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


def match_candidates(
    a: np.ndarray, b: np.ndarray, candidates: int = 16, tolerance: float = 1e-4, max_rounds: int = 8
) -> tuple[np.ndarray, float]:
    """Match rows of `a` (n, d) with rows of `b` (m, d), m >= n, with nearly the largest possible sum of products.

    Column generation: the best matching within a sparse graph of candidates comes with prices of the rows of `b`,
    which bound the best sum of all by linear programming duality, ::

        max_pi sum_i a_i . b_pi(i)  <=  sum_j price_j + sum_i max_j (a_i . b_j - price_j)

    and each round adds the pairs that are worth most at these prices, until the bound is within `tolerance` per pair.
    Products are made block by block, so memory is O(n x candidates), not O(n x n). Rows have length 1 or 0. Returns
    the matches (n,) and the bound on the best sum.
    """
    n, m = len(a), len(b)
    nearest_of_b, _ = _most_valuable(b, a, np.zeros(n), candidates)
    # An edge is row * m + column. The pairs (i, i) make sure that there is a full matching.
    edges = np.concatenate([np.arange(n) * (m + 1), (nearest_of_b * m + np.arange(m)[:, None]).ravel()])
    prices, matching, bound = np.zeros(m), None, np.inf
    for remaining in reversed(range(max_rounds + 1)):
        columns, values = _most_valuable(a, b, prices, candidates)
        bound = min(bound, float(prices.sum() + values.sum()))
        if matching is not None and (bound - _products(a, b[matching]).sum() <= tolerance * n or not remaining):
            break
        edges = np.unique(np.concatenate([edges, (columns + np.arange(n)[:, None] * m).ravel()]))
        matching, prices = _match_sparse(a, b, edges)
    return matching, bound


def _match_sparse(a: np.ndarray, b: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The best matching among the pairs `edges`, and prices (m,) at which no row prefers another of its pairs."""
    rows, columns = np.divmod(edges, len(b))
    step = 2**16
    values = np.concatenate([
        _products(a[rows[i : i + step]], b[columns[i : i + step]]) for i in range(0, len(edges), step)
    ])  # fmt: skip
    # Weights must not be 0, which would mean that there is no edge.
    _, matching = min_weight_full_bipartite_matching(csr_array((2.0 - values, (rows, columns)), (len(a), len(b))))
    matched = _products(a, b[matching])
    prices = np.zeros(len(b))
    for _ in range(len(a)):  # Bellman-Ford: no path is longer than this, and most are short
        raised = prices.copy()
        np.maximum.at(raised, columns, values - (matched - prices[matching])[rows])
        change, prices = (raised - prices).max(), raised
        if change < 1e-9:
            break
    return matching, prices


def _products(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("ij,ij->i", a, b)


def _most_valuable(a: np.ndarray, b: np.ndarray, prices: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """For each row of `a`, the `number` rows of `b` with the largest product minus price, and the largest of these."""
    number, step = min(number, len(b)), max(1, _BLOCK_ELEMENTS // len(b))
    columns, values = [], []
    for start in range(0, len(a), step):
        worth = a[start : start + step] @ b.T - prices
        columns.append(np.argpartition(worth, -number, axis=1)[:, -number:])
        values.append(worth.max(axis=1))
    return np.concatenate(columns), np.concatenate(values)
