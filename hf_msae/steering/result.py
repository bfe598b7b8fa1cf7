"""What SwordBench found: a tidy table, curves over doses, the matrix of concepts, ranks and verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.stats import wilcoxon

from ..statistics import Result, holm

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = ["task", "backbone", "method", "concept", "seed", "metric", "value", "low", "high", "reason"]
SUMMARY = ("recovery", "damage", "net_gain", "detection_auroc", "robustness", "leakage_linear")
_DOSES = ["task", "method", "seed", "part", "dose", "dose_low", "dose_high"]
_DOSES += [f"{name}{end}" for name in ("success", "damage") for end in ("", "_low", "_high")]


@dataclass(frozen=True)
class SwordBenchResult(Result):
    """The figures of a run of `run_swordbench`.

    Attributes:
        frame: One row per figure: task, backbone, method, concept, seed, metric, value, low and high (the ends of its
            95% interval over test rows, empty where there is none), and the reason where it is not defined.
        doses: Success and damage of parts of the removal: task, method, seed, part, and dose, success and damage with
            intervals.
        cross: AUROC of each concept (found) after each was removed: task, method, seed, found, removed, auroc.
        perfect: For each task, method and seed, whether steering is perfect (`is_perfect`); None if not defined.
        gains: For each task, method and seed, what the removal gained in each test row.
    """

    frame: pd.DataFrame = field(metadata={"columns": COLUMNS})
    doses: pd.DataFrame = field(metadata={"columns": _DOSES})
    cross: pd.DataFrame = field(metadata={"columns": ["task", "method", "seed", "found", "removed", "auroc"]})
    perfect: pd.DataFrame = field(metadata={"columns": ["task", "method", "seed", "perfect"]})
    gains: pd.DataFrame = field(metadata={"columns": ["task", "method", "seed", "gains"]})

    @classmethod
    def of_cells(cls, cells: Sequence[Mapping[str, Any]]) -> SwordBenchResult:
        """Put cells together, as `run_swordbench` wrote them."""

        def table(key: str, columns: Sequence[str]) -> pd.DataFrame:
            rows = [{**_place(cell), **record} for cell in cells for record in cell[key]]
            return pd.DataFrame(rows, columns=columns)

        def column(key: str) -> pd.DataFrame:
            return pd.DataFrame([{**_place(cell), key: cell[key]} for cell in cells]).drop(columns="backbone")

        return cls(
            frame=table("figures", COLUMNS),
            doses=table("doses", _DOSES),
            cross=table("cross", ["task", "method", "seed", "found", "removed", "auroc"]),
            perfect=column("perfect"),
            gains=column("gains"),
        )

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

        A method is told from one of a higher mean if a Wilcoxon signed-rank test of their gains in the same test rows,
        over all seeds, has a p-value of at most 0.05 after Holm's correction for all pairs of the task.

        Returns:
            One row per task and method: rank, net_gain (mean over seeds), p_value (against the best, corrected).
        """
        net = self.frame[self.frame["metric"] == "net_gain"].astype({"value": float})
        means = net.groupby(["task", "method"], sort=False)["value"].mean()
        rows = []
        for task, of_task in self.gains.groupby("task", sort=False):
            gains = {
                method: np.concatenate(list(each.sort_values("seed")["gains"]))
                for method, each in of_task.groupby("method", sort=False)
                if (task, method) in means.index
            }
            order = sorted(gains, key=lambda method: -means[task, method])
            pairs = [(a, b) for i, a in enumerate(order) for b in order[i + 1 :]]
            corrected = holm([_paired(gains[a], gains[b]) for a, b in pairs]) if pairs else []
            p_values = dict(zip(pairs, corrected, strict=True))
            rank, leader = 1, order[0] if order else None
            for place, method in enumerate(order, start=1):
                if method != leader and p_values[leader, method] <= 0.05:
                    rank, leader = place, method
                rows.append((task, rank, method, means[task, method], p_values.get((order[0], method), np.nan)))
        return pd.DataFrame(rows, columns=["task", "rank", "method", "net_gain", "p_value"])

    def verdict(self) -> str:
        """Say whether any method steers perfectly, and which gain most."""
        defined = self.perfect.dropna()
        always = defined.groupby(["task", "method"])["perfect"].all() if len(defined) else pd.Series(dtype=bool)
        perfect = [f"{method} on {task}" for (task, method), value in always.items() if value]
        said = f"steering is perfect for every seed: {', '.join(perfect)}" if perfect else "no method steers perfectly"
        ranking = self.ranking()
        best = [
            f"{' and '.join(rows['method'])} on {task}"
            for task, rows in ranking[ranking["rank"] == 1].groupby("task", sort=False)
        ]
        return f"{said}; the highest net gain: {'; '.join(best)}" if best else said

    def plot(self) -> Figure:
        """Draw success against damage for parts of each method's removal, one panel per task."""
        from ..plotting.steering import plot_success_against_damage

        return plot_success_against_damage(self.doses)

    def plot_cross(self, task: str, method: str) -> Figure:
        """Draw how well each concept is found after each was removed, the mean over seeds."""
        from ..plotting.steering import plot_cross_concepts

        chosen = self.cross[(self.cross["task"] == task) & (self.cross["method"] == method)]
        if chosen.empty:
            raise ValueError(f"the run has no cell of method {method!r} on task {task!r}")
        return plot_cross_concepts(chosen.pivot_table(index="found", columns="removed", values="auroc", sort=False))


def _place(cell: Mapping[str, Any]) -> dict[str, Any]:
    return {key: cell[key] for key in ("task", "backbone", "method", "seed")}


def _paired(a: np.ndarray, b: np.ndarray) -> float:
    """Return the p-value of a paired test that two methods gain alike."""
    if (a == b).all():
        return 1.0
    return float(wilcoxon(a, b, method="asymptotic").pvalue)
