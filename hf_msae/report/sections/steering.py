"""Steering: what methods of removing a concept gain and damage, as SwordBench measured it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..rendering import Drawing, drawing

if TYPE_CHECKING:
    from ...steering import SwordBenchResult
    from ..context import Context

COLUMNS = ("net_gain", "success", "recovery", "damage", "over_correction", "flip_rate", "exactness")


@dataclass(frozen=True)
class TaskFinding:
    """What a run found on one task."""

    name: str
    rows: list[dict[str, Any]]  # methods by rank: rank, method, and of each figure (mean, lowest, highest) over seeds


@dataclass(frozen=True)
class SteeringFinding:
    """What a `SwordBenchResult` says."""

    verdict: str
    num_seeds: int
    tasks: list[TaskFinding]
    figure: Drawing | None


def build(context: Context) -> SteeringFinding | None:
    """Summarize the run, if there is one."""
    return None if context.steering is None else steering_finding(context.steering)


def steering_finding(result: SwordBenchResult) -> SteeringFinding:
    """Summarize a run."""
    summary = result.summary(COLUMNS).set_index(["task", "method", "metric"])[["mean", "lowest", "highest"]]
    tasks = []
    for task, ranked in result.ranking().groupby("task", sort=False):
        rows = []
        for row in ranked.to_dict("records"):
            keys = {name: (task, row["method"], name) for name in COLUMNS}
            found = {name: tuple(summary.loc[key]) for name, key in keys.items() if key in summary.index}
            rows.append({"rank": row["rank"], "method": row["method"], **found})
        tasks.append(TaskFinding(task, rows))
    said = "Success on biased rows against damage on unbiased rows, for parts of each removal, one panel per task."
    figure = None if result.doses.empty else drawing(result.plot(), said)
    return SteeringFinding(result.verdict(), result.frame["seed"].nunique(), tasks, figure)
