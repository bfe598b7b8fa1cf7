"""What SwordBench found: a tidy table, curves over doses, the matrix of concepts, ranks and verdicts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..statistics import Result, draws_interval
from .damage import GROUPS
from .ranking import left_out, rank_methods
from .summary import largest_equal_doses, remarks, summarize, with_stretch, working_ranges
from .verdict import EPSILON, why_not_perfect

if TYPE_CHECKING:
    from typing import Self

    from matplotlib.figure import Figure

COLUMNS = ["task", "backbone", "method", "concept", "seed", "metric", "value", "low", "high", "reason"]
SUMMARY = ("recovery", "damage", "net_gain", "detection_auroc", "robustness", "leakage_linear")
_GAINS = ["task", "method", "seed", "task_sha256", "biased", "unbiased", "aligned"]
_MADE = ["task", "method", "seed", "rows_sha256", "shared", "fitted_by", "settings"]
_INJECTION = ["task", "method", "seed", "part"]
_INJECTION += [f"{name}{end}" for name in ("dose", "gain", "exactness") for end in ("", "_low", "_high")]
_DOSES = ["task", "method", "seed", "part", "dose", "dose_low", "dose_high"]
_DOSES += [f"{name}{end}" for name in ("success", "damage", "over_correction") for end in ("", "_low", "_high")]


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
            where a group has fewer than 72 rows.
        gains: For each task, method and seed, what the removal gained in each test row that is biased, unbiased or
            aligned, and the hash of the task.
        made: What each task, method and seed was made of: the hash of the task's rows (`rows_sha256`), the share of
            test rows that two seeds have in common, the name of the method in `METHODS` and its options.
        injection: What amounts of `add` do in unbiased rows: task, method, seed, part (the amount), and dose, gain and
            exactness (`injection_doses`) with intervals.
        equal_dose: Gains as in `gains`, but averaged over doses that are equal for all methods (`removal_doses`).

    Results of earlier versions lack the last three, or a column of them.
    """

    frame: pd.DataFrame = field(metadata={"columns": COLUMNS})
    doses: pd.DataFrame = field(metadata={"columns": _DOSES})
    cross: pd.DataFrame = field(metadata={"columns": ["task", "method", "seed", "found", "removed", "auroc"]})
    perfect: pd.DataFrame = field(metadata={"columns": ["task", "method", "seed", "perfect"]})
    gains: pd.DataFrame = field(metadata={"columns": _GAINS})
    made: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=_MADE), metadata={"columns": _MADE})
    injection: pd.DataFrame = field(
        default_factory=lambda: pd.DataFrame(columns=_INJECTION), metadata={"columns": _INJECTION}
    )
    equal_dose: pd.DataFrame = field(
        default_factory=lambda: pd.DataFrame(columns=_GAINS), metadata={"columns": _GAINS}
    )

    @classmethod
    def of_cells(cls, cells: Sequence[Mapping[str, Any]]) -> SwordBenchResult:
        """Put cells together, as `run_swordbench` wrote them."""

        def table(key: str, columns: Sequence[str]) -> pd.DataFrame:
            rows = [{**_place(cell), **record} for cell in cells for record in cell.get(key, [])]
            return pd.DataFrame(rows, columns=columns)

        def columns(*keys: str) -> pd.DataFrame:
            return pd.DataFrame([{**_place(cell), **{key: cell[key] for key in keys}} for cell in cells])

        def at_equal_dose(cell: Mapping[str, Any]) -> dict[str, Any]:
            gains = {group: cell.get("equal_dose", {}).get(group, []) for group in GROUPS}
            return {**_place(cell), "task_sha256": cell["task_sha256"], **gains}

        return cls(
            frame=table("figures", COLUMNS),
            doses=table("doses", _DOSES),
            cross=table("cross", ["task", "method", "seed", "found", "removed", "auroc"]),
            perfect=columns("perfect").drop(columns="backbone"),
            gains=columns("task_sha256", "biased", "unbiased", "aligned").drop(columns="backbone"),
            made=pd.DataFrame([{key: cell.get(key) for key in _MADE} for cell in cells], columns=_MADE),
            injection=table("injection", _INJECTION),
            equal_dose=pd.DataFrame([at_equal_dose(cell) for cell in cells], columns=_GAINS),
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

    def summary(self, metrics: Sequence[str] | None = SUMMARY) -> pd.DataFrame:
        """Return means over seeds and concepts of some metrics, or of all (None), with intervals over rows and seeds.

        An interval is `statistics.draws_interval` of the seeds: it has the spread of the seeds, whose training rows,
        classifier and fit differ, and what each seed's own interval says of its test rows, where those that seeds have
        in common count once. The intervals of several concepts, which have the same rows, are averaged. With few
        seeds it is wide where they differ, and with one it covers its rows alone.

        Returns:
            One row per task, method and metric: mean, low, high (95%; NaN where a seed has no interval), lowest and
            highest seed, seeds and concepts (the number of those that are averaged), and missing: which seeds and
            concepts of the run are not, since the figure is not defined there; "" if all are.
        """
        seeds = {task: list(dict.fromkeys(each["seed"])) for task, each in self.perfect.groupby("task", sort=False)}
        return summarize(self.frame, metrics, seeds, self._shared())

    def ranking(self, equal_dose: bool = False) -> pd.DataFrame:
        """Rank methods within each task by their net gain; methods that cannot be told from the best share its rank.

        The best of the methods that are left opens a rank, and is compared with each of the others. Two methods are
        told apart if the 95% interval of their difference in net gain is without 0: if it has a two-sided p-value of
        at most 0.05. They are paired in each test row, and so in each seed. Intervals are of single differences, so
        among many methods some are told apart by chance: `p_value` is corrected for that, ranks are not. The standard
        error of the mean over seeds is that of the intervals: it has the variance between seeds, with Student's t for
        their number, as well as that of the rows, a sum over biased, unbiased and, for methods that over-correct on
        average, aligned rows. Where two methods differ in a group of fewer than 10 rows, or by the same in all of its
        rows, a standard error says nothing of the rows, and the test flips the signs of rows: each row's difference is
        as likely to be its opposite if the methods are alike.

        Rows that seeds have in common count once, however often they are tested. A task that is the same for several
        seeds, such as a finished one, counts once, with the means of its rows; then, and with one seed, p-values and
        intervals are of these test rows and say nothing about other training rows (`remarks`). Results of earlier
        versions do not say which rows seeds share, so there all of them do. Only seeds in which all ranked methods are
        defined count. Ranks need not follow the means: a method whose gains vary much is harder to tell from the best,
        so it may share a rank that one of a higher mean and less variation misses, as `note` then says.

        Args:
            equal_dose: Compare methods at doses that are equal for all, as `removal_doses` says, instead of each at
                the dose of its own removal.

        Returns:
            One row per task and method: rank; net_gain, or net_gain_equal_dose, the mean over seeds; low and high, its
            95% interval over rows and seeds (`summary`); p_value (against the best, corrected for all pairs); seeds
            (the number of those that count); missing (which methods and seeds of the run do not, "" if all do); and
            note. At equal doses also stretch: how many times its own change the largest of the doses is (NaN if not
            known); beyond 2, the note says so, since the method is ranked by changes that it does not make by itself.
        """
        if not equal_dose:
            return rank_methods(self.gains, self._shared(), "net_gain")
        return with_stretch(rank_methods(self.equal_dose, self._shared(), "net_gain_equal_dose"), self.frame)

    def remarks(self) -> list[str]:
        """Say in sentences which seeds and concepts means are without, and of which tasks there is only one draw."""
        return remarks(self)

    def verdict(self) -> str:
        """Say whether any method steers perfectly, which gain most, what ranks lack, and why what is not defined."""
        defined = set(self.perfect.dropna(subset=["perfect"])["task"])
        is_perfect = self.perfect.assign(perfect=self.perfect["perfect"].eq(True))
        always = is_perfect.groupby(["task", "method"], sort=False)["perfect"].all()
        perfect = [f"{method} on {task}" for (task, method), value in always.items() if value]
        said = "no method steers perfectly"
        if perfect:
            said = f"steering is perfect for every seed: {', '.join(perfect)}"
        ranking = self.ranking()
        best = [
            f"{', '.join(rows['method'])} on {task}"
            for task, rows in ranking[ranking["rank"] == 1].groupby("task", sort=False)
        ]
        said = [said] if defined else []
        said += [f"the highest net gain: {'; '.join(best)}"] if best else []
        said += [f"ranks on {task} are {parts}" for task, parts in left_out(self.gains).items()]
        said += [
            f"perfect steering on {task} is not defined: {why_not_perfect(each.frame, each.gains)}"
            for task in self.tasks
            if task not in defined
            for each in [self.of_task(task)]
        ]
        return "; ".join(said)

    def dose_curves(self) -> pd.DataFrame:
        """Return `doses` as means over seeds, with intervals over rows and seeds (`summary`)."""
        return self._over_seeds(self.doses, ("dose", "success", "damage", "over_correction"))

    def injection_curves(self) -> pd.DataFrame:
        """Return `injection` as means over seeds, with intervals over rows and seeds (`summary`)."""
        return self._over_seeds(self.injection, ("dose", "gain", "exactness"))

    def _over_seeds(self, table: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
        shared, rows = self._shared(), []
        for (task, method, part), each in table.groupby(["task", "method", "part"], sort=False):
            row = {"task": task, "method": method, "part": part}
            for name in names:
                ends = (each[f"{name}{end}"].to_numpy(float) for end in ("", "_low", "_high"))
                found = draws_interval(*ends, shared[task])
                row |= {f"{name}{end}": float(value) for end, value in zip(("", "_low", "_high"), found, strict=True)}
            rows.append(row)
        columns = ["task", "method", "part", *(f"{name}{end}" for name in names for end in ("", "_low", "_high"))]
        return pd.DataFrame(rows, columns=columns)

    def _shared(self) -> dict[str, float]:
        """Return for each task the share of test rows that two seeds have in common; 1 if that is not known."""
        known = dict(zip(self.made["task"], self.made["shared"].astype(float), strict=True))
        return {task: 1.0 if np.isnan(share := known.get(task, np.nan)) else share for task in self.tasks}

    def working_doses(self, epsilon: float = EPSILON) -> pd.DataFrame:
        """Say at which doses each method works: a range, since the best point of a curve may be luck.

        A dose works if its success is at least half of the best, and its damage and over-correction are at most
        `epsilon`; over-correction where it is defined. The best is the highest success that any method reaches on the
        task at a dose with no more damage and over-correction than that. Figures are means over seeds, at the parts of
        the removal that were measured, and the range is the longest run of parts that work, the first of the longest.
        A run of one dose is no range.

        Returns:
            One row per task and method: part_from and part_to (parts of the removal), dose_from and dose_to (what they
            are relative to the embedding), best (the highest success in the range) and needed (half of the task's
            best); and the reason where there is no range and these are NaN, "" otherwise.
        """
        return working_ranges(self.dose_curves(), epsilon)

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
        """Return what was found on one task; a ValueError names the tasks of the run if there is no such one."""
        if task not in (known := self.tasks):
            raise ValueError(f"the run has no task {task!r}; its tasks are {', '.join(known)}")
        return replace(self, **{name: table[table["task"] == task] for name, table in vars(self).items()})

    @property
    def tasks(self) -> list[str]:
        """The names of the tasks."""
        return list(dict.fromkeys(self.perfect["task"]))

    def plot(self) -> Figure:
        """Draw success against damage for parts of each method's removal, one panel per task."""
        from ..plotting.steering import plot_success_against_damage

        return plot_success_against_damage(self.dose_curves(), self.working_doses())

    def plot_doses(self) -> Figure:
        """Draw success, damage and over-correction against the relative dose, one row per task."""
        from ..plotting.steering import plot_doses

        return plot_doses(self.dose_curves(), self.working_doses(), EPSILON, largest_equal_doses(self.frame))

    def plot_injection(self) -> Figure:
        """Draw the gain and the exactness of adding the bias against the relative dose, one row per task."""
        from ..plotting.steering import plot_injection

        return plot_injection(self.injection_curves())

    def plot_cross(self, task: str, method: str) -> Figure:
        """Draw how well each concept is found after each was removed, and its orthogonality: means over seeds."""
        from ..plotting.steering import plot_cross_concepts

        chosen = self.cross[(self.cross["task"] == task) & (self.cross["method"] == method)]
        if chosen.empty:
            raise ValueError(f"the run has no cell of method {method!r} on task {task!r}")
        matrix = chosen.pivot_table(index="found", columns="removed", values="auroc", sort=False)
        each = self.frame.query("task == @task and method == @method and metric == 'orthogonality'")
        orthogonality = each.astype({"value": float}).groupby("concept")["value"].mean()
        return plot_cross_concepts(matrix, f"{task}, {method}", orthogonality)


def _place(cell: Mapping[str, Any]) -> dict[str, Any]:
    return {key: cell[key] for key in ("task", "backbone", "method", "seed")}
