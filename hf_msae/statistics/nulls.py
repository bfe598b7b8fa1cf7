"""Null distributions: what would be found if there were nothing to find."""

from __future__ import annotations

import numpy as np

_NORMAL_MAD = 1.4826022185056018  # 1 / the 3/4 quantile of the standard normal distribution


def null_p_values(observed: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Compute one-sided p-values of observed values from draws of their null distribution.

    p = (1 + #{null >= observed}) / (1 + #null). The observed value counts as one draw, so that p is never 0 and the
    test is valid for any number of draws. (Phipson and Smyth, "Permutation p-values should never be zero", 2010.)

    Args:
        observed: Observed values, any shape; large values are evidence.
        null: Draws (m,) from the null distribution, at least one.

    Raises:
        ValueError: There are no draws.
    """
    null = np.sort(np.asarray(null).reshape(-1))
    if not len(null):
        raise ValueError("null has no draws")
    as_large = len(null) - np.searchsorted(null, np.asarray(observed), side="left")
    return (1 + as_large) / (1 + len(null))


def matched_null(
    target: float, candidates: np.ndarray, number: int, rng: np.random.Generator, pool: int | None = None
) -> np.ndarray:
    """Draw controls that resemble a target in a property that must not matter, e.g. how often a latent is active.

    Args:
        target: The property of what is tested.
        candidates: The property of each candidate (m,).
        number: How many controls to draw, without replacement; all of the pool if it has fewer.
        rng: Generator of the draw.
        pool: How many of the nearest candidates to draw from. Defaults to twice `number`.

    Returns:
        Places of the controls among the candidates, in random order.
    """
    distance = np.abs(np.asarray(candidates, dtype=np.float64) - target)
    nearest = np.argsort(distance, kind="stable")[: 2 * number if pool is None else pool]
    return rng.permutation(nearest)[:number]


def robust_spread(values: np.ndarray) -> float:
    """Estimate the standard deviation about zero of normal values by the median of their sizes.

    1.4826 median(|x|): a minority of large values, such as controls that do have an effect, barely changes it.
    (Hampel, "The influence curve and its role in robust estimation", JASA 1974.)
    """
    return float(_NORMAL_MAD * np.median(np.abs(values)))
