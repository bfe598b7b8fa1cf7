"""Whether steering is perfect, and why that, or a figure, is not defined where it is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from .._utils.wording import counted
from .damage import GROUPS, MIN_ROWS, NOT_DEFINED, Judge
from .doses import EQUAL_DOSES
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
            more = f" (and {counted(len(reasons) - 1, 'more reason')})" if len(reasons) > 1 else ""
            return f"{whose}{reasons[0]}{more}"
    sizes = {(group, len(rows)) for group in GROUPS for rows in gains[group] if len(rows)}
    group, number = min(sizes, key=lambda size: size[1], default=("", MIN_VERDICT_ROWS))
    if number < MIN_VERDICT_ROWS:
        return f"{number} test rows are {group}, and a verdict takes {MIN_VERDICT_ROWS} of each group"
    return f"a group of label and bias has fewer than {MIN_ROWS} test rows"


_OF_REMOVAL = ("net_gain_equal_dose", "stretch")
_OF_INJECTION = ("injection_exactness", "injection_gain", "injection_gain_equal_dose", "injection_stretch")
_AT_ANY_PART = ("net_gain_equal_dose", "stretch", "injection_gain_equal_dose", "injection_stretch")


def why_not_defined(metric: str, figures: Mapping[str, Figure], judge: Judge | None, unit: float) -> str:
    """Return why a figure has no value.

    `figures` still has values that are infinite; `judge` is None for figures that are not of the bias.
    """
    if metric.startswith("orthogonality"):
        return "`add` changes nothing"
    if metric == "over_correction":
        return "there are no aligned test rows"
    if judge is None:
        return _OTHERWISE
    if metric == "recovery":
        return _of_recovery(figures["bias_cost"], len(judge.groups["biased"]))
    if metric == "exactness" and not _num_pairs(judge, ("biased", "aligned")):
        return "the task has no exact pairs of rows with the bias"
    if metric in _OF_INJECTION and not _num_pairs(judge, ("unbiased",)):
        return "the task has no exact pairs of rows without the bias"
    if metric.endswith("exactness"):
        return "in the exact pairs, the bias changes no feature"
    if metric in _AT_ANY_PART:
        name, change, group = ("stretch", "remove", "biased")
        if metric not in _OF_REMOVAL:
            name, change, group = ("injection_stretch", "add", "unbiased")
        dose = unit / figures[name][0]
        return (
            f"`{change}` changes {group} rows by {dose:.2g} of their length, too little to be scaled to the dose "
            f"{EQUAL_DOSES[-1] * unit:.2g}"
        )
    return _OTHERWISE


_OTHERWISE = "it is infinite or the ratio of two zeros"


def _of_recovery(bias_cost: Figure, num_biased: int) -> str:
    value, low, high = bias_cost
    if num_biased < MIN_ROWS:
        rows = "1 test row is" if num_biased == 1 else f"{num_biased} test rows are"
        return f"{rows} biased, and an interval of what the bias costs there takes {MIN_ROWS}"
    return (
        f"the bias is not shown to mislead the classifier: on {num_biased} biased rows it costs {value:.3f} of the "
        f"accuracy, with an interval of {low:.3f} to {high:.3f}"
    )


def _num_pairs(judge: Judge, groups: Sequence[str]) -> int:
    pairs, rows = judge.task.counterfactuals, np.concatenate([judge.groups[group] for group in groups])
    return 0 if pairs is None else int(np.isfinite(pairs[rows]).all(axis=1).sum())
