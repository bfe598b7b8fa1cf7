"""Why a figure is not defined: the one reason that applies, with the numbers that it applies for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .damage import MIN_ROWS, Judge
from .doses import EQUAL_DOSES
from .metrics import Figure

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
