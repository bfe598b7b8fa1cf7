"""P-values: null distributions, what would be found if there were nothing, and corrections for many tests."""

from __future__ import annotations

import numpy as np


def holm(p_values: np.ndarray) -> np.ndarray:
    """Correct p-values to control the family-wise error rate (Holm's step-down method).

    With the m p-values in ascending order, the i-th becomes max over j <= i of min(1, (m - j + 1) p_(j)). Rejecting
    the hypotheses with a corrected p-value of at most alpha makes one or more false rejections with a probability of
    at most alpha, whatever the dependence of the tests. (Holm, "A simple sequentially rejective multiple test
    procedure", Scandinavian Journal of Statistics 1979.)

    Args:
        p_values: P-values (m,).

    Raises:
        ValueError: A p-value is not between 0 and 1, or the array has more than one dimension.
    """
    p = _checked(p_values)
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected


def benjamini_hochberg(p_values: np.ndarray) -> np.ndarray:
    """Turn p-values into q-values, which control the false discovery rate.

    With the m p-values in ascending order, the i-th becomes min over j >= i of min(1, m p_(j) / j). Among the
    hypotheses with a q-value of at most alpha, the expected share of false rejections is at most alpha if the tests
    are independent or positively dependent. (Benjamini and Hochberg, "Controlling the false discovery rate", JRSS B
    1995; computed by `scipy.stats.false_discovery_control`.)

    Args:
        p_values: P-values (m,).

    Raises:
        ValueError: A p-value is not between 0 and 1, or the array has more than one dimension.
    """
    p = _checked(p_values)
    from scipy import stats  # here, since it takes most of a second

    return stats.false_discovery_control(p, method="bh") if len(p) else p


def _checked(p_values: np.ndarray) -> np.ndarray:
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1:
        raise ValueError(f"p-values must be a flat array, got shape {p.shape}")
    wrong = ~((p >= 0) & (p <= 1))
    if wrong.any():
        raise ValueError(f"p-values must lie between 0 and 1, got {p[wrong][0]}")
    return p


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
