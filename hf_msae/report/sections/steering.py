"""Steering: what methods of removing a concept gain and damage, as SwordBench measured it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...plotting.look import SvgFigure, svg_figure

if TYPE_CHECKING:
    import pandas as pd

    from ...steering import SwordBenchResult
    from ..context import Context

COLUMNS = {
    "success": "success",
    "recovery": "recovery",
    "damage": "damage",
    "over_correction": "over-correction",
    "flip_rate": "flips",
    "exactness": "exactness",
    "robustness": "robustness",
    "orthogonality": "orthogonality",
}
_OF_CONCEPTS = ("robustness", "orthogonality")  # measured if there are several
_AGAINST = (
    "Success against damage: up and to the left is better. A curve goes from a quarter of the removal to twice of it; "
    "the marker is the removal itself, with 95% intervals."
)
_DOSES = (
    "What each dose does, the size of the change relative to the embedding. Thick parts "
    "are the doses that work; dashed lines mark the success that these need, and the most damage and over-correction "
    "that they may have. The dotted line is the largest dose at which methods are compared at equal doses: one whose "
    "curve, up to twice its own change, ends before it was stretched further. Bands are 95% intervals."
)
_INJECTION = (
    "What adding the bias does to inputs without it, compared with the same inputs rendered with it. The gain is how "
    "much oftener the classifier says what it says of these; exactness is 1 if the embeddings are theirs, and 0 if "
    "they are as far from them as without any change. The marker is an amount of 1, and bands are 95% intervals."
)
_CROSS = (
    "How well each concept (rows) is still found after {method} removed each (columns), as AUROC. The diagonal should "
    "be at 0.5, which is chance, and everything else as high as before. On the right, how little the direction of a "
    "concept has in common with those of the others: 1 if it is orthogonal to all."
)


@dataclass(frozen=True)
class TaskFinding:
    """What a run found on one task, for the macro `task` of swordbench.html, here and in the explorer."""

    name: str
    verdict: str
    num_seeds: int
    # Methods by rank: rank, equal_dose (rank, net gain and stretch at equal doses, or None), method, of each figure
    # (mean, low, high) over seeds, and doses, the range that works, or why there is none.
    rows: list[dict[str, Any]]
    columns: dict[str, str]  # the figures that are shown besides the net gain, and what they are called
    remarks: list[str]  # where ranks do not follow the means and why, and what they do not show
    undefined: list[dict[str, Any]]  # metric, methods, concepts, cells and reason
    figures: list[tuple[SvgFigure, str]]  # each with what it means
    epsilon: float  # the most damage and over-correction of a dose that works
    most_stretch: float  # beyond which a method at equal doses is marked


def build(context: Context) -> list[TaskFinding] | None:
    """Summarize the run, if there is one."""
    run = context.steering
    return None if run is None else [task_finding(run, task) for task in run.tasks]


def task_finding(result: SwordBenchResult, task: str) -> TaskFinding:
    """Summarize what a run found on a task, with the heat map of the best method."""
    from ...steering.summary import MOST_STRETCH  # here, since most reports need no steering
    from ...steering.verdict import EPSILON

    result = result.of_task(task)
    summary = result.summary(["net_gain", *COLUMNS]).set_index(["method", "metric"])[["mean", "low", "high"]]
    ranges = result.working_doses().set_index("method")
    at_equal_doses = result.ranking(equal_dose=True)
    equal = at_equal_doses.set_index("method")[["rank", "net_gain_equal_dose", "stretch"]]
    ranking, rows = result.ranking(), []
    notes = [f"{row.method} is {row.note}" for row in ranking.itertuples() if row.note]
    told = at_equal_doses[at_equal_doses["note"].str.contains("told", regex=False)]  # the table has the stretch
    notes += [f"{row.method}, at equal doses, is {row.note}" for row in told.itertuples()]
    for rank, name in zip(ranking["rank"], ranking["method"], strict=True):
        there = [metric for metric in ("net_gain", *COLUMNS) if (name, metric) in summary.index]
        found = {metric: tuple(summary.loc[name, metric]) for metric in there}
        doses = _range(ranges.loc[name]) if name in ranges.index else "not measured"
        at_equal = next(equal.loc[[name]].itertuples(index=False), None) if name in equal.index else None
        rows.append({"rank": rank, "equal_dose": at_equal, "method": name, **found, "doses": doses})
    figures = []
    if not result.doses.empty:
        figures += [(svg_figure(result.plot(), "Success against damage of each method."), _AGAINST)]
        figures += [(svg_figure(result.plot_doses(), "Success, damage and over-correction against the dose."), _DOSES)]
    if not result.injection.empty:
        figures += [(svg_figure(result.plot_injection(), "Gain and exactness of adding the bias."), _INJECTION)]
    with_heat_map = methods_with_heat_map(result, task)
    best = next((row["method"] for row in rows if row["method"] in with_heat_map), next(iter(with_heat_map), None))
    if best is not None:
        figures.append(heat_map(result, task, best))
    measured = set(summary.index.get_level_values("metric"))
    return TaskFinding(
        name=task,
        verdict=result.verdict(),
        num_seeds=result.perfect["seed"].nunique(),
        rows=rows,
        columns={name: label for name, label in COLUMNS.items() if name in measured or name not in _OF_CONCEPTS},
        remarks=[*notes, *result.remarks()],
        undefined=result.undefined().to_dict("records"),
        figures=figures,
        epsilon=EPSILON,
        most_stretch=MOST_STRETCH,
    )


def methods_with_heat_map(result: SwordBenchResult, task: str) -> list[str]:
    """The methods of which a task has a heat map: none where a single concept was measured."""
    cross = result.cross[result.cross["task"] == task]
    return list(dict.fromkeys(cross["method"])) if cross["found"].nunique() > 1 else []


def heat_map(result: SwordBenchResult, task: str, method: str) -> tuple[SvgFigure, str]:
    """Draw how well each concept of a task is found after a method removed each, and say what that means."""
    heat = svg_figure(result.plot_cross(task, method), f"Detection of each concept after {method} removed each.")
    return heat, _CROSS.format(method=method)


def _range(row: pd.Series) -> str:
    return row["reason"] or f"{row['dose_from']:.2g} to {row['dose_to']:.2g}"
