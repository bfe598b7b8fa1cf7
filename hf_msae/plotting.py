"""Figures: one look for all of them, colours that colour-blind readers can tell apart, ready for a paper."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from PIL import Image

    from .images import ImageInput

# Okabe and Ito's palette.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLE = {
    "axes.prop_cycle": None,  # set in `new_figure`: cycler must not be imported before it is needed
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.labelsize": 9,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "font.size": 9,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
}


def new_figure(rows: int, columns: int, width: float = 3.1, height: float = 2.5) -> tuple[Figure, np.ndarray]:
    """A figure of rows x columns panels in the common look, and its axes as a (rows, columns) array.

    No display and no global state is touched: the figure is not known to pyplot and needs no closing.
    """
    import matplotlib
    from cycler import cycler
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**STYLE, "axes.prop_cycle": cycler(color=PALETTE)}):
        figure = Figure(figsize=(width * columns, height * rows), layout="constrained", dpi=160)
        axes = figure.subplots(rows, columns, squeeze=False)
    return figure, axes


def check_figure_path(path: str | os.PathLike) -> None:
    """Find out before there is a figure whether it could be written.

    Raises:
        ValueError: the file's ending is none that figures are written with.
    """
    from matplotlib.backend_bases import FigureCanvasBase

    ending = Path(path).suffix.removeprefix(".")
    known = FigureCanvasBase.get_supported_filetypes()
    if ending not in known:
        raise ValueError(
            f"{path} does not end like a figure: choose .png, .pdf, .svg, or another of {', '.join(known)}"
        )


def save_figure(figure: Figure, path: str | os.PathLike) -> Path:
    """Write a figure as PNG (or what the suffix says) under a temporary name, then rename it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".tmp-{path.name}")
    figure.savefig(unfinished)
    os.replace(unfinished, path)
    return path


def plot_quality_against_k(metrics: Mapping, title: str | None = None) -> Figure:
    """How much survives with only the k largest latents: FVU, cosine, L0 and CKNNA against k; and where they were
    measured, what classifiers make of the reconstructions, sparse probing, stability across seeds, monosemanticity.

    Args:
        metrics: the content of metrics.json, or an `EvaluationResult.to_dict()`.
    """
    from matplotlib.ticker import NullLocator, ScalarFormatter

    by_k = {int(k): values for k, values in metrics["by_k"].items()}
    ks = sorted(by_k)
    panels = _quality_panels(by_k, ks)
    columns = min(len(panels), 4)
    figure, axes = new_figure(-(-len(panels) // columns), columns, width=2.9)
    for panel, (name, scale, series) in zip(axes.flat, panels, strict=False):
        for index, (label, values) in enumerate(series.items()):
            values = [np.nan if value is None else value for value in values]
            panel.plot(ks, values, f"{'osD^v'[index % 5]}-", color=PALETTE[index % len(PALETTE)], label=label)
        panel.set(title=name, xscale="log", yscale=scale, xlabel="k (largest latents kept)")
        panel.set_xticks(ks)
        panel.xaxis.set_major_formatter(ScalarFormatter())
        panel.xaxis.set_minor_locator(NullLocator())
        panel.tick_params(axis="x", labelrotation=45)
    for panel in axes.flat[len(panels) :]:
        panel.set_axis_off()
    axes[0][2].plot(ks, ks, ":", color="0.5", label="k")
    baseline = metrics.get("baseline_mean", {})
    if "cosine_similarity" in baseline:
        axes[0][1].axhline(baseline["cosine_similarity"], ls="--", lw=1, color="0.4", label="raw, predicting the mean")
    explained: list[list[str]] = [[]]
    for panel in axes.flat[: len(panels)]:
        labels = panel.get_legend_handles_labels()[1]
        if labels not in explained:  # those of the panel before would only cover curves
            panel.legend(fontsize=7)
        explained.append(labels)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def _quality_panels(by_k: Mapping[int, Mapping], ks: list[int]) -> list[tuple[str, str, dict]]:
    """(title, scale, label -> a value for each k) for each panel with values."""

    def series(**keys: str) -> dict[str, list]:
        found = {label: [by_k[k].get(key) for k in ks] for key, label in keys.items()}
        return {label: values for label, values in found.items() if any(value is not None for value in values)}

    panels = [
        ("Fraction of variance unexplained", "log", series(fvu="FVU")),
        ("Cosine with the original", "linear", series(cosine_similarity="raw", cosine_similarity_centered="centred")),
        ("Latents in use", "log", series(l0="L0 (mean count)")),
        ("Neighbourhoods kept", "linear", series(cknna="CKNNA, latents", cknna_reconstruction="reconstructions")),
    ]
    classifiers = by_k[ks[-1]].get("classifiers") or {}
    for title, scale, key in (
        ("Same class as the original", "linear", "agreement"),
        ("KL from the original's classes", "log", "kl"),
        ("Accuracy lost", "linear", "accuracy_drop"),
    ):
        found = {name: [by_k[k]["classifiers"][name][key] for k in ks] for name in classifiers}
        found = {name: values for name, values in found.items() if values[-1] is not None}
        if found:
            panels.append((title, scale, found))
    told: dict[str, list] = {}
    for name, found in (by_k[ks[-1]].get("sparse_probing") or {}).items():
        for key in (key for key in found if key.startswith("auroc_")):
            label = f"{name}, {key.removeprefix('auroc_')} latent{'s' * (key != 'auroc_1')}"
            told[label] = [by_k[k]["sparse_probing"][name][key] for k in ks]
    if told:
        panels.append(("Sparse probing (AUROC)", "linear", told))
    if by_k[ks[-1]].get("seed_stability"):
        found = {"mean_cosine": "mean cosine", "by_chance": "random directions"}
        series_of = {label: [by_k[k]["seed_stability"][key] for k in ks] for key, label in found.items()}
        panels.append(("Found again by other seeds", "linear", series_of))
    if scores := series(monosemanticity="mean over latents"):
        panels.append((f"Monosemanticity ({by_k[ks[-1]]['monosemanticity_encoder']})", "linear", scores))
    return panels


def plot_training(log: Sequence[Mapping], title: str | None = None) -> Figure:
    """Loss, FVU, sparsity and dead latents over the steps of a run.

    Args:
        log: records of training_log.jsonl; those of training hold loss, fvu, sparsity, dead_latents, learning_rate,
            those of evaluation hold the same names with `eval_` before them.
    """
    figure, axes = new_figure(1, 4, width=2.9)
    panels = [("Loss", "loss", "log"), ("FVU", "fvu", "log"), ("Sparsity", "sparsity", "linear")]
    for panel, (name, key, scale) in zip(axes[0], [*panels, ("Dead latents", "dead_latents", "linear")], strict=True):
        for index, (prefix, label, mark) in enumerate((("", "training batch", "-"), ("eval_", "held out", "o"))):
            points = [(r["step"], r[prefix + key]) for r in log if r.get(prefix + key) is not None]
            if points:
                panel.plot(*zip(*points, strict=True), mark, color=PALETTE[index], label=label)
        panel.set(title=name, yscale=scale, xlabel="step")
        if panel.has_data():
            panel.legend(fontsize=7)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def plot_patch_map(
    image: ImageInput,
    activations: np.ndarray,
    title: str | None = None,
    region: tuple[float, float, float, float] | None = None,
) -> Figure:
    """Where a latent is active: the image, and the same image under a heat map of its patches.

    Args:
        image: as given to `VisionTextMSAE.patch_map`.
        activations: what that returned, (rows, columns).
        title: e.g. the name of the concept.
        region: (left, upper, right, lower) of the image that the patches cover, `Backbone.patch_region`; by default
            all of it.
    """
    from .images import to_rgb

    picture = np.asarray(to_rgb(image, "the image"))
    figure, axes = new_figure(1, 2, width=2.6, height=2.6)
    extent = (0, picture.shape[1], picture.shape[0], 0)
    for panel in axes[0]:
        panel.imshow(picture, extent=extent)
        panel.set_axis_off()
    highest = max(float(activations.max()), 1e-12)
    left, upper, right, lower = region or (0, 0, *picture.shape[1::-1])
    heat = axes[0, 1].imshow(
        activations, extent=(left, right, lower, upper), cmap="magma", alpha=0.65, vmin=0, vmax=highest
    )
    figure.colorbar(heat, ax=axes[0, 1], fraction=0.046, label="activation")
    axes[0, 1].set(xlim=(0, picture.shape[1]), ylim=(picture.shape[0], 0))
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def plot_contributions(
    labels: Sequence[str],
    values: Sequence[float],
    what: str,
    image: ImageInput | None = None,
    title: str | None = None,
) -> Figure:
    """Horizontal bars, the first on top, beside an image if there is one.

    Args:
        labels: of the bars.
        values: their lengths; negative ones go left, in another colour.
        what: they are.
        image: shown on the left.
        title: above all.
    """
    return plot_coarse_to_fine({"": (labels, values)}, what, image, title)


def plot_coarse_to_fine(
    bars: Mapping[str, tuple[Sequence[str], Sequence[float]]],
    what: str,
    image: ImageInput | None = None,
    title: str | None = None,
) -> Figure:
    """Panels of horizontal bars side by side, beside an image if there is one.

    Args:
        bars: title of a panel, e.g. "k = 16" -> labels and values, as for `plot_contributions`.
        what: the values are.
        image: shown on the left.
        title: above all.
    """
    most = max(len(values) for _, values in bars.values())
    figure, axes = new_figure(1, len(bars) + (image is not None), width=3.6, height=max(2.0, 0.26 * most + 0.6))
    panels = list(axes[0])
    if image is not None:
        from .images import to_rgb

        shown = panels.pop(0)
        shown.imshow(np.asarray(to_rgb(image, "the image")))
        shown.set_axis_off()
    for panel, (heading, (labels, values)) in zip(panels, bars.items(), strict=True):
        values = np.asarray(values, dtype=float)
        colours = [PALETTE[0] if value >= 0 else PALETTE[1] for value in values]
        panel.barh(range(len(values)), values, color=colours)
        panel.set_yticks(range(len(values)), labels)
        panel.set(ylim=(most - 0.4, -0.6), xlabel=what)
        panel.set_title(heading, fontsize=9)
        panel.grid(axis="y", visible=False)
        panel.axvline(0, color="0.4", lw=0.8)
    limits = np.array([panel.get_xlim() for panel in panels])
    for panel in panels:
        panel.set_xlim(limits[:, 0].min(), limits[:, 1].max())  # one scale: details are small
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def plot_dose_response(curves: Mapping[str, pd.DataFrame], baseline: float, what: str) -> Figure:
    """How a prediction follows a concept: a panel each, with the interval, and the prediction of what was not changed.

    Args:
        curves: label -> columns dose, probability, low and high.
        baseline: mean prediction, nothing changed.
        what: is predicted.
    """
    columns = max(1, min(len(curves), 3))
    figure, axes = new_figure(-(-max(1, len(curves)) // columns), columns, width=2.6, height=2.1)
    for panel, (label, curve) in zip(axes.flat, curves.items(), strict=False):
        panel.fill_between(curve["dose"], curve["low"], curve["high"], color=PALETTE[0], alpha=0.2, lw=0)
        panel.plot(curve["dose"], curve["probability"], "o-", color=PALETTE[0])
        panel.axhline(baseline, color="0.4", ls="--", lw=1)
        panel.set(title=label, ylim=(-0.02, 1.02), xlabel="activation set to")
    for panel in axes[:, 0]:
        panel.set_ylabel(what)
    for panel in axes.flat[len(curves) :]:
        panel.set_axis_off()
    return figure


def plot_boxes(boxes: Mapping[str, Mapping[str, Mapping[str, float]]], what: str) -> Figure:
    """Box plots of groups side by side, a panel for each label.

    Args:
        boxes: label -> group -> whislo, q1, med, q3 and whishi, as matplotlib's `bxp` takes them.
        what: their common axis shows.
    """
    columns = max(1, min(len(boxes), 3))
    figure, axes = new_figure(-(-max(1, len(boxes)) // columns), columns, width=2.6, height=1.5)
    for panel, (label, groups) in zip(axes.flat, boxes.items(), strict=False):
        drawn = panel.bxp(
            [{**box, "label": group} for group, box in groups.items()],
            orientation="horizontal",
            showfliers=False,
            patch_artist=True,
            widths=0.55,
            medianprops={"color": "black", "lw": 1.8},
        )
        for place, box in enumerate(drawn["boxes"]):
            box.set(facecolor=PALETTE[place % len(PALETTE)], alpha=0.55)
        panel.invert_yaxis()
        panel.grid(axis="y", visible=False)
        panel.set(title=label, xlabel=what)
    for panel in axes.flat[len(boxes) :]:
        panel.set_axis_off()
    return figure


def plot_tree(rows: Sequence[tuple[str, int, float | None]], title: str | None = None) -> Figure:
    """Trees, each row to the right of and below its parent.

    Args:
        rows: (label, depth, share or None), parents before their children; the share is written beside the line.
        title: above all.
    """
    figure, axes = new_figure(1, 1, width=5.5, height=max(1.5, 0.24 * len(rows) + 0.5))
    panel = axes[0, 0]
    last: dict[int, int] = {}
    for place, (label, depth, share) in enumerate(rows):
        if depth:
            corner = depth - 0.85
            panel.plot([corner, corner, depth - 0.1], [last[depth - 1] + 0.3, place, place], color="0.6", lw=1)
            label = label if share is None else f"{label}  ({share:.0%})"
        panel.text(depth, place, label, va="center", fontsize=8, color=PALETTE[depth % 2 and 1])
        last[depth] = place
    panel.set(xlim=(-0.2, max((depth for _, depth, _ in rows), default=0) + 3), ylim=(len(rows) - 0.5, -0.7))
    panel.set_axis_off()
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def plot_contact_sheet(
    rows: Sequence[tuple[str, Sequence[Image.Image], Sequence[bool] | None]], title: str | None = None
) -> Figure:
    """One row a concept: its caption, then the pictures that activate it most.

    Args:
        rows: (caption, pictures, hits); where `hits` is given, a picture of which the concept is not true is marked
            by an orange border and a cross.
    """
    columns = max(len(pictures) for _, pictures, _ in rows)
    figure, axes = new_figure(len(rows), columns + 2, width=0.82, height=0.86)
    for line, (caption, pictures, hits) in zip(axes, rows, strict=True):
        for panel in line:
            panel.set_axis_off()
        line[0].text(0.0, 0.5, caption, va="center", ha="left", fontsize=8, transform=line[0].transAxes)
        for index, picture in enumerate(pictures):
            panel = line[index + 2]
            panel.imshow(np.asarray(picture.convert("RGB")))
            if hits is not None and not hits[index]:
                panel.set_axis_on()
                panel.set(xticks=[], yticks=[])
                for spine in panel.spines.values():
                    spine.set(visible=True, color=PALETTE[1], linewidth=2)
                panel.text(0.06, 0.82, "✗", color=PALETTE[1], fontsize=10, transform=panel.transAxes)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure
