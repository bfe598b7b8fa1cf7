"""Curves over doses: what parts of a removal and amounts of an injection do, and both at equal relative doses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..statistics import percentiles, resampled_means
from .damage import FUNCTIONS, GROUPS, MIN_ROWS, NOT_DEFINED, Judge, group_figures, of_means, relative_change
from .edit import Edit
from .metrics import Figure
from .tasks import Task

DOSES = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
"""Parts of what `remove` changes and amounts of `add`, for the curves over doses; 1 is the removal itself."""

EQUAL_DOSES = (0.25, 0.5, 0.75, 1.0)
"""Doses at which all methods are compared, in units of `dose_unit`."""

_SMALLEST = 0.01
"""Of `dose_unit`: an edit that changes less cannot be scaled to that dose; it would be its rounding errors."""

_RECORDED = ("dose", "success", "damage", "over_correction")


def dose_unit(task: Task) -> float:
    """Return the distance between the means of training rows with the bias and without it, relative to the rows.

    It is the dose that takes rows from one mean to the other: |m+ - m-| / mean |x|.
    """
    X, has = task.features[task.train].astype(np.float64), task.concepts[task.bias][task.train]
    return float(np.linalg.norm(X[has].mean(axis=0) - X[~has].mean(axis=0)) / np.linalg.norm(X, axis=1).mean())


def removal_doses(edit: Edit, judge: Judge, seed: int) -> tuple[list[dict[str, float]], Figure, dict[str, np.ndarray]]:
    """Measure what parts of the removal do, x + t (remove(x) - x), and what it gains at doses equal for all methods.

    For the latter, t is chosen so that the mean of |change| / |x| on biased rows is the one asked for, at the doses
    `EQUAL_DOSES` times `dose_unit`. Right or wrong is averaged over these doses and 0 by the trapezoid rule, so that
    figures are areas under the curve over the dose, divided by its range.

    Returns:
        One record for each part t: `part`, and `dose` (mean |change| / |x| on biased rows), `success`, `damage` and
        `over_correction` with the ends of their intervals. The net gain at equal doses, and what is gained there in
        each row by group, as `damage_figures` returns them; NaN and {} where the removal changes too little.
    """
    task = judge.task
    before = {name: task.features[rows] for name, rows in judge.groups.items()}
    change = {name: after - before[name] for name, after in judge.edited(edit.remove).items()}

    def measured(part: float) -> list[np.ndarray]:
        return group_figures({name: before[name] + part * change[name] for name in GROUPS}, judge)

    functions = {name: FUNCTIONS[name] for name in _RECORDED}
    records = _records(DOSES, of_means(functions, [measured(part) for part in DOSES], seed))
    parts = _equal_parts(relative_change(before["biased"] + change["biased"], before["biased"]).mean(), task)
    if parts is None:
        return records, NOT_DEFINED, {}
    at_doses = [measured(part) for part in (0.0, *parts)]
    averaged = [part.copy() for part in at_doses[0]]
    for place, group in enumerate(averaged):
        group[:, 1] = _area([each[place][:, 1] for each in at_doses])
    (figures,) = of_means({"net_gain": FUNCTIONS["net_gain"]}, [averaged], seed)
    expected = [averaged[0][:, 0], averaged[1][:, 0], averaged[2][:, 5]]
    gains = {name: group[:, 1] - b for name, group, b in zip(GROUPS, averaged, expected, strict=True)}
    return records, figures["net_gain"], gains


def injection_doses(edit: Edit, judge: Judge, seed: int) -> tuple[list[dict[str, float]], dict[str, Figure]]:
    """Measure what adding the bias does in unbiased rows, against the same inputs rendered with it.

    With x' the counterfactual of x, and h the classifier:

    - `gain`: how often h(add(x)) is h(x'), minus how often h(x) is: predictions that change as the bias changes them
      count for it, and those that change otherwise against it.
    - `exactness`: 1 - sum |add(x) - x'|^2 / sum |x - x'|^2.
    - `dose`: mean |add(x) - x| / |x|.

    Returns:
        One record for each amount of `DOSES`: `part` (the amount), and `dose`, `gain` and `exactness` with the ends of
        their intervals. And the figures `injection_gain`, at the amount 1, and `injection_gain_equal_dose`, which is
        averaged over doses as the net gain of `removal_doses` is, with x + t (add(x) - x).
    """
    task = judge.task
    rows = judge.groups["unbiased"]
    if task.counterfactuals is not None:
        rows = rows[np.isfinite(task.counterfactuals[rows]).all(axis=1)]
    if task.counterfactuals is None or not len(rows):
        return [], {"injection_gain": NOT_DEFINED, "injection_gain_equal_dose": NOT_DEFINED}
    X, wanted = task.features[rows], task.counterfactuals[rows]
    expected = judge.head.predict(wanted)
    same, distance = judge.head.predict(X) == expected, ((X - wanted) ** 2).sum(axis=1)

    def measured(after: np.ndarray) -> np.ndarray:
        agrees = judge.head.predict(after) == expected
        error = ((after - wanted) ** 2).sum(axis=1)
        return np.column_stack([agrees, same, error, distance, relative_change(after, X)]).astype(np.float64)

    amounts = [edit.add(X, amount) for amount in DOSES]
    found = _injection_figures(np.stack([measured(after) for after in amounts], axis=1), seed)
    figures = {"injection_gain": found[DOSES.index(1.0)]["gain"], "injection_gain_equal_dose": NOT_DEFINED}
    change = amounts[DOSES.index(1.0)] - X
    if parts := _equal_parts(relative_change(X + change, X).mean(), task):
        at_doses = [measured(X + part * change) for part in (0.0, *parts)]
        averaged = at_doses[0].copy()
        averaged[:, 0] = _area([each[:, 0] for each in at_doses])
        (of_area,) = _injection_figures(averaged[:, None], seed)
        figures["injection_gain_equal_dose"] = of_area["gain"]
    return _records(DOSES, found), figures


_INJECTION: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "dose": lambda means: means[..., 4],
    "gain": lambda means: means[..., 0] - means[..., 1],
    "exactness": lambda means: 1 - means[..., 2] / means[..., 3],
}


def _injection_figures(measured: np.ndarray, seed: int) -> list[dict[str, Figure]]:
    """Return the figures of rows (n, amounts, 5), for each amount."""
    n, amounts, _ = measured.shape
    draws = resampled_means(measured.reshape(n, -1), seed=seed).reshape(-1, *measured.shape[1:])
    if n < MIN_ROWS:
        draws[:] = np.nan
    means = measured.mean(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = {name: (function(means), function(draws)) for name, function in _INJECTION.items()}
    return [
        {name: (float(value[i]), *percentiles(drawn[:, i])) for name, (value, drawn) in found.items()}
        for i in range(amounts)
    ]


def _equal_parts(whole: float, task: Task) -> list[float] | None:
    """Return the parts of an edit with a dose that have the doses of the comparison; None if it changes too little."""
    unit = dose_unit(task)
    if not whole > _SMALLEST * unit > 0:
        return None
    return [float(dose * unit / whole) for dose in EQUAL_DOSES]


def _area(values: list[np.ndarray]) -> np.ndarray:
    """Average values at the dose 0 and at `EQUAL_DOSES` over the doses."""
    return np.trapezoid(np.stack(values), (0.0, *EQUAL_DOSES), axis=0) / EQUAL_DOSES[-1]


def _records(parts: tuple[float, ...], figures: list[dict[str, Figure]]) -> list[dict[str, Any]]:
    records = []
    for part, figures_of_part in zip(parts, figures, strict=True):
        record = {"part": part}
        for name, (value, low, high) in figures_of_part.items():
            record |= {name: value, f"{name}_low": low, f"{name}_high": high}
        records.append(record)
    return records
