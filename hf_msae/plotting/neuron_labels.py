"""The figure of a neuron's label: pictures that activate it, and the course of the search."""

from __future__ import annotations

from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

import numpy as np

from .._utils.images import thumbnail, to_rgb
from .look import PALETTE, figure_text, in_common_look, new_figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..neuron_labels.result import NeuronLabel

_COLUMNS = 6
_SIDE = 160
_LONGEST = 18
_MOST_NAMED = 14
_LINE = 74


@in_common_look
def plot_neuron_label(found: NeuronLabel, folder: Path) -> Figure:
    """Plot the pictures of concepts that activate a neuron most, the control pictures that do, and the course.

    Numbers below pictures are activations, as shares of the largest activation of a control picture. A filled dot is
    the score of all pictures of a concept, a hollow one that of the first few, where more were made. Concepts are
    in the order in which they were tried; a dotted line divides those that the search started from and the others.
    """
    title = "\n".join(wrap(found.verdict(), _LINE))
    figure, axes = new_figure(4, 1, width=6.3, height=1.25 + 0.04 * title.count("\n"), title=title)
    for panel in axes.flat:
        panel.remove()
    grid = figure.add_gridspec(4, _COLUMNS, height_ratios=[1, 1, 0.7, 0.7])
    scale = found.control["max"] if found.control["max"] > 0 else 1.0
    for row, (kind, title) in enumerate((("made", "pictures of concepts"), ("control", "control pictures"))):
        pictures = found.pictures[found.pictures["kind"] == kind].head(_COLUMNS)
        for column in range(_COLUMNS):
            panel = figure.add_subplot(grid[row, column])
            panel.set_axis_off()
            if column == 0:
                # Outside of the layout, which would widen the column to the length of the title.
                panel.text(0, 1.06, f"{title} that activate it most", transform=panel.transAxes).set_in_layout(False)
            if column < len(pictures):
                _draw_picture(panel, pictures.iloc[column], folder, scale)
    _draw_course(figure.add_subplot(grid[2:, :]), found)
    return figure


def _draw_picture(panel: Axes, record: pd.Series, folder: Path, scale: float) -> None:
    name = record["sha256"]
    panel.imshow(np.asarray(thumbnail(to_rgb(folder / "images" / name[:2] / f"{name}.png"), _SIDE)))
    text = f"{record['activation'] / scale:.2f}"
    if record["concept"]:
        text = f"{figure_text(record['concept'], _LONGEST)}\n{text}"
    panel.text(0.5, -0.04, text, transform=panel.transAxes, ha="center", va="top", fontsize=7)


def _draw_course(panel: Axes, found: NeuronLabel) -> None:
    scored = found.history[found.history["score"].notna()].reset_index(drop=True)
    best = scored["concept"] == found.guess
    again = scored["first_score"] != scored["score"]
    panel.vlines(scored.index[again], scored["first_score"][again], scored["score"][again], color="0.7", linewidth=0.8)
    panel.plot(scored.index[again], scored["first_score"][again], "o", color="0.5", fillstyle="none", markersize=4)
    for chosen, color in ((~best, PALETTE[0]), (best, PALETTE[1])):
        panel.plot(scored.index[chosen], scored["score"][chosen], "o", color=color, markersize=5)
    note = " (hollow: on the first pictures alone)" if again.any() else ""
    panel.text(0, 1.03, f"concepts in the order in which they were tried{note}", transform=panel.transAxes)
    if found.metric == "auc":
        panel.axhline(0.5, color="0.7", linewidth=0.8)
        panel.set_ylim(-0.04, 1.04)
    named = scored.sort_values("score", ascending=False).head(_MOST_NAMED).index
    labels = [figure_text(concept, _LONGEST) if i in named else "" for i, concept in enumerate(scored["concept"])]
    panel.set_xticks(range(len(scored)), labels, rotation=45, ha="right", fontsize=7)
    panel.set_ylabel({"auc": "AUC", "mad": "MAD", "mean": "mean activation"}[found.metric])
    starts = int((scored["origin"] == "start").sum())
    if 0 < starts < len(scored):
        panel.axvline(starts - 0.5, color="0.7", linewidth=0.8, linestyle=":")
        for text, side in (("start ", "right"), (" proposed", "left")):
            at = panel.get_xaxis_transform()
            panel.text(starts - 0.5, 0.02, text, transform=at, ha=side, color="0.4", fontsize=7)
