"""Properties of the dictionary itself, no data needed."""

from __future__ import annotations

import torch

from ._inputs import as_matrix, normalized_rows


def decoder_orthogonality(dictionary: torch.Tensor, unit_rows: bool = True, count_diagonal: bool = False) -> float:
    """Mean squared cosine between different latents' directions: sum_{i != j} (d_i . d_j)^2 / (n (n - 1)).

    0 for orthogonal rows, about 1/d for random ones. Computed as (||D^T D||_F^2 - sum_i ||d_i||^4) / (n (n - 1)),
    so memory is d x d, not n x n.

    Args:
        dictionary: D, one latent's direction per row, (n, d).
        unit_rows: scale rows to length 1 first; a row of zeros stays and counts as orthogonal to all others.
        count_diagonal: divide by n^2, counting the diagonal as zeros. With `unit_rows=False` that is the MSAE
            authors' `orthogonal_decoder` (arXiv 2502.20578).

    Raises:
        ValueError: not a matrix of at least two rows, or not finite.
    """
    rows = as_matrix("dictionary", dictionary)
    if len(rows) < 2:
        raise ValueError(f"the orthogonality of a dictionary needs at least two rows, got {len(rows)}")
    if unit_rows:
        rows = normalized_rows(rows)
    off_diagonal = (rows.T @ rows).square().sum() - rows.square().sum(dim=1).square().sum()
    pairs = len(rows) ** 2 if count_diagonal else len(rows) * (len(rows) - 1)
    return max(0.0, float(off_diagonal)) / pairs
