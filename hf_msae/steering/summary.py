"""Figures as means over seeds and concepts, and which seeds and concepts these are without."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd

from ..statistics import draws_interval

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
