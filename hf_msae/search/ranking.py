"""The best of many scores, and the places of a few among them, without sorting them all by row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd


def best_rows(scores: np.ndarray, top: int) -> np.ndarray:
    """The rows of the `top` largest scores, largest first; of equal scores the first rows.

    Args:
        scores: (rows,).
        top: how many; all where there are fewer.

    Raises:
        ValueError: top is not positive.
    """
    if top < 1:
        raise ValueError(f"top must be positive, got {top}")
    top, descending = min(top, len(scores)), -scores
    rows = np.flatnonzero(descending <= np.partition(descending, top - 1)[top - 1])  # and all that equal the last
    return rows[np.argsort(descending[rows], kind="stable")][:top]


def ranks_of(rows: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The places of some rows by score, from 1: one more than the rows with larger scores, or equal ones before it.

    They are those of a stable sort of all rows; but only the scores are sorted, which is many times faster.

    Args:
        rows: (m,).
        scores: (rows,), of all.
    """
    descending, asked = np.sort(-scores), -scores[rows]
    larger = np.searchsorted(descending, asked, side="left")
    equal = np.searchsorted(descending, asked, side="right") - larger
    ranks = 1 + larger
    for place in np.flatnonzero(equal > 1):
        ranks[place] += np.count_nonzero(scores[: rows[place]] == scores[rows[place]])
    return ranks


def rank_changes(after: np.ndarray, before: np.ndarray, top: int, known: Sequence[int] | None = None) -> pd.DataFrame:
    """The rows that are among the `top` best after or before, by what they are after.

    Args:
        after, before: similarities, (rows,).
        top: how many.
        known: how many ranks are known after and before, where the scores are not of all rows; others are NA.

    Returns:
        row, similarity, similarity_before, rank, rank_before, rank_change.
    """
    rows = np.union1d(best_rows(after, top), best_rows(before, top))
    rows = rows[np.argsort(ranks_of(rows, after))]
    rank, rank_before = pd.Series(ranks_of(rows, after)), pd.Series(ranks_of(rows, before))
    if known is not None:
        rank, rank_before = (
            each.astype("Int64").mask(each > number) for each, number in zip((rank, rank_before), known, strict=True)
        )
    return pd.DataFrame(
        {
            "row": rows,
            "similarity": after[rows],
            "similarity_before": before[rows],
            "rank": rank,
            "rank_before": rank_before,
            "rank_change": rank_before - rank,
        }
    )
