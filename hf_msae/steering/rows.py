"""Which rows a task is measured on: a hash of them, and how many of them the tasks of other seeds have too."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from .tasks import Task


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
