"""What a run of SwordBench found on a task, drawn once."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

from ...._utils.json_files import json_records
from ....report.sections.steering import TaskFinding, heat_map, methods_with_heat_map, task_finding
from ...explorer import Explorer
from ...inputs import read_choice
from ...kept import Kept

_found = Kept(32)
_drawing = threading.Lock()
"""The look of figures is a global setting of matplotlib."""


def methods_of(explorer: Explorer, task: object) -> list[str]:
    """The methods of which a task has a heat map, the best first."""
    result = explorer.swordbench.of_task(read_choice(task, explorer.swordbench.tasks, "task"))
    measured = dict.fromkeys(result.cross["method"])
    return [*(each for each in result.ranking()["method"] if each in measured), *measured][: len(measured)]


def found_on(explorer: Explorer, task: object, method: object = None) -> TaskFinding:
    """What was found on a task, with the heat map of a method; that of the best if none is named."""
    methods = methods_of(explorer, task)
    chosen = read_choice(method, methods, "method") if method else next(iter(methods), None)

    def draw() -> TaskFinding:
        if chosen == next(iter(methods), None):
            with _drawing:
                return task_finding(explorer.swordbench, task)
        found = found_on(explorer, task)
        if chosen not in methods_with_heat_map(explorer.swordbench, task):
            return found
        with _drawing:  # the other figures are of all methods
            heat = heat_map(explorer.swordbench, task, chosen)
        return replace(found, figures=[*found.figures[:-1], heat])

    return _found.get((explorer, task, chosen), draw)


def numbers(explorer: Explorer, task: str) -> dict[str, Any]:
    """The same as JSON, for programs."""
    result = explorer.swordbench.of_task(task)
    tables = {"ranking": result.ranking(), "ranking_equal_dose": result.ranking(equal_dose=True)}
    tables |= {"working_doses": result.working_doses(), "undefined": result.undefined()}
    return {
        "verdict": result.verdict(),
        "remarks": result.remarks(),
        **{name: json_records(table) for name, table in tables.items()},
    }
