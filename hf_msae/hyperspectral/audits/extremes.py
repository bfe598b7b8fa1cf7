"""The ends of a target: whether predictions follow extreme values, and of which of them nothing is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..._utils.wording import mentions
from ...statistics import Finding
from .outcome import interval
from .slices import FEWEST

OUTLIER = 2.0
"""Standard deviations from the mean beyond which a target is an outlier."""
UNSEEN = (0.7, 0.55, 0.4)
"""Responses to outliers that are minor, moderate and severe."""
FLAT = (0.5, 0.3, 0.1)
"""Responses in the tails that are minor, moderate and severe: of skewed targets a sound model has 0.6."""


def unknown_ends(performance: pd.DataFrame, findings: Sequence[Finding]) -> dict[str, list[str]]:
    """Return of which extreme values of each target nothing is known, since rows are few or predictions weak.

    Those are values whose response may be as low as that of a severe finding, and those of which there are too few to
    say anything, unless a finding is about the ends of that target: no finding is no all-clear there.
    """
    far = f"values more than {OUTLIER:g} standard deviations from the mean"
    wide = {"tail_response": ("the more extreme half of its values", FLAT), "outlier_response": (far, UNSEEN)}
    found: dict[str, list[str]] = {}
    said = [f"{each.title} {each.evidence}" for each in findings if each.metric in wide]
    for row in performance[performance["metric"].isin(list(wide))].itertuples():
        if any(mentions(each, row.target) for each in said):
            continue
        what, limits = wide[row.metric]
        value, low, high = (np.nan if each is None else float(each) for each in (row.value, row.low, row.high))
        if not np.isfinite(value):
            why = f"fewer than {FEWEST} rows" if row.metric == "outlier_response" else "not defined"
            found.setdefault(row.target, []).append(f"{what} ({why})")
        elif low < limits[-1]:
            found.setdefault(row.target, []).append(f"{what} ({low:.2g} to {high:.2g})")
    return found


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
