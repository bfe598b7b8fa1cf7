"""Corrections of p-values for the number of tests."""

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
