"""What SwordBench found: a tidy table, curves over doses, the matrix of concepts, ranks and verdicts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.stats import norm, permutation_test

from ..statistics import Result, holm
from .damage import EPSILON, MIN_ROWS

if TYPE_CHECKING:
    from typing import Self

    from matplotlib.figure import Figure

COLUMNS = ["task", "backbone", "method", "concept", "seed", "metric", "value", "low", "high", "reason"]
SUMMARY = ("recovery", "damage", "net_gain", "detection_auroc", "robustness", "leakage_linear")
_GAINS = ["task", "method", "seed", "task_sha256", "biased", "unbiased", "aligned"]
_MADE = ["task", "method", "seed", "rows_sha256", "fitted_by", "settings"]
_DOSES = ["task", "method", "seed", "part", "dose", "dose_low", "dose_high"]
_DOSES += [f"{name}{end}" for name in ("success", "damage", "over_correction") for end in ("", "_low", "_high")]
_ENDS = ("part", "dose")


@dataclass(frozen=True)
class SwordBenchResult(Result):
    """The figures of a run of `run_swordbench`.

    Attributes:
        frame: One row per figure: task, backbone, method, concept, seed, metric, value, low and high (the ends of its
            95% interval over test rows, empty where there is none), and the reason where it is not defined.
        doses: What parts of the removal do: task, method, seed, part, and dose, success, damage and over_correction
            with intervals. Results of earlier versions lack over_correction.
        cross: AUROC of each concept (found) after each was removed: task, method, seed, found, removed, auroc.
        perfect: For each task, method and seed, whether steering is perfect (`is_perfect`); None if not defined, as
            where a group has fewer than 10 rows.
        gains: For each task, method and seed, what the removal gained in each test row that is biased, unbiased or
            aligned, and the hash of the task.
        made: What each task, method and seed was made of: the hash of the task's rows (`rows_sha256`), the name of the
            method in `METHODS` and its options. Results of earlier versions lack it.
    """

    frame: pd.DataFrame = field(metadata={"columns": COLUMNS})
    doses: pd.DataFrame = field(metadata={"columns": _DOSES})
    cross: pd.DataFrame = field(metadata={"columns": ["task", "method", "seed", "found", "removed", "auroc"]})
    perfect: pd.DataFrame = field(metadata={"columns": ["task", "method", "seed", "perfect"]})
    gains: pd.DataFrame = field(metadata={"columns": _GAINS})
    made: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=_MADE), metadata={"columns": _MADE})

    @classmethod
    def of_cells(cls, cells: Sequence[Mapping[str, Any]]) -> SwordBenchResult:
        """Put cells together, as `run_swordbench` wrote them."""

        def table(key: str, columns: Sequence[str]) -> pd.DataFrame:
            rows = [{**_place(cell), **record} for cell in cells for record in cell[key]]
            return pd.DataFrame(rows, columns=columns)

        def columns(*keys: str) -> pd.DataFrame:
            return pd.DataFrame([{**_place(cell), **{key: cell[key] for key in keys}} for cell in cells])

        return cls(
            frame=table("figures", COLUMNS),
            doses=table("doses", _DOSES),
            cross=table("cross", ["task", "method", "seed", "found", "removed", "auroc"]),
            perfect=columns("perfect").drop(columns="backbone"),
            gains=columns("task_sha256", "biased", "unbiased", "aligned").drop(columns="backbone"),
            made=pd.DataFrame([{key: cell.get(key) for key in _MADE} for cell in cells], columns=_MADE),
        )

    @classmethod
    def load(cls, path: str | os.PathLike) -> Self:
        """Read the results of a run.

        Args:
            path: The folder that `hf-msae swordbench` or `run_swordbench` wrote, or its results.json.

        Raises:
            FileNotFoundError: There are no results.
            ValueError: The file holds something else.
        """
        file = Path(path).expanduser()
        file = file / "results.json" if file.is_dir() else file
        if not file.is_file():
            raise FileNotFoundError(f"there are no results of hf-msae swordbench in {path}")
        try:
            return super().load(file)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{file} does not hold the results of hf-msae swordbench: {error}") from error

    def summary(self, metrics: Sequence[str] = SUMMARY) -> pd.DataFrame:
        """Return the mean over seeds and concepts of some metrics, with the lowest and highest seed.

        Returns:
            One row per task, method and metric: mean, lowest, highest and seeds (their number).
        """
        chosen = self.frame[self.frame["metric"].isin(metrics)].astype({"value": float})
        by_seed = chosen.groupby(["task", "method", "metric", "seed"], sort=False)["value"].mean()
        found = by_seed.groupby(["task", "method", "metric"], sort=False).agg(["mean", "min", "max", "count"])
        found.columns = ["mean", "lowest", "highest", "seeds"]
        return found.reset_index()

    def ranking(self) -> pd.DataFrame:
        """Rank methods within each task by their net gain; methods that cannot be told from the best share its rank.

        Two methods are told apart if the difference of their net gains in the same test rows has a two-sided p-value
        of at most 0.05, after Holm's correction for all pairs of the task. It is the p-value of a normal
        distribution with the standard error of that difference, a sum of means over biased, unbiased and, for
        methods that over-correct on average, aligned rows. Where two methods differ in a group of fewer than 10 rows,
        or by the same in all of its rows, a standard error says nothing, and the test flips the signs of rows: each
        row's difference is as likely to be its opposite if the methods are alike.
        A task that is the same for several seeds, such as a finished one, counts once, with the means of its rows
        over seeds. Tasks that are made anew for each seed count as independent, even where they share some pictures;
        p-values are then too small. The best of the methods that are left opens the next rank. Only seeds in which
        all ranked methods are defined count.

        Returns:
            One row per task and method: rank, net_gain (mean over seeds), p_value (against the best, corrected).
        """
        rows = []
        for task, of_task in self.gains[self.gains["biased"].map(len) > 0].groupby("task", sort=False):
            seeds = set.intersection(*(set(each["seed"]) for _, each in of_task.groupby("method")))
            of_task = of_task[of_task["seed"].isin(seeds)]
            gains = {method: _by_test(each) for method, each in of_task.groupby("method", sort=False)} if seeds else {}
            means = {
                method: float(np.mean([sum(map(np.mean, parts)) for parts in each])) for method, each in gains.items()
            }
            order = sorted(gains, key=lambda method: -means[method])
            pairs = [(a, b) for i, a in enumerate(order) for b in order[i + 1 :]]
            corrected = holm([_paired(gains[a], gains[b]) for a, b in pairs]) if pairs else []
            p_values = dict(zip(pairs, corrected, strict=True))
            rank, left = 1, order
            while left:
                tied = [each for each in left if each == left[0] or p_values[left[0], each] > 0.05]
                rows += [(task, rank, each, means[each], p_values.get((order[0], each), np.nan)) for each in tied]
                rank, left = rank + len(tied), [each for each in left if each not in tied]
        return pd.DataFrame(rows, columns=["task", "rank", "method", "net_gain", "p_value"])

    def verdict(self) -> str:
        """Say whether any method steers perfectly, and which gain most."""
        is_perfect = self.perfect.assign(perfect=self.perfect["perfect"].eq(True))
        always = is_perfect.groupby(["task", "method"], sort=False)["perfect"].all()
        perfect = [f"{method} on {task}" for (task, method), value in always.items() if value]
        said = f"steering is perfect for every seed: {', '.join(perfect)}" if perfect else "no method steers perfectly"
        ranking = self.ranking()
        best = [
            f"{', '.join(rows['method'])} on {task}"
            for task, rows in ranking[ranking["rank"] == 1].groupby("task", sort=False)
        ]
        return f"{said}; the highest net gain: {'; '.join(best)}" if best else said

    def working_doses(self, epsilon: float = EPSILON) -> pd.DataFrame:
        """Say at which doses each method works: a range, since the best point of a curve may be luck.

        A dose works if its success is at least half of the best, and its damage and over-correction are at most
        `epsilon`; over-correction where it is defined. The best is the highest success that any method reaches on the
        task at a dose with no more damage and over-correction than that. Figures are means over seeds, at the parts of
        the removal that were measured, and the range is the longest run of parts that work, the first of the longest.

        Returns:
            One row per task and method: part_from and part_to (parts of the removal), dose_from and dose_to (what they
            are relative to the embedding), best (the highest success in the range) and needed (half of the task's
            best); NaN where no dose works.
        """
        names = ["dose", "success", "damage", "over_correction"]
        means = self.doses.astype(dict.fromkeys(names, float)).groupby(["task", "method", "part"], sort=False)[names]
        curves = means.mean().reset_index()
        rows = []
        for task, of_task in curves.groupby("task", sort=False):
            harmless = (of_task["damage"] <= epsilon) & ~(of_task["over_correction"] > epsilon)
            best = of_task.loc[harmless, "success"].max()
            works = harmless & (of_task["success"] >= best / 2) if best > 0 else harmless & False
            for method, curve in of_task.groupby("method", sort=False):
                found = _longest_run(curve[works[curve.index]], curve["part"].tolist())
                ends = [found[name].iloc[place] if len(found) else np.nan for name in _ENDS for place in (0, -1)]
                rows.append((task, method, *ends, found["success"].max(), best / 2 if best > 0 else np.nan))
        columns = ["task", "method", *(f"{name}_{end}" for name in _ENDS for end in ("from", "to")), "best", "needed"]
        return pd.DataFrame(rows, columns=columns)

    def undefined(self) -> pd.DataFrame:
        """Return which figures are not defined, and why.

        Returns:
            One row per task, metric and reason: methods and concepts (names, in lists), and cells (their number). The
            metric "fit" stands for all figures of a concept.
        """
        missing = self.frame.dropna(subset=["reason"])
        rows = [
            (*key, list(dict.fromkeys(of_key["method"])), list(dict.fromkeys(of_key["concept"])), len(of_key))
            for key, of_key in missing.groupby(["task", "metric", "reason"], sort=False)
        ]
        return pd.DataFrame(rows, columns=["task", "metric", "reason", "methods", "concepts", "cells"])

    def of_task(self, task: str) -> SwordBenchResult:
        """Return what was found on one task.

        Raises:
            ValueError: The run has no such task.
        """
        if task not in (known := self.tasks):
            raise ValueError(f"the run has no task {task!r}; its tasks are {', '.join(known)}")
        tables = {each.name: getattr(self, each.name) for each in fields(self)}
        return replace(self, **{name: table[table["task"] == task] for name, table in tables.items()})

    @property
    def tasks(self) -> list[str]:
        """The names of the tasks."""
        return list(dict.fromkeys(self.perfect["task"]))

    def plot(self) -> Figure:
        """Draw success against damage for parts of each method's removal, one panel per task."""
        from ..plotting.steering import plot_success_against_damage

        return plot_success_against_damage(self.doses, self.working_doses())

    def plot_doses(self) -> Figure:
        """Draw success, damage and over-correction against the relative dose, one row per task."""
        from ..plotting.steering import plot_doses

        return plot_doses(self.doses, self.working_doses(), EPSILON)

    def plot_cross(self, task: str, method: str) -> Figure:
        """Draw how well each concept is found after each was removed, the mean over seeds."""
        from ..plotting.steering import plot_cross_concepts

        chosen = self.cross[(self.cross["task"] == task) & (self.cross["method"] == method)]
        if chosen.empty:
            raise ValueError(f"the run has no cell of method {method!r} on task {task!r}")
        matrix = chosen.pivot_table(index="found", columns="removed", values="auroc", sort=False)
        return plot_cross_concepts(matrix, f"{task}, {method}")


def _longest_run(working: pd.DataFrame, parts: Sequence[float]) -> pd.DataFrame:
    """Return the longest run of rows whose parts follow each other."""
    places = np.array([parts.index(part) for part in working["part"]], dtype=int)
    runs = np.split(np.arange(len(places)), np.flatnonzero(np.diff(places) != 1) + 1)
    return working.iloc[max(runs, key=len)]


def _place(cell: Mapping[str, Any]) -> dict[str, Any]:
    return {key: cell[key] for key in ("task", "backbone", "method", "seed")}


def _by_test(gains: pd.DataFrame) -> list[list[np.ndarray]]:
    """Return the gains in groups of rows, once for each set of test rows: means over its seeds."""
    found = []
    for _, same in gains.groupby("task_sha256", sort=True):
        biased, unbiased, aligned = (np.mean(list(same[group]), axis=0) for group in ("biased", "unbiased", "aligned"))
        if not len(aligned) or aligned.mean() >= 0:  # what is kept of the bias's help is no gain
            aligned = np.zeros(max(1, len(aligned)))
        found.append([biased, unbiased, aligned])
    return found


def _paired(a: list[list[np.ndarray]], b: list[list[np.ndarray]]) -> float:
    """Return the p-value of a two-sided test that the mean net gains of two methods are the same."""
    parts = [x - y for one, other in zip(a, b, strict=True) for x, y in zip(one, other, strict=True)]
    size = abs(sum(part.mean() for part in parts))
    parts = [part for part in parts if part.any()]
    if not parts:
        return 1.0
    if any(len(part) < MIN_ROWS or np.ptp(part) == 0 for part in parts):
        terms = np.concatenate([part[part != 0] / len(part) for part in parts])
        if len(terms) == 1:
            return 1.0
        return float(permutation_test((terms,), np.sum, permutation_type="samples", batch=1000, rng=0).pvalue)
    variance = sum(part.var(ddof=1) / len(part) for part in parts)
    return float(2 * norm.sf(size / np.sqrt(variance)))
