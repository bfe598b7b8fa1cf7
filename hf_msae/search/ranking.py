"""The best of many scores, and the ranks of a few rows, without sorting all rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from .._utils.checks import check_integers


def best_rows(scores: np.ndarray, top: int) -> np.ndarray:
    """Return the rows of the `top` largest scores (rows,), largest first; rows of equal score in their order."""
    check_integers(top=(top, 1))
    top, descending = min(top, len(scores)), -scores
    rows = np.flatnonzero(descending <= np.partition(descending, top - 1)[top - 1])  # and all that equal the last
    return rows[np.argsort(descending[rows], kind="stable")][:top]


def best_table(scores: np.ndarray, top: int, name: str, rows: np.ndarray | None = None) -> pd.DataFrame:
    """Return the `top` best rows and their scores, in the column `name`. `rows`: the rows scored. Defaults to all."""
    places = best_rows(scores, top)
    return pd.DataFrame({"row": places if rows is None else rows[places], name: scores[places]})


def ranks_of(rows: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return the ranks of some rows (m,) by score, from 1, as in a stable descending sort of all rows.

    Only the scores are sorted, not the rows, which is many times faster.
    """
    descending, asked = np.sort(-scores), -scores[rows]
    larger = np.searchsorted(descending, asked, side="left")
    equal = np.searchsorted(descending, asked, side="right") - larger
    ranks = 1 + larger
    for place in np.flatnonzero(equal > 1):
        ranks[place] += np.count_nonzero(scores[: rows[place]] == scores[rows[place]])
    return ranks


def rank_changes(after: np.ndarray, before: np.ndarray, top: int, known: Sequence[int] | None = None) -> pd.DataFrame:
    """Compare two rankings: the rows that are among the `top` best of either similarity (rows,), in their order after.

    One row each: row, similarity, similarity_before, rank, rank_before, rank_change. If the scores are not those of
    all rows, `known` says how many ranks are known after and before; others become NA.
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
