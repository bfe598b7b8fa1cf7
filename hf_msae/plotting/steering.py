"""Figures of SwordBench: success against damage, what doses do, and concepts after others were removed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .look import PALETTE, figure_text, in_common_look, log_axis, new_figure, new_panels

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_MARKERS = "osD^v<>PX*hp"
_OTHER = ("0.75", ".")
_AXES = {"success": "success", "damage": "damage", "over_correction": "over-correction"}
_INJECTION_AXES = {"gain": "gain (predictions as with the bias)", "exactness": "exactness"}
_LONGEST_LABEL = 24
_EQUAL = "largest equal dose"


@in_common_look
def plot_success_against_damage(doses: pd.DataFrame, working: pd.DataFrame | None = None) -> Figure:
    """Plot success against damage, one panel per task and one curve per method, from small doses to large ones.

    The marker is the removal itself, with its intervals. Up and to the left is better.
    All methods are in color if there are enough colors. Otherwise those that another one beats in both on every task,
    and that work at no dose, are gray, and so are all but those with the highest net gains of the rest.
    """
    curves = _curves(doses)
    tasks = list(dict.fromkeys(doses["task"]))
    wholes = curves.xs(1.0, level="part")
    looks, methods = _looks(curves, working)
    legend_columns = 2 if len(tasks) == 1 else 4
    legend_rows = -(-(len(looks) + 1) // legend_columns)
    figure, panels = new_panels(max(1, len(tasks)), height=2.8 + 0.25 * legend_rows / max(1, -(-len(tasks) // 2)))
    handles = {}
    for panel, task in zip(panels, tasks, strict=False):
        panel.axhline(0, color="0.7", linewidth=0.8)
        panel.axvline(0, color="0.7", linewidth=0.8)
        for method in methods:
            if (task, method) not in wholes.index:
                continue
            color, marker = looks.get(method, _OTHER)
            curve, whole = curves.loc[task, method], wholes.loc[(task, method)]
            panel.plot(curve["damage"], curve["success"], color=color, linewidth=0.8, alpha=0.7)
            ends = {"xerr": _ends(whole, "damage"), "yerr": _ends(whole, "success")} if method in looks else {}
            drawn = panel.errorbar(
                whole["damage"], whole["success"], **ends, color=color, marker=marker, markersize=5, linewidth=0.8
            )
            handles.setdefault(_label(method, looks), drawn)
        panel.set(
            title=figure_text(task, 34), xlabel="damage on unbiased rows (accuracy)", ylabel="success (accuracy)"
        )
    _legend(figure, handles, legend_columns)
    return figure


@in_common_look
def plot_doses(
    doses: pd.DataFrame, working: pd.DataFrame, epsilon: float, equal: Mapping[str, float] | None = None
) -> Figure:
    """Plot success, damage and over-correction against the relative dose, one row of panels per task.

    Bands are 95% intervals. Thick parts are the doses that work: dashed lines mark the success that they need, and the
    damage and over-correction that they may have (`epsilon`). A dotted line is the largest dose at which methods are
    compared at equal doses (`equal`, by task): one whose curve, up to twice its own change, ends before it was
    stretched further. Gray methods are those of `plot_success_against_damage`.
    """
    curves, ranges = _curves(doses), working.set_index(["task", "method"])
    tasks = list(dict.fromkeys(doses["task"]))
    looks, methods = _looks(curves, working)
    figure, panels = new_figure(max(1, len(tasks)), len(_AXES), width=2.6, height=2.9)
    handles = {}
    for row, task in zip(panels, tasks, strict=False):
        limits = (ranges.loc[task, "needed"].iloc[0], epsilon, epsilon)
        for panel, (name, label), limit in zip(row, _AXES.items(), limits, strict=True):
            panel.axhline(0, color="0.7", linewidth=0.8)
            if np.isfinite(limit):
                panel.axhline(limit, color="0.3", linewidth=1, linestyle="--")
            if equal and task in equal:
                line = panel.axvline(equal[task], color="0.3", linewidth=1, linestyle=":")
                handles.setdefault(_EQUAL, line)
            for method in methods:
                if (task, method) not in ranges.index:
                    continue
                color, marker = looks.get(method, _OTHER)
                curve = curves.loc[task, method]
                drawn = panel.plot(curve["dose"], curve[name], color=color, marker=marker, markersize=3, linewidth=0.8)
                if method in looks:
                    panel.fill_between(
                        curve["dose"], curve[f"{name}_low"], curve[f"{name}_high"], color=color, alpha=0.1, linewidth=0
                    )
                first, last = ranges.loc[(task, method), ["part_from", "part_to"]]
                works = curve.loc[first:last] if np.isfinite(first) else curve.iloc[:0]
                panel.plot(works["dose"], works[name], color=color, linewidth=4, alpha=0.6, solid_capstyle="round")
                handles.setdefault(_label(method, looks), drawn[0])
            panel.set(xlabel="dose, relative to the embedding", ylabel=f"{label} (accuracy)")
            if curves.loc[task, name].isna().all():
                panel.text(0.5, 0.5, "not defined", transform=panel.transAxes, ha="center")
                panel.set_xticks([])
            elif (curves.loc[task, "dose"] > 0).any():
                log_axis(panel, "x")
        row[0].set_title(figure_text(task, 34), loc="left")
    _legend(figure, handles, 4)
    return figure


@in_common_look
def plot_injection(injection: pd.DataFrame) -> Figure:
    """Plot the gain and the exactness of adding the bias against the relative dose, one row of panels per task.

    Bands are 95% intervals, and the marker is an amount of 1. All methods are in color if there are enough colors,
    and otherwise those whose gain, or whose exactness, no other one reaches on some task.
    """
    curves = _curves(injection, tuple(_INJECTION_AXES))
    tasks = list(curves.index.unique("task"))
    best = {curves.loc[task, name].idxmax()[0] for task in tasks for name in _INJECTION_AXES}
    named = curves.index.unique("method")
    looks, methods = _colored(sorted(named if len(named) <= len(PALETTE) else best), curves)
    figure, panels = new_figure(len(tasks), len(_INJECTION_AXES), width=3.6, height=2.9)
    handles = {}
    for row, task in zip(panels, tasks, strict=False):
        for panel, (name, label) in zip(row, _INJECTION_AXES.items(), strict=True):
            panel.axhline(0, color="0.7", linewidth=0.8)
            for method in methods:
                if (task, method) not in curves.index.droplevel("part"):
                    continue
                color, marker = looks.get(method, _OTHER)
                curve = curves.loc[task, method]
                panel.plot(curve["dose"], curve[name], color=color, linewidth=0.8)
                whole = curve.loc[[1.0]]
                drawn = panel.plot(whole["dose"], whole[name], color=color, marker=marker, markersize=5, linewidth=0.8)
                if method in looks:
                    panel.fill_between(
                        curve["dose"], curve[f"{name}_low"], curve[f"{name}_high"], color=color, alpha=0.1, linewidth=0
                    )
                handles.setdefault(_label(method, looks), drawn[0])
            panel.set(xlabel="dose, relative to the embedding", ylabel=label)
            colored = curves.loc[task][curves.loc[task].index.get_level_values("method").isin(looks)]
            low = min(curves.loc[task, name].min(), colored[f"{name}_low"].min())
            high = max(curves.loc[task, name].max(), colored[f"{name}_high"].max())
            if np.isfinite([low, high]).all():
                panel.set_ylim(max(-1.05, low - 0.05), high + 0.05)  # exactness has no lower end
            if (curves.loc[task, "dose"] > 0).any():
                log_axis(panel, "x")
        row[0].set_title(figure_text(task, 34), loc="left")
    _legend(figure, handles, 4)
    return figure


def _curves(table: pd.DataFrame, names: tuple[str, ...] = ("success", "damage", "over_correction")) -> pd.DataFrame:
    """Return the curves by task, method and part, with intervals cut to what is possible.

    With few seeds, an interval of a mean may go beyond what a difference of accuracies, or exactness, can be.
    """
    if table.empty:
        raise ValueError("there is nothing to plot: no curve is defined; undefined() has the reasons")
    columns = [f"{name}{end}" for name in ("dose", *names) for end in ("", "_low", "_high")]
    # A mean of one row each: unlike set_index, it leaves an index that pandas finds sorted, by first appearance.
    curves = (
        table.astype(dict.fromkeys(columns, float)).groupby(["task", "method", "part"], sort=False)[columns].mean()
    )
    for name in names:
        ends = [f"{name}_low", f"{name}_high"]
        curves[ends] = curves[ends].clip(None if name == "exactness" else -1, 1)  # exactness has no lower end
    return curves


def _looks(curves: pd.DataFrame, working: pd.DataFrame | None) -> tuple[dict[str, tuple[str, str]], list[str]]:
    """Return the color and marker of methods that are not gray, and all methods, gray ones first: they lie below."""
    wholes = curves.xs(1.0, level="part")
    shown = {method for task in wholes.index.unique("task") for method in _front(wholes.loc[task])}
    if (methods := wholes.index.unique("method")).size <= len(PALETTE):
        shown = set(methods)
    elif working is not None:
        shown |= set(working.dropna(subset=["part_from"])["method"])
    if len(shown) > len(PALETTE):  # one color each: the highest net gains, means over tasks
        gain = wholes["success"] - wholes["damage"] - wholes["over_correction"].clip(lower=0).fillna(0)
        shown = set(gain.groupby("method").mean()[list(shown)].nlargest(len(PALETTE)).index)
    return _colored(sorted(shown), curves)


def _colored(shown: list[str], curves: pd.DataFrame) -> tuple[dict[str, tuple[str, str]], list[str]]:
    looks = {method: (PALETTE[i % len(PALETTE)], _MARKERS[i % len(_MARKERS)]) for i, method in enumerate(shown)}
    return looks, sorted(curves.index.unique("method"), key=lambda method: method in looks)


def _label(method: str, looks: dict[str, tuple[str, str]]) -> str:
    return figure_text(method, _LONGEST_LABEL) if method in looks else "others"


def _legend(figure: Figure, handles: dict[str, Any], columns: int) -> None:
    order = sorted(handles, key=lambda label: (label in ("others", _EQUAL), label))
    found = [handles[label] for label in order]
    figure.legend(found, order, loc="outside lower center", ncols=columns, frameon=False)


def _front(wholes: pd.DataFrame) -> list[str]:
    success, damage = wholes["success"].to_numpy(), wholes["damage"].to_numpy()
    at_least = (success[None] >= success[:, None]) & (damage[None] <= damage[:, None])
    better = (success[None] > success[:, None]) | (damage[None] < damage[:, None])
    return list(wholes.index[~(at_least & better).any(axis=1)])


@in_common_look
def plot_cross_concepts(matrix: pd.DataFrame, title: str = "", orthogonality: pd.Series | None = None) -> Figure:
    """Plot a heat map of how well each concept (rows) is found after each (columns) was removed, as AUROC.

    The numbers are written into the cells of up to 12 concepts; on the right is the orthogonality of each, if given.
    """
    size = max(2.8, min(6.3, 0.5 * len(matrix) + 1.6))
    figure, axes = new_figure(1, 1, width=size, height=size * 0.85)
    panel = axes[0, 0]
    heat = panel.imshow(matrix.to_numpy(), vmin=0.5, vmax=1, cmap="viridis", aspect="auto")
    panel.grid(False)
    for axis, names, what in (
        (panel.xaxis, matrix.columns, "removed"),
        (panel.yaxis, matrix.index, "found"),
    ):
        axis.set_ticks(range(len(names)), [figure_text(name, _LONGEST_LABEL) for name in names])
        axis.set_label_text(what)
    panel.tick_params(axis="x", labelrotation=90)
    panel.set_title(figure_text(title, 34))
    if len(matrix) <= 12:
        for (row, column), value in np.ndenumerate(matrix.to_numpy()):
            color = "black" if value > 0.75 else "white"
            panel.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8, color=color)
    if orthogonality is not None:
        right = panel.secondary_yaxis("right")
        values = orthogonality.reindex(matrix.index)
        right.set_yticks(range(len(values)), ["" if np.isnan(value) else f"{value:.2f}" for value in values])
        right.set_ylabel("orthogonality")
    figure.colorbar(heat, ax=panel, label="AUROC")
    return figure


def _ends(row: pd.Series, name: str) -> np.ndarray:
    return np.maximum(0, [[row[name] - row[f"{name}_low"]], [row[f"{name}_high"] - row[name]]])
