"""What removing a bias does to a classifier: on inputs that have the bias, and on inputs that lack it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import rel_entr
from scipy.stats import chi2_contingency
from scipy.stats.contingency import crosstab
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from ..statistics import percentiles, resampled_means
from .data import NotDefinedError
from .edit import Edit
from .metrics import Figure
from .tasks import Task

MIN_ROWS = 10
"""Rows that a group needs for intervals; resampling one row would give intervals of no width."""

MOST_P_VALUE = 0.001
"""P-value of the independence of label and bias in the training rows, at most; above it, nothing is spurious."""

_TINY = 1e-30  # instead of a probability of 0

GROUPS = ("biased", "unbiased", "aligned")
"""The groups of test rows, as `Judge.groups` says."""

NOT_DEFINED: Figure = (np.nan, np.nan, np.nan)

Function = Callable[..., np.ndarray]

FUNCTIONS: dict[str, Function] = {
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
"""Figures as functions of the mean figures of biased, unbiased and aligned rows (`group_figures`)."""


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
        """
        task, test = self.task, self.task.test
        counts = crosstab(task.target[task.train], task.concepts[task.bias][task.train]).count
        if min(counts.shape) < 2 or (p_value := chi2_contingency(counts).pvalue) > MOST_P_VALUE:
            known = "all rows are alike" if min(counts.shape) < 2 else f"p = {p_value:.2g}"
            raise NotDefinedError(
                f"label and bias of {task.name} are not correlated in the training rows ({known}), so the bias "
                "misleads no classifier and there is nothing to recover"
            )
        has, goes = task.concepts[task.bias][test], np.isin(task.target[test], self.goes_with_bias)
        groups = {"biased": test[has & ~goes], "aligned": test[has & goes], "unbiased": test[~has]}
        for name in ("biased", "unbiased"):
            if not len(groups[name]):
                raise NotDefinedError(f"{task.name} has no {name} test rows")
        return groups

    @property
    def num_rows(self) -> int:
        """The number of rows of the smallest group; a task may have no aligned rows."""
        return min(len(rows) for rows in self.groups.values() if len(rows))

    @cached_property
    def probabilities(self) -> dict[str, np.ndarray]:
        """The classifier's probabilities for the rows of each group before any edit."""
        groups = {name: self.task.features[rows] for name, rows in self.groups.items()}
        return {name: self.probabilities_of(X) for name, X in groups.items()}

    def probabilities_of(self, X: np.ndarray) -> np.ndarray:
        """Return the classifier's probabilities of the labels (n, labels)."""
        return self.head.predict_proba(X) if len(X) else np.zeros((0, len(self.head.classes_)))

    def edited(self, change: Callable[[np.ndarray], np.ndarray]) -> dict[str, np.ndarray]:
        """Return what a change of features makes of the rows of each group."""
        features = {name: self.task.features[rows] for name, rows in self.groups.items()}
        return {name: change(X) if len(X) else X for name, X in features.items()}

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
    groups has fewer than `MIN_ROWS` rows, nor has the worst group where a group of label and bias has.

    Returns:
        The figures, and what the removal gained in each row, by group: right after it minus right before it in biased
        and unbiased rows, minus the reference in aligned rows. These are what paired tests between methods compare.
    """
    task = judge.task
    rows = [judge.groups[name] for name in GROUPS]
    measured = group_figures(judge.edited(edit.remove), judge)
    (figures,) = of_means(FUNCTIONS, [measured], seed)
    if not figures["bias_cost"][1] > 0:  # of two differences around 0, any ratio may come out
        figures["recovery"] = NOT_DEFINED
    for name, column in (("worst_group", 1), ("worst_group_before", 0)):
        figures[name] = _worst_group(task, rows, [part[:, column] for part in measured], seed)
    with_bias = np.concatenate([rows[0], rows[2]])
    for name, change, of in (("exactness", edit.remove, with_bias), ("injection_exactness", edit.add, rows[1])):
        figures |= _exactness(name, change, task, of, seed)
    before = [measured[0][:, 0], measured[1][:, 0], measured[2][:, 5]]
    return figures, {name: part[:, 1] - b for name, part, b in zip(GROUPS, measured, before, strict=True)}


def group_figures(after: Mapping[str, np.ndarray], judge: Judge) -> list[np.ndarray]:
    """Return the figures of the rows of each group, given what an edit made of their features.

    They are: right before, right after, prediction changed, divergence, relative change, and the reference (n, 6).
    """
    references = [judge.reference["biased"], np.zeros(len(judge.groups["unbiased"])), judge.reference["aligned"]]
    found = []
    for name, reference in zip(GROUPS, references, strict=True):
        rows = judge.groups[name]
        before, steered = judge.probabilities[name], judge.probabilities_of(after[name])
        predictions = [judge.head.classes_[each.argmax(axis=1)] for each in (before, steered)]
        figures = [
            *(prediction == judge.task.target[rows] for prediction in predictions),
            predictions[0] != predictions[1],
            rel_entr(before, np.maximum(steered, _TINY)).sum(axis=1),
            relative_change(after[name], judge.task.features[rows]),
            reference,
        ]
        found.append(np.column_stack(figures).astype(np.float64))
    return found


def relative_change(after: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Return |after - before| / |before| of each row."""
    return np.linalg.norm(after - before, axis=1) / np.maximum(np.linalg.norm(before, axis=1), _TINY)


def of_means(
    functions: Mapping[str, Function], measured: Sequence[Sequence[np.ndarray]], seed: int
) -> list[dict[str, Figure]]:
    """Evaluate functions of the means of groups of rows, with intervals from resampled rows if they are enough.

    `measured` is what `group_figures` returned for each of several edits; they are resampled together.
    """
    means, draws = [], []
    for place, groups in enumerate(zip(*measured, strict=True)):
        n, columns = groups[0].shape
        known = np.stack(groups, axis=1) if n else np.zeros((1, len(groups), columns))
        means.append(known.mean(axis=0))
        drawn = resampled_means(known.reshape(len(known), -1), seed=seed + place).reshape(-1, *known.shape[1:])
        draws.append(np.full_like(drawn, np.nan) if 0 < n < MIN_ROWS else drawn)
    with np.errstate(invalid="ignore", divide="ignore"):
        values = {name: function(*means) for name, function in functions.items()}
        resampled = {name: function(*draws) for name, function in functions.items()}
    figures = [
        {name: (float(values[name][i]), *percentiles(resampled[name][:, i])) for name in functions}
        for i in range(len(measured))
    ]
    if not len(measured[0][2]) and "over_correction" in functions:
        figures = [{**each, "over_correction": NOT_DEFINED} for each in figures]
    return figures


def _worst_group(task: Task, rows: Sequence[np.ndarray], correct: Sequence[np.ndarray], seed: int) -> Figure:
    groups = [
        right[task.target[of] == label][:, None]
        for of, right in zip(rows, correct, strict=True)
        for label in np.unique(task.target[of])
    ]
    value = float(min(group.mean() for group in groups))
    if min(map(len, groups)) < MIN_ROWS:
        return (value, np.nan, np.nan)
    draws = np.column_stack([resampled_means(group, seed=seed + i)[:, 0] for i, group in enumerate(groups)])
    return (value, *percentiles(draws.min(axis=1)))


def _exactness(
    name: str, change: Callable[[np.ndarray], np.ndarray], task: Task, rows: np.ndarray, seed: int
) -> dict[str, Figure]:
    if task.counterfactuals is not None:
        rows = rows[np.isfinite(task.counterfactuals[rows]).all(axis=1)]
    if task.counterfactuals is None or not len(rows):
        return {name: NOT_DEFINED}
    X, wanted = task.features[rows], task.counterfactuals[rows]
    errors = np.column_stack([((each - wanted) ** 2).sum(axis=1) for each in (change(X), X)])
    draws = resampled_means(errors, seed=seed)
    left, before = errors.mean(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {name: (float(1 - left / before), *percentiles(1 - draws[:, 0] / draws[:, 1]))}
