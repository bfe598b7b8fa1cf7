"""What removing a bias does to a classifier: on inputs that have the bias, and on inputs that lack it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import rel_entr
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from ..statistics import resampled_means
from .data import NotDefinedError
from .edit import Edit
from .metrics import Figure, interval
from .tasks import Task

DOSES = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
"""Parts of what `remove` changes, for the curve over doses; 1 is the removal itself."""

EPSILON = 0.05
"""How far from full recovery, and from no damage, perfect steering may be."""

MIN_ROWS = 10
"""Rows that a group needs for intervals, and so for a verdict; resampling one row would give intervals of no width."""

_TINY = 1e-30  # instead of a probability of 0

GROUPS = ("biased", "unbiased", "aligned")
"""The groups of test rows, as `Judge.groups` says."""

_NOT_DEFINED: Figure = (np.nan, np.nan, np.nan)

Function = Callable[..., np.ndarray]

_FUNCTIONS: dict[str, Function] = {
    "success": lambda b, u, a: b[..., 1] - b[..., 0],
    "bias_cost": lambda b, u, a: b[..., 5] - b[..., 0],
    "recovery": lambda b, u, a: (b[..., 1] - b[..., 0]) / (b[..., 5] - b[..., 0]),
    "damage": lambda b, u, a: u[..., 0] - u[..., 1],
    "over_correction": lambda b, u, a: a[..., 5] - a[..., 1],
    "net_gain": lambda b, u, a: b[..., 1] - b[..., 0] + u[..., 1] - u[..., 0] - np.maximum(0, a[..., 5] - a[..., 1]),
    "flip_rate": lambda b, u, a: u[..., 2],
    "kl": lambda b, u, a: u[..., 3],
    "dose": lambda b, u, a: b[..., 4],
    "drift": lambda b, u, a: u[..., 4],
}
"""Figures as functions of the mean figures of biased, unbiased and aligned rows (`_group_figures`)."""


@dataclass(frozen=True, eq=False)
class Judge:
    """A classifier of a task's label, and the test rows that it is asked about.

    The classifier is a logistic regression of standardized features, trained on the training rows, where label and
    bias are correlated. It is never fitted again, so what changes is what it sees.
    """

    task: Task

    @cached_property
    def head(self) -> Pipeline:
        """The classifier."""
        head = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        return head.fit(self.task.features[self.task.train], self.task.target[self.task.train])

    @cached_property
    def goes_with_bias(self) -> np.ndarray:
        """The labels that are more frequent among training rows with the bias than among all."""
        task = self.task
        has, target = task.concepts[task.bias][task.train], task.target[task.train]
        labels = np.unique(target)
        return np.array([label for label in labels if (target[has] == label).mean() > (target == label).mean()])

    @cached_property
    def groups(self) -> dict[str, np.ndarray]:
        """The numbers of test rows by how they stand to the bias.

        - "biased": they have the bias, though it does not go with their label. Here the bias misleads the classifier.
        - "aligned": they have the bias, and it goes with their label.
        - "unbiased": they lack it.

        Raises:
            NotDefinedError: There are no biased or no unbiased rows.
        """
        task, test = self.task, self.task.test
        has, goes = task.concepts[task.bias][test], np.isin(task.target[test], self.goes_with_bias)
        groups = {"biased": test[has & ~goes], "aligned": test[has & goes], "unbiased": test[~has]}
        for name in ("biased", "unbiased"):
            if not len(groups[name]):
                raise NotDefinedError(f"{task.name} has no {name} test rows")
        return groups

    def correct(self, X: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return for which rows the classifier is right if it sees X, 1.0 or 0.0."""
        return (self.head.predict(X) == self.task.target[rows]).astype(np.float64)

    @cached_property
    def reference(self) -> dict[str, np.ndarray]:
        """For each biased and each aligned row, how often the classifier is right if the bias is not there.

        That is whether it is right about the counterfactual. If a row of the group has none, it is the accuracy on
        unbiased rows with the same label.
        """
        return {group: self._reference(self.groups[group]) for group in ("biased", "aligned")}

    @property
    def reference_from(self) -> str:
        """Where the reference of biased rows is from: "pairs" or "unbiased"."""
        return "pairs" if self._has_pairs(self.groups["biased"]) else "unbiased"

    def _has_pairs(self, rows: np.ndarray) -> bool:
        pairs = self.task.counterfactuals
        return pairs is not None and bool(np.isfinite(pairs[rows]).all())

    def _reference(self, rows: np.ndarray) -> np.ndarray:
        task = self.task
        if not len(rows):
            return np.zeros(0)
        if self._has_pairs(rows):
            return self.correct(task.counterfactuals[rows], rows)
        without = self.groups["unbiased"]
        right = self.correct(task.features[without], without)
        by_label = {label: right[task.target[without] == label].mean() for label in np.unique(task.target[without])}
        return np.array([by_label.get(label, right.mean()) for label in task.target[rows]])


def damage_figures(edit: Edit, judge: Judge, seed: int) -> tuple[dict[str, Figure], dict[str, np.ndarray]]:
    """Measure success on biased inputs and damage on all others.

    Biased, unbiased and aligned are the test rows of `Judge.groups`, T is `edit.remove`, and h the classifier.

    - `success`: accuracy of h(T(x)) minus that of h(x), on biased rows.
    - `bias_cost`: what the bias costs on biased rows: the accuracy of `Judge.reference` minus that of h(x).
    - `recovery`: success / bias_cost; not defined unless the lower end of bias_cost's interval is above 0, which takes
      at least `MIN_ROWS` biased rows.
    - `damage`: accuracy of h(x) minus that of h(T(x)), on unbiased rows; negative if it gets better.
    - `over_correction`: accuracy of `Judge.reference` minus that of h(T(x)), on aligned rows, where the bias helps the
      classifier. It is positive if removal takes more than this help.
    - `net_gain`: success - damage - max(0, over_correction), in accuracy.
    - `flip_rate`: how often h(x) and h(T(x)) differ, on unbiased rows.
    - `kl`: mean KL divergence of h's probabilities for T(x) from those for x, on unbiased rows.
    - `dose` and `drift`: mean |T(x) - x| / |x| on biased and on unbiased rows.
    - `worst_group`: the lowest accuracy of h(T(x)) over groups of label and bias; `worst_group_before`, of h(x).
    - `exactness`: 1 - sum |T(x) - x'|^2 / sum |x - x'|^2 over rows with the bias, x' being the counterfactual: 1 if
      removal gives the embedding of the same input without the bias, 0 if it stays as far from it as no change.
    - `injection_exactness`: the same on unbiased rows for `edit.add` with amount 1.

    Differences between accuracies, `flip_rate`, `kl`, `dose` and `drift` have no interval (NaN) where one of their
    groups has fewer than `MIN_ROWS` rows.

    Returns:
        The figures, and what the removal gained in each row, by group: right after it minus right before it in biased
        and unbiased rows, minus the reference in aligned rows. These are what paired tests between methods compare.
    """
    task = judge.task
    rows = [judge.groups[name] for name in GROUPS]
    measured = _group_figures(edit.remove, judge)
    figures = _of_means(_FUNCTIONS, measured, seed)
    if not figures["bias_cost"][1] > 0:  # of two differences around 0, any ratio may come out
        figures["recovery"] = _NOT_DEFINED
    for name, column in (("worst_group", 1), ("worst_group_before", 0)):
        figures[name] = _worst_group(task, rows, [part[:, column] for part in measured], seed)
    with_bias = np.concatenate([rows[0], rows[2]])
    for name, change, of in (("exactness", edit.remove, with_bias), ("injection_exactness", edit.add, rows[1])):
        figures |= _exactness(name, change, task, of, seed)
    before = [measured[0][:, 0], measured[1][:, 0], measured[2][:, 5]]
    return figures, {name: part[:, 1] - b for name, part, b in zip(GROUPS, measured, before, strict=True)}


def dose_figures(edit: Edit, judge: Judge, seed: int) -> list[dict[str, float]]:
    """Measure what parts of the removal do, x + t (remove(x) - x).

    Returns:
        One record for each part t: `part`, and `dose` (mean |change| / |x| on biased rows), `success`, `damage` and
        `over_correction` with the ends of their intervals.
    """
    functions = {name: _FUNCTIONS[name] for name in ("dose", "success", "damage", "over_correction")}
    records = []
    for part in DOSES:

        def change(x: np.ndarray, part: float = part) -> np.ndarray:
            return x + part * (edit.remove(x) - x)

        record = {"part": part}
        for name, (value, low, high) in _of_means(functions, _group_figures(change, judge), seed).items():
            record |= {name: value, f"{name}_low": low, f"{name}_high": high}
        records.append(record)
    return records


def is_perfect(figures: dict[str, Figure], epsilon: float = EPSILON) -> bool | None:
    """Return whether steering is perfect.

    It is if recovery is at least 1 - epsilon, and damage and over-correction are at most epsilon, each with its 95%
    interval; over-correction where there are aligned rows. Without the last condition, a method that
    pushes all inputs with the bias away from the bias's labels would be perfect.

    Returns:
        None if that is not defined: the bias does not mislead the classifier, so recovery is not defined, or a figure
        has no interval, because a group has fewer than `MIN_ROWS` rows.
    """
    needed = [figures["recovery"], figures["damage"]]
    if np.isfinite(figures["over_correction"][0]):
        needed.append(figures["over_correction"])
    if not np.isfinite(needed).all():
        return None
    harm = [figures["damage"][2], np.nan_to_num(figures["over_correction"][2], nan=0.0)]
    return bool(figures["success"][0] > 0 and figures["recovery"][1] >= 1 - epsilon and max(harm) <= epsilon)


def _row_figures(change: Callable[[np.ndarray], np.ndarray], judge: Judge, rows: np.ndarray) -> np.ndarray:
    """Return for each row: right before, right after, prediction changed, divergence, relative change (n, 5)."""
    if not len(rows):
        return np.zeros((0, 5))
    X = judge.task.features[rows]
    after = change(X)
    before, steered = (judge.head.predict_proba(x) for x in (X, after))
    predictions = [judge.head.classes_[each.argmax(axis=1)] for each in (before, steered)]
    return np.column_stack(
        [
            *(prediction == judge.task.target[rows] for prediction in predictions),
            predictions[0] != predictions[1],
            rel_entr(before, np.maximum(steered, _TINY)).sum(axis=1),
            np.linalg.norm(after - X, axis=1) / np.maximum(np.linalg.norm(X, axis=1), 1e-30),
        ]
    ).astype(np.float64)


def _group_figures(change: Callable[[np.ndarray], np.ndarray], judge: Judge) -> list[np.ndarray]:
    """Return the figures of the rows of each group, as `_row_figures` and, as the last, the reference."""
    references = [judge.reference["biased"], np.zeros(len(judge.groups["unbiased"])), judge.reference["aligned"]]
    return [
        np.column_stack([_row_figures(change, judge, judge.groups[name]), reference])
        for name, reference in zip(GROUPS, references, strict=True)
    ]


def _of_means(functions: dict[str, Function], groups: Sequence[np.ndarray], seed: int) -> dict[str, Figure]:
    """Evaluate functions of the means of groups of rows, with intervals from resampled rows if they are enough."""
    known = [group if len(group) else np.zeros((1, group.shape[1])) for group in groups]
    means = [group.mean(axis=0) for group in known]
    draws = [resampled_means(group, seed=seed + place) for place, group in enumerate(known)]
    for group, drawn in zip(groups, draws, strict=True):
        if 0 < len(group) < MIN_ROWS:
            drawn[:] = np.nan
    with np.errstate(invalid="ignore", divide="ignore"):
        figures = {name: (float(f(*means)), *interval(f(*draws))) for name, f in functions.items()}
    if not len(groups[2]):
        figures["over_correction"] = _NOT_DEFINED
    return figures


def _worst_group(task: Task, rows: Sequence[np.ndarray], correct: Sequence[np.ndarray], seed: int) -> Figure:
    groups = [
        right[task.target[of] == label][:, None]
        for of, right in zip(rows, correct, strict=True)
        for label in np.unique(task.target[of])
    ]
    draws = np.column_stack([resampled_means(group, seed=seed + i)[:, 0] for i, group in enumerate(groups)])
    return (float(min(group.mean() for group in groups)), *interval(draws.min(axis=1)))


def _exactness(
    name: str, change: Callable[[np.ndarray], np.ndarray], task: Task, rows: np.ndarray, seed: int
) -> dict[str, Figure]:
    if task.counterfactuals is not None:
        rows = rows[np.isfinite(task.counterfactuals[rows]).all(axis=1)]
    if task.counterfactuals is None or not len(rows):
        return {name: _NOT_DEFINED}
    X, wanted = task.features[rows], task.counterfactuals[rows]
    errors = np.column_stack([((each - wanted) ** 2).sum(axis=1) for each in (change(X), X)])
    draws = resampled_means(errors, seed=seed)
    left, before = errors.mean(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {name: (float(1 - left / before), *interval(1 - draws[:, 0] / draws[:, 1]))}
