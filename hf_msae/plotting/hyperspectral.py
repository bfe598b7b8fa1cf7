"""Figures of red teaming: attributions, pruning, predictions, residuals, shortcuts and attacks."""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .look import PALETTE, figure_text, in_common_look, log_axis, new_figure, new_panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_DOTS = 2000
_TOP = 15
_MOST_PULLS = 20
_LONGEST = 26
_MARKERS = "os^DvPX*"  # one more than colors, so that curves of the same color differ


@in_common_look
def plot_attributions(attributions: pd.DataFrame) -> Figure:
    """Plot the columns with the largest attributions, a panel for each target, with intervals."""
    targets = list(dict.fromkeys(attributions["target"]))
    number = min(_TOP, attributions["feature"].nunique())
    figure, panels = new_panels(len(targets), height=0.9 + 0.17 * number)
    for panel, target in zip(panels, targets, strict=True):
        rows = attributions[attributions["target"] == target].nlargest(number, "attribution")[::-1]
        ends = np.maximum(0, [rows["attribution"] - rows["low"], rows["high"] - rows["attribution"]])
        panel.barh(range(len(rows)), rows["attribution"], xerr=ends, color=PALETTE[0], error_kw={"linewidth": 0.8})
        panel.set_yticks(range(len(rows)), [figure_text(str(name), _LONGEST) for name in rows["feature"]], fontsize=7)
        panel.set(title=figure_text(target), xlabel="mean |SHAP|")
        panel.grid(False, axis="y")
    return figure


@in_common_look
def plot_pruning(pruning: pd.DataFrame) -> Figure:
    """Plot the error of models with few columns over that of the whole one, a curve for each way of ranking them."""
    figure, axes = new_figure(1, 1, width=4.8, height=3.1)
    panel = axes[0, 0]
    whole = pruning[pruning["ranking"] == "all columns"].iloc[0]
    panel.axhline(1, color="0.6", linewidth=0.8)
    panel.axhline(1.05, color="0.3", linewidth=0.8, linestyle="--", label="5% worse than all columns")
    rankings = [name for name in dict.fromkeys(pruning["ranking"]) if name != "all columns"]
    for color, marker, name in zip(PALETTE, "os^D", rankings, strict=False):
        rows = pruning[pruning["ranking"] == name]
        x = [*rows["features"], whole["features"]]
        panel.plot(x, [*rows["loss"], 1], color=color, marker=marker, markersize=4, label=name)
        panel.fill_between(x, [*rows["loss_low"], 1], [*rows["loss_high"], 1], color=color, alpha=0.12, linewidth=0)
    panel.set(xlabel="columns", ylabel="error over that of all columns")
    log_axis(panel, "x")
    log_axis(panel, "y")
    panel.legend()
    return figure


@in_common_look
def plot_predictions(predictions: pd.DataFrame) -> Figure:
    """Plot predictions of held-out rows against the truth, with bars from the 5th to the 95th percentile."""
    targets = list(dict.fromkeys(predictions["target"]))
    figure, panels = new_panels(len(targets), height=3.0)
    for panel, target in zip(panels, targets, strict=True):
        rows = predictions[predictions["target"] == target]
        truth, found = rows["truth"].to_numpy(), rows["prediction"].to_numpy()
        low, high = min(truth.min(), found.min()), max(truth.max(), found.max())
        margin = 0.09 * (high - low)
        if len(rows) > _MOST_DOTS:
            panel.hexbin(truth, found, gridsize=40, mincnt=1, cmap="Blues", bins="log", linewidths=0.1)
        else:
            size = float(np.clip(1500 / len(rows), 3, 16))
            panel.scatter(truth, found, s=size, color=PALETTE[0], alpha=0.45, linewidths=0)
        panel.plot([low, high], [low, high], color="0.4", linewidth=0.9)
        for color, values, along in ((PALETTE[6], truth, "x"), (PALETTE[1], found, "y")):
            ends, place = np.quantile(values, (0.05, 0.95)), [low - margin / 2] * 2
            x, y = (ends, place) if along == "x" else (place, ends)
            panel.plot(x, y, color=color, linewidth=4, solid_capstyle="butt", clip_on=False)
        panel.set(xlim=(low - margin, high + 0.02 * (high - low)), ylim=(low - margin, high + 0.02 * (high - low)))
        panel.set(xlabel="truth", ylabel="prediction", aspect="equal")
        ratio = np.ptp(np.quantile(found, (0.05, 0.95))) / max(1e-12, np.ptp(np.quantile(truth, (0.05, 0.95))))
        panel.set_title(f"{figure_text(target, 20)}: {ratio:.0%} of the range")
    return figure


@in_common_look
def plot_quantiles(quantiles: pd.DataFrame) -> Figure:
    """Plot the mean residual in each tenth, or coarser part, of a target with intervals, a panel for each."""
    targets = list(dict.fromkeys(quantiles["target"]))
    figure, panels = new_panels(len(targets), height=2.2)
    for panel, target in zip(panels, targets, strict=True):
        rows = quantiles[quantiles["target"] == target]
        places, residual = rows["group"].astype(int), rows["residual"].astype(float)
        ends = [residual - rows["residual_low"].astype(float), rows["residual_high"].astype(float) - residual]
        color = [PALETTE[1] if value > 0 else PALETTE[0] for value in residual]
        panel.bar(places, residual, yerr=np.maximum(0, ends), color=color, error_kw={"linewidth": 0.8})
        panel.axhline(0, color="0.3", linewidth=0.8)
        part = rows["grouping"].iloc[0]
        panel.set(title=figure_text(target), xlabel=f"{part} of the target, from low to high", xticks=places)
        panel.set_ylabel("truth - prediction (sd)")
        panel.grid(False, axis="x")
    return figure


@in_common_look
def plot_shortcuts(shortcuts: pd.DataFrame) -> Figure:
    """Plot R2 or AUROC in random folds, with a group left out, and of the group's mean, by grouping and target."""
    rows = shortcuts[::-1]
    figure, axes = new_figure(1, 1, width=6.0, height=1.3 + 0.3 * len(rows))
    panel = axes[0, 0]
    labels = [
        f"{figure_text(g, 18)}: {figure_text(t, 18)}" for g, t in zip(rows["grouping"], rows["target"], strict=True)
    ]
    heights = np.arange(len(rows))
    is_r2 = rows["metric"].iloc[0] == "r2"
    chance, least = (0.0, -1.5) if is_r2 else (0.5, 0.0)
    shown = np.maximum(rows["left_out"].astype(float), least)
    panel.hlines(heights, shown, rows["random"], color="0.7", linewidth=2)
    alone = np.maximum(rows["group_mean"].astype(float), least)
    panel.plot(alone, heights, "|", color=PALETTE[6], markersize=10, label="mean of the group alone")
    panel.plot(rows["random"], heights, "o", color=PALETTE[0], label="random folds")
    panel.plot(shown, heights, "D", color=PALETTE[1], label="a group left out")
    for height, value in zip(heights, rows["left_out"], strict=True):
        if value < least:
            panel.text(least + 0.03, height + 0.18, f"{value:.2g}", fontsize=7, color=PALETTE[1])
    panel.axvline(chance, color="0.3", linewidth=0.8)
    panel.set_yticks(heights, labels)
    left = min(chance, shown.min(), alone.min()) - 0.1
    panel.set(ylim=(-0.6, len(rows) - 0.4), xlim=(left, 1.02))
    panel.set_xlabel(f"{'R2' if is_r2 else 'AUROC'} ({chance:g} is predicting the mean)")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


@in_common_look
def plot_pulls(pulls: pd.DataFrame) -> Figure:
    """Plot how far the strongest groups shift what a classifier says of rows of the same class, with intervals."""
    strongest = pulls["pull"].astype(float).abs().dropna().nlargest(_MOST_PULLS).index
    rows = pulls.loc[strongest][::-1]
    figure, axes = new_figure(1, 1, width=6.0, height=1.2 + 0.3 * len(rows))
    panel, heights = axes[0, 0], np.arange(len(rows))
    pull, low, high = (rows[name].astype(float).to_numpy() for name in ("pull", "low", "high"))
    panel.hlines(heights, low, high, color="0.6", linewidth=2)
    panel.plot(pull, heights, "o", color=PALETTE[0])
    for place, style in ((0.0, "-"), (1.0, "--")):
        panel.axvline(place, color="0.3", linewidth=0.8, linestyle=style)
    names = zip(rows["target"], rows["grouping"], rows["group"], strict=True)
    labels = [f"{figure_text(t, 18)} where {figure_text(g, 14)} is {figure_text(str(x), 14)}" for t, g, x in names]
    panel.set_yticks(heights, labels)
    panel.set(ylim=(-0.6, len(rows) - 0.4), xlim=(min(-0.1, 1.05 * np.nanmin(low)), max(1.1, 1.05 * np.nanmax(high))))
    panel.set_xlabel("shift of the log-odds (0: none; 1: as much as the class itself makes)")
    panel.grid(False, axis="y")
    return figure


@in_common_look
def plot_attacks(attacks: pd.DataFrame) -> Figure:
    """Plot errors against the strength of each attack, a curve for each target.

    The dashed line is the error of predicting the mean, the dotted one the strength that a model has to survive.
    """
    names = list(dict.fromkeys(attacks["attack"]))
    targets = list(dict.fromkeys(attacks["target"]))
    figure, panels = new_panels(len(names), columns=3, width=2.3, height=2.1)
    handles: dict = {}
    for i, (panel, name) in enumerate(zip(panels, names, strict=True)):
        rows = attacks[attacks["attack"] == name]
        panel.axhline(1, color="0.3", linewidth=0.8, linestyle="--")
        panel.axvline(
            rows.loc[rows["allowed"].astype(bool), "strength"].iloc[0], color="0.3", linewidth=0.8, linestyle=":"
        )
        for color, marker, target in zip(cycle(PALETTE), cycle(_MARKERS), targets, strict=False):
            curve = rows[rows["target"] == target]
            line = panel.plot(
                curve["strength"], curve["error"], color=color, marker=marker, markersize=3, linewidth=1.2
            )[0]
            panel.fill_between(curve["strength"], curve["low"], curve["high"], color=color, alpha=0.12, linewidth=0)
            handles.setdefault(figure_text(target, _LONGEST), line)
        unit = rows["unit"].iloc[0]
        panel.set_title(figure_text(name))
        panel.set_xlabel(figure_text(unit, 32), fontsize=7)
        if i % 3 == 0:
            panel.set_ylabel("error / variance")
        log_axis(panel, "x")
        strengths = rows["strength"].unique()  # ticks at other places would be closer to each other than these
        panel.set_xticks(strengths, [f"{strength:g}" for strength in strengths])
        panel.tick_params(axis="x", labelsize=7)
        top = rows["high"].astype(float).max()
        if top > 5:
            log_axis(panel, "y")
        else:
            panel.set_ylim(0, max(1.05, 1.05 * top))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)
    return figure
