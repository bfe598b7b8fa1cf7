"""What a task of SwordBench is: features, concepts, a biased label and counterfactuals; and the tasks by name."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from typing import Any, TypeVar

import numpy as np

from ..data import NotDefinedError
from ..named import Named
from .inputs import SPLITS, as_concepts, as_features, as_labels, as_split


@dataclass(frozen=True, eq=False)
class Task:
    """Frozen features with known concepts.

    Methods are fitted on the training rows. A head, a logistic regression of the label, is trained on the same rows,
    where the label and one concept, the bias, are correlated; it is never refitted. In the test rows, label and bias
    should be independent. Every label of a test row is that of a training row too, and test rows that have the same
    features as a training row are counted in a warning.

    Arrays may also be given as tensors, lists, Series or DataFrames, and concepts as 0 and 1 or as a DataFrame with a
    column for each; what these do not mean clearly is refused. A task's arrays cannot be written to, and are copies of
    what others can write to: a task stays what its `sha256` says. To change one, pass other arrays to
    `dataclasses.replace`.

    Attributes:
        name: Name of the task.
        backbone: Name of the network that the features are of.
        features: Features (n, d), float32.
        concepts: Which rows have each concept, bool (n,) by name.
        target: The label of each row, int (n,).
        bias: The concept that the label is correlated with in training.
        split: "train" or "test" for each row (n,).
        counterfactuals: For each row, features of the same input with the bias flipped: without it if the input has
            it, and with it otherwise. NaN in rows that have none. None if there are none at all.
        provenance: How the task was made, as JSON can hold it.
    """

    name: str
    backbone: str
    features: np.ndarray
    concepts: Mapping[str, np.ndarray]
    target: np.ndarray
    bias: str
    split: np.ndarray
    counterfactuals: np.ndarray | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        for name, text in (("name", self.name), ("backbone", self.backbone)):
            if not isinstance(text, str):
                raise ValueError(f"the {name} of a task has to be a text, but is {text!r:.100}")
        given = {
            "features": as_features(self.features, f"features of {self.name}"),
            "concepts": as_concepts(self.concepts, self.name),
            "target": as_labels(self.target, f"the target of {self.name}"),
            "split": as_split(self.split, f"the split of {self.name}"),
        }
        if self.counterfactuals is not None:
            given["counterfactuals"] = as_features(self.counterfactuals, f"counterfactuals of {self.name}")
        for name, values in given.items():
            object.__setattr__(self, name, values)
        n = len(self.features)
        if not (finite := np.isfinite(self.features).all(axis=1)).all():
            bad = np.flatnonzero(~finite)
            raise ValueError(
                f"{len(bad)} of {n} rows of the features of {self.name} are not finite, the first of them row {bad[0]}"
            )
        if self.bias not in self.concepts:
            raise ValueError(f"the bias {self.bias!r} is none of the concepts {', '.join(self.concepts)}")
        for name, values in {**self.concepts, "target": self.target, "split": self.split}.items():
            if np.shape(values) != (n,):
                raise ValueError(f"{name} of {self.name} has the shape {np.shape(values)}, but there are {n} rows")
        if self.counterfactuals is not None and self.counterfactuals.shape != self.features.shape:
            raise ValueError(
                f"counterfactuals of {self.name} have the shape {self.counterfactuals.shape}, but the features "
                f"{self.features.shape}"
            )
        for split in SPLITS:
            rows = self.rows(split)
            if len(np.unique(self.target[rows])) < 2:
                raise NotDefinedError(f"the {split} rows of {self.name} have fewer than two labels")
        if len(unknown := np.setdiff1d(self.target[self.test], self.target[self.train])):
            raise ValueError(
                f"test rows of {self.name} have the labels {', '.join(map(str, unknown))}, which no training row has: "
                "a classifier can never be right about them, before or after an edit. Leave these rows out"
            )
        seen = {row.tobytes() for row in self.features[self.train]}
        if shared := sum(row.tobytes() in seen for row in self.features[self.test]):
            warnings.warn(
                f"{shared} of {len(self.test)} test rows of {self.name} have the features of a training row: if they "
                "are the same inputs, figures are of rows that methods have seen",
                stacklevel=3,
            )

    def __repr__(self) -> str:
        others = [name for name in self.concepts if name != self.bias]
        shown = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        known = f"other concepts {shown}" if others else "no other concepts"
        pairs = 0 if self.counterfactuals is None else int(np.isfinite(self.counterfactuals).all(axis=1).sum())
        return (
            f"Task({self.name!r}: {len(self.train)} training and {len(self.test)} test rows of width "
            f"{self.features.shape[1]} from {self.backbone!r}, {len(np.unique(self.target))} labels, bias "
            f"{self.bias!r}, {known}, {pairs or 'no'} exact pairs)"
        )

    def rows(self, split: str) -> np.ndarray:
        """Return the numbers of a split's rows."""
        return np.flatnonzero(self.split == split)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of all that is measured on: features, concepts, labels, splits and counterfactuals."""
        digest = hashlib.sha256(json.dumps([self.name, self.backbone, self.bias, list(self.concepts)]).encode())
        for values in (self.features, *self.concepts.values(), self.target, self.counterfactuals):
            if values is not None:
                digest.update(np.ascontiguousarray(values).view(np.uint8).data)
        digest.update("".join(split[:2] for split in self.split).encode())
        return digest.hexdigest()

    @cached_property
    def train(self) -> np.ndarray:
        """The numbers of the training rows."""
        return self.rows("train")

    @cached_property
    def test(self) -> np.ndarray:
        """The numbers of the test rows."""
        return self.rows("test")


TASKS: Named[Callable[..., Task]] = Named("task")
"""The tasks that can be made without data of one's own, by name: `TASKS["gaussian"](seed=1)` returns a `Task`."""

_F = TypeVar("_F", bound=Callable[..., Task])


def register_task(name: str) -> Callable[[_F], _F]:
    """Make a function that returns a task known by a name: `TASKS[name]`.

    Raises:
        ValueError: Another function has that name.
    """

    def add(function: _F) -> _F:
        if TASKS.setdefault(name, function) is not function:
            raise ValueError(f"there is a task named {name!r} already: {TASKS[name].__qualname__}")
        return function

    return add


def rows_sha256(task: Task) -> str:
    """Return the SHA-256 of the rows of a task and their labels: all that is measured on but the features.

    `Task.sha256` includes the features, whose last digits differ between machines; this is the same on all of them.
    """
    digest = hashlib.sha256(json.dumps([task.name, task.backbone, task.bias, list(task.concepts)]).encode())
    for values in (*task.concepts.values(), task.target):
        digest.update(np.asarray(values, dtype="<i8").tobytes())
    digest.update("".join(split[:2] for split in task.split).encode())
    return digest.hexdigest()


def shared_rows(tasks: Sequence[Task]) -> float:
    """Return the share of test rows that two tasks have in common, on average over all pairs; 1 if there is one task.

    Rows are the same if they are of the same input, as `provenance["inputs"]` says, whether with or without the bias;
    for tasks that do not say it, if they have the same features.
    """
    inputs = [_inputs(task) for task in tasks]
    shares = [len(a & b) / min(len(a), len(b)) for a, b in combinations(inputs, 2)]
    return float(np.mean(shares)) if shares else 1.0


def _inputs(task: Task) -> set[object]:
    if (known := task.provenance.get("inputs")) is not None:
        return {known[row] for row in task.test}
    return {row.tobytes() for row in task.features[task.test]}
