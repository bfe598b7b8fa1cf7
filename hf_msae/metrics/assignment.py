"""A near-best one-to-one matching of many rows, with a bound on how far from the best it is."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

_BLOCK_ELEMENTS = 2**24
_LARGEST_REST = 4096


def assign_approximately(
    a: np.ndarray, b: np.ndarray, candidates: int = 32, tolerance: float = 1e-3
) -> tuple[np.ndarray, float]:
    """Match rows of `a` with rows of `b` so that the sum of their products is nearly the largest there is.

    Bertsekas' auction ("The auction algorithm", Annals of Operations Research 14, 1988): rows without a match bid for
    the best of their candidates, the rows of `b` with the largest products, by what it is worth to them above the
    second best. Rows that no candidate is left for are matched among themselves. The prices, whatever they are, bound
    the best sum from above by linear programming's duality::

        max_pi sum_i a_i . b_pi(i)  <=  sum_j price_j + sum_i max_j (a_i . b_j - price_j)

    Products are made block by block: memory is n x candidates, not n x n.

    Args:
        a: float64 (n, d).
        b: float64 (m, d), m >= n.
        candidates: how many rows of `b` each row of `a` may bid for.
        tolerance: smallest bid: the auction's part of the error in each pair.

    Returns:
        For each row of `a` its match, (n,); and the bound on the best sum.
    """
    n, m = len(a), len(b)
    values, places = _candidates(a, b, min(candidates, m))
    prices = np.zeros(m)
    # Coarse prices first make the fine ones cheap. But what nobody gets in the end has to cost nothing: where
    # something is left, one auction from the beginning.
    owner = np.full(m, -1)
    for smallest_bid in (64 * tolerance, 8 * tolerance, tolerance) if n == m else ():
        owner = _auction(values, places, prices, smallest_bid)
    if (owner < 0).any():
        prices[:] = 0.0
        owner = _auction(values, places, prices, tolerance if n < m else 4 * tolerance)
    matching = np.full(n, -1)
    taken, free = np.flatnonzero(owner >= 0), np.flatnonzero(owner < 0)
    matching[owner[taken]] = taken
    _match_rest(a, b, matching, free)
    return matching, _upper_bound(a, b, prices, taken, free)


def _upper_bound(a: np.ndarray, b: np.ndarray, prices: np.ndarray, taken: np.ndarray, free: np.ndarray) -> float:
    """The bound by duality. What nobody bid for has no price yet: it gets the one at which nobody would rather have it
    than the best of the rest, which makes the bound as low as its price can. (Not below 0, unless all are needed.)
    Where bids were limited to candidates that too many rows share, prices say little: the best each row could get by
    itself is a bound too.
    """
    worth = np.empty(len(a))
    fair = np.full(len(free), -np.inf)
    by_itself = 0.0
    for block in _blocks(len(a), len(b)):
        products = a[block] @ b.T
        by_itself += products.max(axis=1).sum()
        worth[block] = (products[:, taken] - prices[taken]).max(axis=1)
        fair = np.maximum(fair, (products[:, free] - worth[block, None]).max(axis=0))
    prices = prices.copy()
    prices[free] = fair if len(a) == len(b) else np.maximum(fair, 0.0)
    # At these prices nothing free is worth more to a row than the best of the rest is.
    return float(min(by_itself, prices.sum() + worth.sum()))


def _blocks(rows: int, columns: int) -> list[slice]:
    step = max(1, _BLOCK_ELEMENTS // columns)
    return [slice(start, start + step) for start in range(0, rows, step)]


def _candidates(a: np.ndarray, b: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Values and places of the largest products of each row, (n, number)."""
    values, places = np.empty((len(a), number)), np.empty((len(a), number), dtype=np.int64)
    for block in _blocks(len(a), len(b)):
        products = a[block] @ b.T
        places[block] = np.argpartition(-products, number - 1, axis=1)[:, :number]
        values[block] = np.take_along_axis(products, places[block], axis=1)
    return values, places


def _auction(values: np.ndarray, places: np.ndarray, prices: np.ndarray, smallest_bid: float) -> np.ndarray:
    """Raise `prices` until every row owns a candidate or has given up; return the owner of each row of `b`, or -1.

    A row gives up when the best of its candidates is worth less to it than nothing at all would be: -1, the least that
    a product of unit rows can be, which a row matched at random gets at the worst.
    """
    owner = np.full(len(prices), -1)
    waiting = np.arange(len(values))
    while len(waiting):
        worth = values[waiting] - prices[places[waiting]]
        best = worth.argmax(axis=1)
        rows = np.arange(len(waiting))
        first = worth[rows, best]
        worth[rows, best] = -np.inf
        second = np.maximum(worth.max(axis=1, initial=-np.inf), -1.0)
        bids = first > -1.0
        waiting, wanted = waiting[bids], places[waiting[bids], best[bids]]
        offer = prices[wanted] + (first - second)[bids] + smallest_bid
        # Of several bids for one thing the highest wins: it comes last, and the last assignment stays.
        order = np.argsort(offer, kind="stable")
        waiting, wanted, offer = waiting[order], wanted[order], offer[order]
        winner = np.full(len(prices), -1)
        winner[wanted] = np.arange(len(wanted))
        won = winner[winner >= 0]
        displaced = owner[wanted[won]]
        owner[wanted[won]], prices[wanted[won]] = waiting[won], offer[won]
        lost = np.ones(len(waiting), dtype=bool)
        lost[won] = False
        waiting = np.concatenate([waiting[lost], displaced[displaced >= 0]])
    return owner


def _match_rest(a: np.ndarray, b: np.ndarray, matching: np.ndarray, free: np.ndarray) -> None:
    """Match the rows that have none with what is free, exactly within parts that are small enough for that."""
    alone = np.flatnonzero(matching < 0)
    parts = max(1, -(-len(free) // _LARGEST_REST))
    # Both are dealt out alike, so that no part has fewer targets than rows.
    for part, targets in zip(np.array_split(alone, parts), np.array_split(free, parts), strict=True):
        rows, columns = linear_sum_assignment(a[part] @ b[targets].T, maximize=True)
        matching[part[rows]] = targets[columns]
