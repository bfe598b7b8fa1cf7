"""Figures as means over seeds and concepts, doses at which a removal works, and what means and ranks do not show."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..statistics import draws_interval

if TYPE_CHECKING:
    from .result import SwordBenchResult

_OF_BIAS = {"success", "net_gain"}  # metrics that the bias alone has
COLUMNS = ["task", "method", "metric", "mean", "low", "high", "lowest", "highest", "seeds", "concepts", "missing"]


def summarize(
    frame: pd.DataFrame,
    metrics: Sequence[str] | None,
    seeds: Mapping[str, Sequence[int]],
    shared: Mapping[str, float],
) -> pd.DataFrame:
    """Average figures over seeds and concepts, as `SwordBenchResult.summary` says.

    `seeds` are those that each task was run with, and `shared` the share of test rows that two of them have in common.
    """
    rows = []
    for task, of_task in frame.groupby("task", sort=False):
        expected = _expected(of_task)
        chosen = of_task if metrics is None else of_task[of_task["metric"].isin(metrics)]
        chosen = chosen.dropna(subset=["value"]).astype(dict.fromkeys(("value", "low", "high"), float))
        cells = chosen.groupby(["method", "metric", "seed"], sort=False)
        means, there = cells[["value", "low", "high"]].mean(), cells["concept"].agg(set)
        found: dict[tuple[str, str], dict[int, tuple[np.ndarray, set[str]]]] = {}
        for (method, metric, seed), figures, concepts in zip(means.index, means.to_numpy(), there, strict=True):
            found.setdefault((method, metric), {})[seed] = figures, concepts
        for (method, metric), by_seed in found.items():
            values, lows, highs = np.transpose([figures for figures, _ in by_seed.values()])
            concepts = {seed: concepts for seed, (_, concepts) in by_seed.items()}
            lacking = {seed: expected[metric] - concepts.get(seed, set()) for seed in seeds[task]}
            figures = (*draws_interval(values, lows, highs, shared[task]), values.min(), values.max())
            counts = len(by_seed), len(set.union(*concepts.values()))
            missing = _missing(lacking, len(expected[metric]))
            rows.append((task, method, metric, *map(float, figures), *counts, missing))
    return pd.DataFrame(rows, columns=COLUMNS)


def _expected(of_task: pd.DataFrame) -> dict[str, set[str]]:
    """Return the concepts that each metric of a task is of, if every fit is defined."""
    failed = set(of_task.loc[of_task["metric"] == "fit", "concept"])
    bias = set(of_task.loc[of_task["metric"].isin(_OF_BIAS), "concept"])
    listed = of_task.groupby("metric")["concept"].agg(set)
    return {metric: of | (failed if not bias or of - bias else failed & bias) for metric, of in listed.items()}


def _missing(lacking: Mapping[int, Collection[str]], number: int) -> str:
    """Say what a mean is without: "seeds 2, 3; concept night; seed 1: concepts wet, red"."""
    always = set.intersection(*map(set, lacking.values()))
    seeds = [str(seed) for seed, concepts in lacking.items() if len(concepts) == number]
    parts = [f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(seeds)}"] if seeds else []
    parts += [_concepts(always)] if always else []
    parts += [
        f"seed {seed}: {_concepts(left)}"
        for seed, concepts in lacking.items()
        if len(concepts) < number and (left := set(concepts) - always)
    ]
    return "; ".join(parts)


def _concepts(names: Collection[str]) -> str:
    return f"{'concept' if len(names) == 1 else 'concepts'} {', '.join(sorted(names))}"


_ENDS = ("part", "dose")


def working_ranges(curves: pd.DataFrame, epsilon: float) -> pd.DataFrame:
    """Find the doses that work, as `SwordBenchResult.working_doses` says."""
    rows = []
    for task, of_task in curves.groupby("task", sort=False):
        harmless = (of_task["damage"] <= epsilon) & ~(of_task["over_correction"] > epsilon)
        best = of_task.loc[harmless, "success"].max()
        works = harmless & (of_task["success"] >= best / 2) if best > 0 else harmless & False
        for method, curve in of_task.groupby("method", sort=False):
            found = _longest_run(curve[works[curve.index]], curve["part"].tolist())
            reason = "" if len(found) else "no dose works"
            if len(found) and not found["dose"].iloc[0] < found["dose"].iloc[-1]:
                reason = f"one dose works, {found['dose'].iloc[0]:.2g}, and one is no range"
                found = found.iloc[:0]
            ends = [found[name].iloc[place] if len(found) else np.nan for name in _ENDS for place in (0, -1)]
            rows.append((task, method, *ends, found["success"].max(), best / 2 if best > 0 else np.nan, reason))
    columns = ["task", "method", *(f"{name}_{end}" for name in _ENDS for end in ("from", "to"))]
    return pd.DataFrame(rows, columns=[*columns, "best", "needed", "reason"])


def _longest_run(working: pd.DataFrame, parts: Sequence[float]) -> pd.DataFrame:
    places = np.array([parts.index(part) for part in working["part"]], dtype=int)
    runs = np.split(np.arange(len(places)), np.flatnonzero(np.diff(places) != 1) + 1)
    return working.iloc[max(runs, key=len)]


MOST_STRETCH = 2.0
"""How many times its own change an edit may be scaled by at equal doses without a remark; curves end there too."""


def with_stretch(ranking: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    """Add to ranks at equal doses how much each removal was stretched on average, with a note beyond twice."""
    values = frame[frame["metric"] == "stretch"].astype({"value": float}).groupby(["task", "method"])["value"].mean()
    stretch = [values.get(place, float("nan")) for place in zip(ranking["task"], ranking["method"], strict=True)]
    notes = [
        "; ".join([*([note] if note else []), *([f"stretched {by:.1f} times"] if by > MOST_STRETCH else [])])
        for note, by in zip(ranking["note"], stretch, strict=True)
    ]
    place = list(ranking).index("seeds")
    found = ranking.assign(note=notes)
    found.insert(place, "stretch", pd.Series(stretch, index=ranking.index, dtype=float))
    return found


def largest_equal_doses(frame: pd.DataFrame) -> dict[str, float]:
    """Return the largest of the doses that are equal for all methods, for each task, the mean over seeds."""
    places = ["task", "method", "seed", "concept"]
    values = frame.pivot_table(index=places, columns="metric", values="value", aggfunc="first", sort=False)
    if not {"stretch", "dose"} <= set(values):
        return {}
    return (values["stretch"] * values["dose"]).astype(float).dropna().groupby("task", sort=False).mean().to_dict()


def remarks(result: SwordBenchResult) -> list[str]:
    """Return the sentences of `SwordBenchResult.remarks`."""
    found, summary = [], result.summary(None)
    for task, each in summary[summary["missing"] != ""].groupby("task", sort=False):
        first = each.iloc[0]
        more = f" (as one of {len(each)} means: see the column missing of the summary)" if len(each) > 1 else ""
        found.append(
            f"a figure on {task} is not defined for all seeds and concepts: the mean {first['metric']} of "
            f"{first['method']} is without {first['missing']}{more}"
        )
    for task, each in result.gains[result.gains["biased"].map(len) > 0].groupby("task", sort=False):
        if each["task_sha256"].nunique() == 1:
            found.append(
                f"all rows of {task} are one draw: ranks and their intervals are of these test rows, and say nothing "
                "about other training rows"
            )
    return found
