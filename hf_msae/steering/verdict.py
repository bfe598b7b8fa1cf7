"""Whether steering is perfect, and why that is not defined where it is not."""

from __future__ import annotations

import numpy as np
import pandas as pd

from .damage import GROUPS, MIN_ROWS, NOT_DEFINED
from .metrics import Figure

EPSILON = 0.05
"""How far from full recovery, and from no damage, perfect steering may be."""

MIN_VERDICT_ROWS = 72
"""Rows that each group needs for a verdict. Where no row fails, resampled rows give an interval of no width: with n
rows, a method that fails in `EPSILON` of them looks faultless in 0.95^n of runs, which from here on is below 2.5%."""


def is_perfect(
    figures: dict[str, Figure], num_rows: int, epsilon: float = EPSILON, num_labels: int = 2
) -> bool | None:
    """Return whether steering is perfect.

    It is if recovery is at least 1 - epsilon, damage and over-correction are at most epsilon, and the accuracy in the
    worst group after removal is above chance, 1 / num_labels, each with its 95% interval; over-correction where there
    are aligned rows. Without over-correction, a method that pushes all inputs with the bias away from the bias's
    labels would be perfect. Without the worst group, so would one on features that say nothing of the label: there a
    classifier that is wrong about all inputs of a label, with the bias and without it, is neither helped nor harmed.

    It is None if recovery is not defined, a group has fewer than `MIN_VERDICT_ROWS` rows (`num_rows` are those of the
    smallest), or one of label and bias has fewer than `MIN_ROWS`.
    """
    needed = [figures["recovery"], figures["damage"]]
    if np.isfinite(figures["over_correction"][0]):
        needed.append(figures["over_correction"])
    if num_rows < MIN_VERDICT_ROWS or not np.isfinite(needed).all():
        return None
    harm = [figures["damage"][2], np.nan_to_num(figures["over_correction"][2], nan=0.0)]
    if not (figures["success"][0] > 0 and figures["recovery"][1] >= 1 - epsilon and max(harm) <= epsilon):
        return False
    _, low, _ = figures.get("worst_group", NOT_DEFINED)  # submissions may lack it
    return bool(low > 1 / num_labels) if np.isfinite(low) else None


def why_not_perfect(frame: pd.DataFrame, gains: pd.DataFrame) -> str:
    """Return why there is no verdict for any method and seed of a task, given its figures and its gains in rows."""
    for metric in ("success", "recovery", "fit"):
        of_metric = frame[(frame["metric"] == metric) & frame["reason"].notna()]
        if reasons := list(dict.fromkeys(of_metric["reason"])):
            whose = f"{of_metric['concept'].iloc[0]}: " if metric == "fit" else ""
            more = f" (and {len(reasons) - 1} more reasons)" if len(reasons) > 1 else ""
            return f"{whose}{reasons[0]}{more}"
    sizes = {(group, len(rows)) for group in GROUPS for rows in gains[group] if len(rows)}
    group, number = min(sizes, key=lambda size: size[1], default=("", MIN_VERDICT_ROWS))
    if number < MIN_VERDICT_ROWS:
        return f"{number} test rows are {group}, and a verdict takes {MIN_VERDICT_ROWS} of each group"
    return f"a group of label and bias has fewer than {MIN_ROWS} test rows"
