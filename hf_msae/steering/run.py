"""Run SwordBench: fit methods to the concepts of tasks, measure them, and keep every finished cell."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import get_context, parent_process
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from joblib import cpu_count
from threadpoolctl import threadpool_info, threadpool_limits
from tqdm.auto import tqdm

from .._utils.atomic import make_folder
from .._utils.checks import check_several
from .._utils.json_files import write_json
from .._utils.paths import file_name
from ..backbones import Backbone
from .edit import METHODS, Edit
from .measuring import measure
from .methods.text import HOOK_POINT
from .provenance import check_width, provenance_at, provenance_of, refuse_other
from .result import SwordBenchResult
from .tasks import TASKS, Task
from .tasks.task import rows_sha256, shared_rows

CELL_FORMAT = 7
"""Cells of another format are measured again."""


def run_swordbench(
    tasks: Sequence[str | Task | Callable[..., Task]],
    methods: Sequence[str | Edit] | Mapping[str, Edit],
    output_dir: str | os.PathLike,
    seeds: Sequence[int] = (0, 1, 2),
    num_workers: int = 1,
    progress: bool = True,
    backbone: Backbone | str | os.PathLike | None = None,
    only_bias: bool = False,
) -> SwordBenchResult:
    """Measure steering methods on tasks.

    Each cell, one method on one task with one seed, is fitted to every concept of the task's training rows, measured
    on its test rows, and written to `output_dir/cells` at once. A run that was interrupted continues with the cells
    that are missing; a cell is measured again if the task, the method's options or the seed differ.

    Args:
        tasks: Names in `TASKS`, tasks, or functions that make a task of a `seed`, such as `gaussian_task`. With a
            finished task, seeds only change what a method draws at random.
        methods: Names in `METHODS`, or edits that carry options, by label if they are a mapping.
        output_dir: Folder of the cells and of results.json.
        seeds: Seeds of tasks and fits.
        num_workers: Number of processes. With more than one, a script has to call this below
            `if __name__ == "__main__":`, since the processes import it.
        progress: Whether to show a progress bar.
        backbone: The backbone of the tasks' features, or what `Backbone.from_pretrained` loads, for the methods that
            are fitted by name: its text tower reads the names of the concepts.
        only_bias: Fit and measure the bias of each task alone, in a fraction of the time; methods that take the other
            concepts are still given them. What compares concepts, such as robustness, is not measured then.

    Returns:
        The result, which is also written to results.json.

    Raises:
        ValueError: A task or a method is unknown, two methods have the same label, two tasks have the same name, a
            task has another name with another seed, a method needs a backbone and there is none, its backbone or MSAE
            is not that of a task, or JSON cannot hold an option.
    """
    chosen = named_methods(methods)
    for edit in chosen.values():
        edit.check_options()
    tasks = _named_tasks(tasks)
    seeds = _whole_numbers(seeds)
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
    made = [task if isinstance(task, Task) else task(seed=seed) for seed in seeds for task in tasks]
    names = [task.name for task in made[: len(tasks)]]
    for place, task in enumerate(made):
        if task.name != (name := names[place % len(tasks)]):
            raise ValueError(
                f"a task is named {name!r} with the seed {seeds[0]} and {task.name!r} with the seed "
                f"{seeds[place // len(tasks)]}: give it one name for all seeds"
            )
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two tasks have the name {twice[0]!r}: give each its own (dataclasses.replace)")
    for task in made[: len(tasks)]:
        for label, edit in chosen.items():
            _check_fit(task, edit, backbone if label in by_name else None)
    cells = [
        _Cell(task, label, edit, seed, folder, backbone if label in by_name else None, only_bias)
        for task, seed in zip(made, [seed for seed in seeds for _ in tasks], strict=True)
        for label, edit in chosen.items()
    ]
    missing = [cell for cell in cells if cell.read() is None]
    done = len(cells) - len(missing)
    with tqdm(total=len(cells), initial=done, desc="SwordBench", unit="cell", disable=not progress) as bar:
        for _ in _measure_all(missing, num_workers):
            bar.update()
    shared = {name: shared_rows([task for task in made if task.name == name]) for name in names}
    found = [
        {**cell.read(), "rows_sha256": rows_sha256(cell.task), "shared": shared[cell.task.name]} for cell in cells
    ]
    _warn_of_notes(found, folder)
    result = SwordBenchResult.of_cells(found)
    result.save(folder.parent / "results.json")
    return result


def _named_tasks(tasks: Sequence[str | Task | Callable[..., Task]]) -> list[Task | Callable[..., Task]]:
    if isinstance(tasks, str):
        raise ValueError(f"tasks must be several names or tasks, got {tasks!r}: pass [{tasks!r}]")
    tasks = list(tasks) if isinstance(tasks, Iterable) else tasks  # a generator yields them once
    if not isinstance(tasks, list) or not all(isinstance(task, str | Task) or callable(task) for task in tasks):
        raise ValueError(
            f"tasks must be several tasks, their names, or functions that make one of a seed, got {tasks!s:.200}"
        )
    return [TASKS[task] if isinstance(task, str) else task for task in tasks]


def named_methods(methods: Sequence[str | Edit] | Mapping[str, Edit]) -> dict[str, Edit]:
    """Return edits, not yet fitted, by label."""
    check_several("names or edits", methods=methods)
    methods = methods if isinstance(methods, Mapping) else list(methods)
    for method in methods.values() if isinstance(methods, Mapping) else methods:
        if not isinstance(method, Edit) and (isinstance(methods, Mapping) or not isinstance(method, str)):
            kinds = "an edit" if isinstance(methods, Mapping) else "a name or an edit"
            raise ValueError(f"a method must be {kinds}, such as METHODS['lda'](), got {method!r:.200}")
    if isinstance(methods, Mapping):
        if odd := [label for label in methods if not isinstance(label, str)]:
            raise ValueError(f"the label of a method has to be a text, but is {odd[0]!r}")
        return dict(methods)
    found: dict[str, Edit] = {}
    for method in methods:
        edit = METHODS[method]() if isinstance(method, str) else method
        if edit.method in found:
            raise ValueError(f"two methods have the label {edit.method!r}: pass a mapping from labels to edits")
        found[edit.method] = edit
    return found


def _whole_numbers(seeds: Sequence[int]) -> list[int]:
    """Return seeds as Python's integers, which JSON can hold."""
    check_several("numbers", seeds=seeds)
    seeds = list(seeds)  # a generator yields them once
    if odd := [seed for seed in seeds if not isinstance(seed, Integral) or isinstance(seed, bool) or seed < 0]:
        raise ValueError(f"a seed has to be a whole number of at least 0, but is {odd[0]!r}")
    return [int(seed) for seed in seeds]


def _check_fit(task: Task, edit: Edit, backbone: Backbone | None) -> None:
    width = task.features.shape[1]
    try:
        edit.check_embeddings(provenance_of(task), width)
        if backbone is not None:
            check_width(width, backbone, HOOK_POINT)
            refuse_other(provenance_at(backbone, HOOK_POINT), provenance_of(task), "the backbone", "the features are")
    except ValueError as error:
        raise ValueError(f"{edit.method} cannot be measured on {task.name}: {error}") from error


@dataclass(frozen=True, eq=False)
class _Cell:
    task: Task
    label: str
    edit: Edit
    seed: int
    folder: Path
    backbone: Backbone | None = None
    only_bias: bool = False

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
            **({"only_bias": True} if self.only_bias else {}),
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
        return cell if isinstance(cell, dict) and {"figures", "doses", "injection"} <= set(cell) else None

    def measure(self) -> None:
        measured = measure(self.task, self.edit, self.seed, self.backbone, self.only_bias)
        write_json(self.path, {**self.key, "backbone": self.task.backbone, **measured})


def _warn_of_notes(cells: Sequence[Mapping[str, Any]], folder: Path) -> None:
    noted = [f"{cell['method']} on {cell['task']}, seed {cell['seed']}" for cell in cells if cell.get("notes")]
    if noted:
        more = f" and {len(noted) - 3} more" if len(noted) > 3 else ""
        warnings.warn(
            f"fits of {len(noted)} of {len(cells)} cells stopped before they converged, so their figures are of "
            f'approximate solutions: {"; ".join(noted[:3])}{more}. "notes" in the files of {folder} has all',
            stacklevel=3,
        )


def _measure_all(cells: Sequence[_Cell], num_workers: int) -> Iterator[None]:
    if num_workers <= 1:
        for cell in cells:
            yield cell.measure()
        return
    groups: dict[tuple[int, str], list[_Cell]] = {}
    for cell in cells:
        groups.setdefault((id(cell.task), cell.edit.shares_fits or cell.label), []).append(cell)
    # Edits with an MSAE take longest: begun last, one would leave the other processes without work.
    longest_first = sorted(groups.values(), key=lambda group: "an MSAE" not in group[0].edit.needs)
    with ProcessPoolExecutor(num_workers, get_context("spawn"), initializer=_start, initargs=(num_workers,)) as pool:
        for done in as_completed([pool.submit(_measure_group, group) for group in longest_first]):
            yield from done.result()


def share_cores(num_workers: int) -> None:
    """Limit the threads of this process to its share of the cores, where threads of others would wait for them."""
    threads = max(1, cpu_count() // num_workers)
    threadpool_limits(min([threads, *(pool["num_threads"] for pool in threadpool_info())]))
    torch.set_num_threads(min(threads, torch.get_num_threads()))


def _start(num_workers: int) -> None:
    """Prepare one of several processes, which must not wait forever when the one that started it is killed."""
    share_cores(num_workers)

    def watch() -> None:
        parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _measure_group(cells: Sequence[_Cell]) -> list[None]:
    return [cell.measure() for cell in cells]
