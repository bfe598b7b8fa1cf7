"""Run SwordBench: fit methods to the concepts of tasks, measure them, and keep every finished cell."""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from .._utils.atomic import make_folder
from .._utils.json_files import write_json
from ..backbones import Backbone
from .damage import MIN_ROWS, Judge, damage_figures, dose_figures, is_perfect
from .data import NotDefinedError
from .edit import METHODS, Edit
from .metrics import (
    Figure,
    concept_figures,
    cross_concept_figures,
    orthogonality_figures,
    robustness_figures,
)
from .result import SwordBenchResult
from .tasks import Task

CELL_FORMAT = 4
"""Cells of another format are measured again."""

_WHY_NOT = {
    "recovery": f"the bias is not shown to mislead the classifier on biased rows, or fewer than {MIN_ROWS} are biased",
    "over_correction": "there are no aligned test rows",
    "exactness": "the task has no exact pairs of rows with the bias",
    "injection_exactness": "the task has no exact pairs of rows without the bias",
    "orthogonality": "`add` changes nothing",
    "orthogonality_mean": "`add` changes nothing",
}


def run_swordbench(
    tasks: Sequence[Task | Callable[..., Task]],
    methods: Sequence[str | Edit] | Mapping[str, Edit],
    output_dir: str | os.PathLike,
    seeds: Sequence[int] = (0, 1, 2),
    num_workers: int = 1,
    progress: bool = True,
    backbone: Backbone | str | os.PathLike | None = None,
) -> SwordBenchResult:
    """Measure steering methods on tasks.

    Each cell, one method on one task with one seed, is fitted to every concept of the task's training rows, measured
    on its test rows, and written to `output_dir/cells` at once. A run that was interrupted continues with the cells
    that are missing; a cell is measured again if the task, the method's options or the seed differ.

    Args:
        tasks: Tasks, or functions that make a task of a `seed`, such as `gaussian_task`. With a finished task, seeds
            only change what a method draws at random.
        methods: Names in `METHODS`, or edits that carry options, by label if they are a mapping.
        output_dir: Folder of the cells and of results.json.
        seeds: Seeds of tasks and fits.
        num_workers: Number of processes. With more than one, a script has to call this below
            `if __name__ == "__main__":`, since the processes import it.
        progress: Whether to show a progress bar.
        backbone: The backbone of the tasks' features, or what `Backbone.from_pretrained` loads, for the methods that
            are fitted by name: its text tower reads the names of the concepts.

    Returns:
        The result, which is also written to results.json.

    Raises:
        ValueError: A method is unknown, two have the same label, two tasks have the same name, or a method needs a
            backbone and there is none.
    """
    chosen = named_methods(methods)
    if isinstance(tasks, Task) or not all(isinstance(task, Task) or callable(task) for task in tasks):
        raise ValueError(f"tasks must be several tasks, or functions that make one of a seed, got {tasks!s:.200}")
    if isinstance(seeds, int):
        raise ValueError(f"seeds must be several numbers, got {seeds}: pass ({seeds},)")
    by_name = [label for label, edit in chosen.items() if edit.needs.startswith("a name")]
    if by_name and backbone is None:
        raise ValueError(f"the method {by_name[0]} is fitted by name: pass the backbone of the features")
    if by_name and not isinstance(backbone, Backbone):
        backbone = Backbone.from_pretrained(backbone)
    if not tasks or not chosen or not seeds:
        raise ValueError("a run needs at least one task, one method and one seed")
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"a seed is given twice: {list(seeds)}")
    folder = make_folder(make_folder(output_dir) / "cells")
    made = [_made(task, seed) for seed in seeds for task in tasks]
    names = [task.name for task in made[: len(tasks)]]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two tasks have the name {twice[0]!r}: give each its own (dataclasses.replace)")
    cells = [
        _Cell(task, label, edit, seed, folder, backbone if label in by_name else None)
        for task, seed in zip(made, [seed for seed in seeds for _ in tasks], strict=True)
        for label, edit in chosen.items()
    ]
    missing = [cell for cell in cells if cell.read() is None]
    done = len(cells) - len(missing)
    with tqdm(total=len(cells), initial=done, desc="SwordBench", unit="cell", disable=not progress) as bar:
        for _ in _measure_all(missing, num_workers):
            bar.update()
    result = SwordBenchResult.of_cells([{**cell.read(), "rows_sha256": rows_sha256(cell.task)} for cell in cells])
    result.save(Path(output_dir) / "results.json")
    return result


def named_methods(methods: Sequence[str | Edit] | Mapping[str, Edit]) -> dict[str, Edit]:
    """Return edits, not yet fitted, by label.

    Raises:
        ValueError: A method is unknown, or two have the same label.
    """
    if isinstance(methods, str):
        raise ValueError(f"methods must be several names or edits, got {methods!r}: pass [{methods!r}]")
    for method in methods.values() if isinstance(methods, Mapping) else methods:
        if not isinstance(method, Edit) and (isinstance(methods, Mapping) or not isinstance(method, str)):
            kinds = "an edit" if isinstance(methods, Mapping) else "a name or an edit"
            raise ValueError(f"a method must be {kinds}, such as METHODS['lda'](), got {method!r:.200}")
    if isinstance(methods, Mapping):
        return dict(methods)
    found: dict[str, Edit] = {}
    for method in methods:
        if isinstance(method, str) and method not in METHODS:
            raise ValueError(f"there is no method {method!r}; the methods are {', '.join(sorted(METHODS))}")
        edit = METHODS[method]() if isinstance(method, str) else method
        if edit.method in found:
            raise ValueError(f"two methods have the label {edit.method!r}: pass a mapping from labels to edits")
        found[edit.method] = edit
    return found


def _made(task: Task | Callable[..., Task], seed: int) -> Task:
    return task if isinstance(task, Task) else task(seed=seed)


@dataclass(frozen=True, eq=False)
class _Cell:
    task: Task
    label: str
    edit: Edit
    seed: int
    folder: Path
    backbone: Backbone | None = None

    @cached_property
    def key(self) -> dict[str, Any]:
        """What a cell's figures depend on."""
        return {
            "format": CELL_FORMAT,
            "task": self.task.name,
            "task_sha256": self.task.sha256,
            "method": self.label,
            "fitted_by": self.edit.method,
            "settings": self.edit.settings(),
            "depends_on": self.edit.depends_on(),
            "seed": self.seed,
            **(self.backbone.provenance() if self.backbone else {}),
        }

    @cached_property
    def path(self) -> Path:
        digest = hashlib.sha256(json.dumps(self.key, sort_keys=True, default=str).encode()).hexdigest()[:12]
        return self.folder / f"{file_name(f'{self.task.name}-{self.label}')}-{self.seed}-{digest}.json"

    def read(self) -> dict[str, Any] | None:
        """Return the cell if it has been measured; a file that is damaged counts as missing."""
        try:
            cell = json.loads(self.path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        return cell if isinstance(cell, dict) and "figures" in cell and "doses" in cell else None

    def measure(self) -> None:
        write_json(
            self.path,
            {**self.key, "backbone": self.task.backbone, **measure(self.task, self.edit, self.seed, self.backbone)},
        )


def measure(task: Task, edit: Edit, seed: int, backbone: Backbone | None = None) -> dict[str, Any]:
    """Fit an edit to every concept of a task and measure it.

    Methods that take the other concepts are given the labels too, which whoever trained the classifier knows. With a
    backbone, the edit is fitted to the names of the concepts.

    Returns:
        `figures`, records of concept, metric, value, low, high and, where a figure is not defined, the reason;
        `cross`, the AUROC of each concept after each was removed; `doses`; `biased`, `unbiased` and `aligned`, what
        the removal of the bias gained in each of these rows (`damage_figures`); and `perfect`.
    """
    edits: dict[str, Edit] = {}
    records: list[dict[str, Any]] = []
    train, labels = task.train, [task.target == label for label in np.unique(task.target)[1:]]
    for concept, has in task.concepts.items():
        others = np.stack([*labels, *(found for name, found in task.concepts.items() if name != concept)], axis=1)
        if not 0 < (number := int(has[task.test].sum())) < len(task.test):
            reason = f"{number} of {len(task.test)} test rows have the concept"
            records.append({"concept": concept, "metric": "fit", "value": None, "reason": reason})
            continue
        try:
            if backbone is None:
                edits[concept] = copy(edit).fit(task.features[train], has[train], seed=seed, others=others[train])
            else:
                name = concept.replace("_", " ")
                edits[concept] = copy(edit).fit_by_name(name, backbone, task.features[train], seed=seed)
        except (NotDefinedError, np.linalg.LinAlgError) as error:
            records.append({"concept": concept, "metric": "fit", "value": None, "reason": str(error)})
    cross = cross_concept_figures(edits, task)
    directions = orthogonality_figures(edits, task)
    for concept, fitted in edits.items():
        figures = concept_figures(fitted, task, concept, seed)
        figures |= robustness_figures(concept, cross) | directions[concept]
        records += _records(concept, figures)
    found: dict[str, Any] = {"doses": [], "biased": [], "unbiased": [], "aligned": [], "perfect": None}
    if task.bias in edits:
        try:
            judge = Judge(task)
            figures, gains = damage_figures(edits[task.bias], judge, seed)
            records += _records(task.bias, figures)
            found = {
                "doses": [
                    {name: _number(value) for name, value in record.items()}
                    for record in dose_figures(edits[task.bias], judge, seed)
                ],
                **{group: np.round(gained, 6).tolist() for group, gained in gains.items()},
                "perfect": is_perfect(figures),
                "reference": judge.reference_from,
            }
        except NotDefinedError as error:
            records.append({"concept": task.bias, "metric": "success", "value": None, "reason": str(error)})
    return {
        "figures": records,
        "cross": [{"found": a, "removed": b, "auroc": value} for (a, b), value in cross.items() if b is not None],
        **found,
    }


def rows_sha256(task: Task) -> str:
    """Return the SHA-256 of the rows of a task and their labels: all that is measured on but the features.

    `Task.sha256` includes the features, whose last digits differ between machines; this is the same on all of them.
    """
    digest = hashlib.sha256(json.dumps([task.name, task.backbone, task.bias, list(task.concepts)]).encode())
    for values in (*task.concepts.values(), task.target):
        digest.update(np.asarray(values, dtype="<i8").tobytes())
    digest.update("".join(split[:2] for split in task.split).encode())
    return digest.hexdigest()


def file_name(text: str) -> str:
    """Return a text as part of the name of a file."""
    return re.sub(r"[^\w., -]", "_", text)[:100]


def _records(concept: str, figures: Mapping[str, Figure]) -> list[dict[str, Any]]:
    records = []
    for metric, figure in figures.items():
        record = dict(zip(("value", "low", "high"), map(_number, figure), strict=True))
        if record["value"] is None:
            record["reason"] = _WHY_NOT.get(metric, "it is infinite or the ratio of two zeros")
        records.append({"concept": concept, "metric": metric, **record})
    return records


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _measure_all(cells: Sequence[_Cell], num_workers: int) -> Iterator[None]:
    if num_workers <= 1:
        for cell in cells:
            yield cell.measure()
        return
    groups: dict[tuple[int, str], list[_Cell]] = {}
    for cell in cells:
        groups.setdefault((id(cell.task), cell.edit.shares_fits or cell.label), []).append(cell)
    with ProcessPoolExecutor(num_workers, get_context("spawn"), initializer=_end_with_parent) as pool:
        for done in as_completed([pool.submit(_measure_group, group) for group in groups.values()]):
            yield from done.result()


def _end_with_parent() -> None:
    """Have this process end when the one that started it is killed, which would leave it waiting for work forever."""

    def watch() -> None:
        parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _measure_group(cells: Sequence[_Cell]) -> list[None]:
    return [cell.measure() for cell in cells]
