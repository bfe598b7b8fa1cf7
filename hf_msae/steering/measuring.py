"""Measure one method on one task: fit it to every concept, and compute all figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

import numpy as np

from ..backbones import Backbone
from .cross_validation import noting_convergence
from .damage import NOT_DEFINED, Judge, damage_figures
from .data import NotDefinedError
from .doses import dose_unit, injection_doses, removal_doses
from .edit import Edit
from .metrics import (
    Figure,
    concept_figures,
    cross_concept_figures,
    orthogonality_figures,
    robustness_figures,
)
from .tasks import Task
from .verdict import is_perfect, why_not_defined


def measure(
    task: Task, edit: Edit, seed: int, backbone: Backbone | None = None, only_bias: bool = False
) -> dict[str, Any]:
    """Fit an edit to every concept of a task, or to its bias alone, and measure it.

    Methods that take the other concepts are given the labels too, which whoever trained the classifier knows. With a
    backbone, the edit is fitted to the names of the concepts.

    Returns:
        `figures`, records of concept, metric, value, low, high and, where a figure is not defined, the reason;
        `cross`, the AUROC of each concept after each was removed; `doses` and `injection`, the curves; `biased`,
        `unbiased` and `aligned`, what the removal of the bias gained in each of these rows (`damage_figures`);
        `equal_dose`, the same at doses that are equal for all methods; `perfect`; and `notes`, which fits stopped
        before they converged. Besides what `damage_figures` and the curves give, the bias has `stretch` and
        `injection_stretch`: how many times as much as `remove` (in biased rows) and `add` (in unbiased ones) change by
        themselves is the largest of the doses that are equal for all methods.
    """
    with edit.reading(task.features):
        return _measure(task, edit, seed, backbone, only_bias)


def _measure(task: Task, edit: Edit, seed: int, backbone: Backbone | None, only_bias: bool) -> dict[str, Any]:
    edits: dict[str, Edit] = {}
    records: list[dict[str, Any]] = []
    notes: dict[str, list[str]] = {}
    train, labels = task.train, [task.target == label for label in np.unique(task.target)[1:]]
    X = task.features[train].astype(np.float64)  # as fits compute: once for all concepts
    for concept, has in task.concepts.items():
        others = np.stack([*labels, *(found for name, found in task.concepts.items() if name != concept)], axis=1)
        if only_bias and concept != task.bias:
            continue
        if not 0 < (number := int(has[task.test].sum())) < len(task.test):
            reason = f"{number} of {len(task.test)} test rows have the concept"
            records.append({"concept": concept, "metric": "fit", "value": None, "reason": reason})
            continue
        try:
            with noting_convergence() as notes[f"fit of {concept}"]:
                if backbone is None:
                    edits[concept] = copy(edit).fit(X, has[train], seed=seed, others=others[train])
                else:
                    name = concept.replace("_", " ")
                    edits[concept] = copy(edit).fit_by_name(name, backbone, X, seed=seed)
        except (NotDefinedError, np.linalg.LinAlgError) as error:
            reason = _with_names(str(error), task, concept)
            records.append({"concept": concept, "metric": "fit", "value": None, "reason": reason})
    cross = cross_concept_figures(edits, task)
    directions = orthogonality_figures(edits, task) if not only_bias else {concept: {} for concept in edits}
    for concept, fitted in edits.items():
        with noting_convergence() as notes[f"probes of {concept}"]:
            figures = concept_figures(fitted, task, concept, seed)
        figures |= robustness_figures(concept, cross, seed) | directions[concept]
        records += _records(concept, figures)
    found: dict[str, Any] = {"biased": [], "unbiased": [], "aligned": [], "perfect": None}
    found |= {"doses": [], "injection": [], "equal_dose": {}}
    if task.bias in edits:
        try:
            judge = Judge(task)
            with noting_convergence() as notes["classifier of the label"]:
                figures, gains = damage_figures(edits[task.bias], judge, seed)
            doses, at_equal_dose, gains_at_equal_dose = removal_doses(edits[task.bias], judge, seed)
            injection, injected = injection_doses(edits[task.bias], judge, seed)
            unit = dose_unit(task)
            figures |= {"net_gain_equal_dose": at_equal_dose, **injected}
            figures |= {"stretch": _stretch(doses, unit), "injection_stretch": _stretch(injection, unit)}
            records += _records(task.bias, figures, judge, unit)
            found = {
                "doses": _numbers(doses),
                "injection": _numbers(injection),
                **_rounded(gains),
                "equal_dose": _rounded(gains_at_equal_dose),
                "perfect": is_perfect(figures, judge.num_rows, num_labels=len(judge.head.classes_)),
                "reference": judge.reference_from,
            }
        except NotDefinedError as error:
            records += [
                {"concept": task.bias, "metric": metric, "value": None, "reason": str(error)}
                for metric in ("success", "recovery")
            ]
    return {
        "figures": records,
        "cross": [
            {"found": a, "removed": b, "auroc": value} for (a, b), value in cross.areas.items() if b is not None
        ],
        **found,
        "notes": [f"{what}: {note}" for what, each in notes.items() for note in dict.fromkeys(each)],
    }


def _with_names(reason: str, task: Task, concept: str) -> str:
    labels = np.unique(task.target)
    names = ["the label"] if len(labels) == 2 else [f"the label {label}" for label in labels[1:]]
    for number, name in enumerate([*names, *(name for name in task.concepts if name != concept)]):
        reason = reason.replace(f"others[:, {number}]", name)
    return reason


def _stretch(curve: Sequence[Mapping[str, float]], unit: float) -> Figure:
    """Return the part of a change that has the dose `unit`, given its curve; infinite for no change at all."""
    for record in curve:
        if record["part"] == 1:
            with np.errstate(divide="ignore"):  # a larger dose is a smaller part
                return tuple(float(np.divide(unit, record[f"dose{end}"])) for end in ("", "_high", "_low"))
    return NOT_DEFINED


def _records(
    concept: str, figures: Mapping[str, Figure], judge: Judge | None = None, unit: float = np.nan
) -> list[dict[str, Any]]:
    records = []
    for metric, figure in figures.items():
        record = dict(zip(("value", "low", "high"), map(_number, figure), strict=True))
        if record["value"] is None:
            record["reason"] = why_not_defined(metric, figures, judge, unit)
        records.append({"concept": concept, "metric": metric, **record})
    return records


def _numbers(records: Sequence[Mapping[str, float]]) -> list[dict[str, float | None]]:
    return [{name: _number(value) for name, value in record.items()} for record in records]


def _rounded(gains: Mapping[str, np.ndarray]) -> dict[str, list[float]]:
    return {group: np.round(of_group, 6).tolist() for group, of_group in gains.items()}


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
