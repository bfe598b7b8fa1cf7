"""The ends of a target: whether predictions follow extreme values, and of which of them nothing is known."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from .outcome import interval
from .slices import FEWEST

OUTLIER = 2.0
"""Standard deviations from the mean beyond which a target is an outlier."""
UNSEEN = (0.7, 0.55, 0.4)
"""Responses to outliers that are minor, moderate and severe."""
FLAT = (0.5, 0.3, 0.1)
"""Responses in the tails that are minor, moderate and severe: of skewed targets a sound model has 0.6."""


def unknown_ends(found: Iterable[tuple[str, float, float, float]]) -> list[str]:
    """Return which extreme values of a target nothing is known of, since rows are few or predictions weak.

    Those are values whose response may be severe or harmless, and those of which there are too few to say anything: no
    finding is no all-clear there.

    Args:
        found: Figures of the target: metric, value, and the ends of its interval.
    """
    far = f"values more than {OUTLIER:g} standard deviations from the mean"
    wide = {"tail_response": ("the more extreme half of its values", FLAT), "outlier_response": (far, UNSEEN)}
    parts = []
    for metric, value, low, high in found:
        if metric not in wide:
            continue
        what, limits = wide[metric]
        if not np.isfinite(value):
            parts.append(f"{what} (less than {FEWEST} rows)" if metric == "outlier_response" else what)
        elif low < limits[-1] and high > limits[0]:
            parts.append(f"{what} ({low:.2g} to {high:.2g})")
    return parts


def slopes(a: np.ndarray, b: np.ndarray, p: np.ndarray, *products: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the slopes of p on a and b by least squares, from their means and the means of aa, ab, bb, ap, bp."""
    aa, ab, bb, ap, bp = products
    aa, ab, bb, ap, bp = aa - a * a, ab - a * b, bb - b * b, ap - a * p, bp - b * p
    determinant = aa * bb - ab * ab
    return (ap * bb - bp * ab) / determinant, (bp * aa - ap * ab) / determinant


def quantile_ratio(y: np.ndarray, p: np.ndarray, seed: int) -> tuple[float, float, float]:
    """Return the range from the 5th to the 95th percentile of p over that of y, and its bootstrap interval."""

    def ratio(rows: np.ndarray | slice) -> np.ndarray:
        of_p, of_y = (np.diff(np.quantile(each[rows], (0.05, 0.95), axis=-1), axis=0)[0] for each in (p, y))
        return of_p / np.where(of_y > 0, of_y, np.nan)

    rows = np.random.default_rng(seed).integers(len(y), size=(200, len(y)))
    return float(ratio(slice(None))), *interval(ratio(rows))
