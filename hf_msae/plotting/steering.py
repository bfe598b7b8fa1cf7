"""Figures of SwordBench: success against damage, and concepts after others were removed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .look import PALETTE, figure_text, in_common_look, new_figure, new_panels

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_MARKERS = "osD^v<>PX*hp"
_LONGEST_LABEL = 24


@in_common_look
def plot_success_against_damage(doses: pd.DataFrame) -> Figure:
    """Plot success against damage, one panel per task and one curve per method, from small doses to large ones.

    The marker is the removal itself, with intervals (means over seeds of their ends). Up and to the left is better.
    Methods that another one beats in both on every task are gray.

    Args:
        doses: The table of a `SwordBenchResult`.
    """
    tasks = list(dict.fromkeys(doses["task"]))
    columns = [f"{name}{end}" for name in ("success", "damage") for end in ("", "_low", "_high")]
    curves = doses.groupby(["task", "method", "part"], sort=False)[columns].mean()
    wholes = curves.xs(1.0, level="part")
    fronts = {method for task in tasks for method in _front(wholes.loc[task])}
    methods = sorted(dict.fromkeys(doses["method"]), key=lambda method: method in fronts)  # gray ones lie below
    looks = {
        method: (PALETTE[i % len(PALETTE)], _MARKERS[i % len(_MARKERS)]) for i, method in enumerate(sorted(fronts))
    }
    legend_columns = 2 if len(tasks) == 1 else 4
    legend_rows = -(-(len(fronts) + 1) // legend_columns)
    figure, panels = new_panels(max(1, len(tasks)), height=2.8 + 0.25 * legend_rows / max(1, -(-len(tasks) // 2)))
    handles = {}
    for panel, task in zip(panels, tasks, strict=False):
        panel.axhline(0, color="0.7", linewidth=0.8)
        panel.axvline(0, color="0.7", linewidth=0.8)
        for method in methods:
            if (task, method) not in wholes.index:
                continue
            color, marker = looks.get(method, ("0.75", "."))
            curve, whole = curves.loc[task, method], wholes.loc[(task, method)]
            panel.plot(curve["damage"], curve["success"], color=color, linewidth=0.8, alpha=0.7)
            ends = {"xerr": _ends(whole, "damage"), "yerr": _ends(whole, "success")} if method in looks else {}
            drawn = panel.errorbar(
                whole["damage"], whole["success"], **ends, color=color, marker=marker, markersize=5, linewidth=0.8
            )
            handles.setdefault(figure_text(method, _LONGEST_LABEL) if method in looks else "others", drawn)
        panel.set(
            title=figure_text(task, 34), xlabel="damage on unbiased rows (accuracy)", ylabel="success (accuracy)"
        )
    order = sorted(handles, key=lambda label: (label == "others", label))
    figure.legend(
        [handles[label] for label in order], order, loc="outside lower center", ncols=legend_columns, frameon=False
    )
    return figure


def _front(wholes: pd.DataFrame) -> list[str]:
    """Return the methods that no other one beats both in success and in damage."""
    success, damage = wholes["success"].to_numpy(), wholes["damage"].to_numpy()
    at_least = (success[None] >= success[:, None]) & (damage[None] <= damage[:, None])
    better = (success[None] > success[:, None]) | (damage[None] < damage[:, None])
    return list(wholes.index[~(at_least & better).any(axis=1)])


@in_common_look
def plot_cross_concepts(matrix: pd.DataFrame) -> Figure:
    """Plot a heat map of how well each concept (rows) is found after each (columns) was removed, as AUROC.

    The numbers are written into the cells of up to 12 concepts.
    """
    size = max(2.8, min(6.3, 0.5 * len(matrix) + 1.6))
    figure, axes = new_figure(1, 1, width=size, height=size * 0.85)
    panel = axes[0, 0]
    heat = panel.imshow(matrix.to_numpy(), vmin=0.5, vmax=1, cmap="viridis", aspect="auto")
    for axis, names, what in (
        (panel.xaxis, matrix.columns, "removed"),
        (panel.yaxis, matrix.index, "found"),
    ):
        axis.set_ticks(range(len(names)), [figure_text(name, _LONGEST_LABEL) for name in names])
        axis.set_label_text(what)
    panel.tick_params(axis="x", labelrotation=90)
    if len(matrix) <= 12:
        for (row, column), value in np.ndenumerate(matrix.to_numpy()):
            color = "black" if value > 0.75 else "white"
            panel.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8, color=color)
    figure.colorbar(heat, ax=panel, label="AUROC")
    return figure


def _ends(row: pd.Series, name: str) -> np.ndarray:
    return np.maximum(0, [[row[name] - row[f"{name}_low"]], [row[f"{name}_high"] - row[name]]])
