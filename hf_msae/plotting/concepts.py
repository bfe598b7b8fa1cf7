"""Figures of concepts: where they are active, what they contribute, their effects, and example images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np

from .._utils.images import ImageInput, to_rgb
from .look import LETTER, PALETTE, WIDTH, figure_text, in_common_look, new_figure, new_panels

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from PIL import Image


_LONGEST_TITLE, _LONGEST_CAPTION, _LONGEST_LABEL, _LONGEST_PAIR = 34, 22, 40, 60  # characters that fit
_MOST_EFFECTS = 12


@in_common_look
def plot_patch_map(
    image: ImageInput,
    activations: np.ndarray,
    title: str | None = None,
    region: tuple[float, float, float, float] | None = None,
) -> Figure:
    """Plot where a latent is active: the image, and the same image under a heat map of its patches.

    `activations` (rows, columns) come from `VisionTextMSAE.patch_map`, and `region`, the part of the image that the
    patches cover (by default all of it), from `Backbone.patch_region`.
    """
    picture = np.asarray(to_rgb(image))
    figure, axes = new_figure(1, 2, width=2.6, height=2.6, title=title)
    for panel in axes[0]:
        panel.imshow(picture, extent=(0, picture.shape[1], picture.shape[0], 0))
        panel.set_axis_off()
    highest = max(float(activations.max()), 1e-12)
    left, upper, right, lower = region or (0, 0, *picture.shape[1::-1])
    heat = axes[0, 1].imshow(
        activations, extent=(left, right, lower, upper), cmap="magma", alpha=0.65, vmin=0, vmax=highest
    )
    figure.colorbar(heat, ax=axes[0, 1], fraction=0.046, label="activation")
    axes[0, 1].set(xlim=(0, picture.shape[1]), ylim=(picture.shape[0], 0))
    return figure


@in_common_look
def plot_contributions(
    labels: Sequence[str],
    values: Sequence[float],
    what: str,
    image: ImageInput | None = None,
    title: str | None = None,
) -> Figure:
    """Plot labeled horizontal bars, negative ones to the left in another color, next to an image if there is one.

    `what` labels the axis.
    """
    return plot_coarse_to_fine({"": (labels, values)}, what, image, title)


@in_common_look
def plot_coarse_to_fine(
    bars: Mapping[str, tuple[Sequence[str], Sequence[float]]],
    what: str,
    image: ImageInput | None = None,
    title: str | None = None,
) -> Figure:
    """Plot panels of bars side by side, as `plot_contributions` does one.

    `bars` are labels and values by the title of a panel, such as "k = 16". A panel without any says so.
    """
    most = max(len(values) for _, values in bars.values())
    number = len(bars) + (image is not None)
    longest = max((len(label) for labels, _ in bars.values() for label in labels), default=0)
    columns = 1 if number == 1 or longest > _LONGEST_LABEL else 2
    figure, panels = new_panels(number, columns, 2 * WIDTH / columns, max(2.0, 0.2 * most + 0.8), title)
    if image is not None:
        shown = panels.pop(0)
        shown.imshow(np.asarray(to_rgb(image)))
        shown.set_axis_off()
    for panel, (heading, (labels, values)) in zip(panels, bars.items(), strict=True):
        values = np.asarray(values, dtype=float)
        panel.barh(range(len(values)), values, color=[PALETTE[0] if value >= 0 else PALETTE[1] for value in values])
        panel.set_yticks(range(len(values)), [figure_text(label, _LONGEST_PAIR) for label in labels])
        panel.set(ylim=(most - 0.4, -0.6), xlabel=what)
        panel.set_title(fill(figure_text(heading, 60), _LONGEST_TITLE), loc="right")  # also over the labels
        panel.grid(axis="y", visible=False)
        panel.axvline(0, color="0.4", lw=0.8)
        if not len(values):
            told = "no others" if most else "no latent is active"
            panel.text(0.5, 0.5, told, transform=panel.transAxes, ha="center", va="center")
    limits = np.array([panel.get_xlim() for panel in panels])
    for panel in panels:
        panel.set_xlim(limits[:, 0].min(), limits[:, 1].max())  # one scale for all panels
    return figure


@in_common_look
def plot_dose_response(curves: Mapping[str, pd.DataFrame], baseline: float, what: str) -> Figure:
    """Plot how a prediction depends on a concept's activation, one panel per concept, with intervals.

    `curves` has the columns dose, probability, low and high by the label of a panel; `baseline` is the mean prediction
    without a change.
    """
    figure, panels = new_panels(len(curves), height=2.0)
    for place, (panel, (label, curve)) in enumerate(zip(panels, curves.items(), strict=True)):
        panel.fill_between(curve["dose"], curve["low"], curve["high"], color=PALETTE[0], alpha=0.2, lw=0)
        panel.plot(curve["dose"], curve["probability"], "o-", color=PALETTE[0])
        panel.axhline(baseline, color="0.4", ls="--", lw=1)
        panel.set(ylim=(-0.05, 1.05), xlabel="activation set to", ylabel="" if place % 2 else figure_text(what, 30))
        panel.set_title(figure_text(label, _LONGEST_TITLE))
    return figure


@in_common_look
def plot_concept_effects(effects: pd.DataFrame) -> Figure:
    """Plot the largest effects of concepts on a classifier with their intervals, a panel for each target.

    Filled dots are effects that random latents do not have; those of concepts that are expected to matter are gray.
    """
    targets = list(dict.fromkeys(effects["target"]))
    number = min(_MOST_EFFECTS, effects["latent"].nunique())
    figure, panels = new_panels(len(targets), height=0.9 + 0.19 * number)
    for panel, target in zip(panels, targets, strict=True):
        of_target = effects[effects["target"] == target]
        rows = of_target.loc[of_target["effect"].abs().nlargest(number).index][::-1]
        panel.axvline(0, color="0.3", lw=0.8)
        for height, row in enumerate(rows.itertuples()):
            color = "0.55" if row.expected else PALETTE[0]
            panel.hlines(height, row.low, row.high, color=color, lw=1.4)
            panel.plot(row.effect, height, "o", color=color, markerfacecolor=color if row.drives else "white")
        panel.set_yticks(range(len(rows)), [figure_text(name, _LONGEST_LABEL) for name in rows["concept"]])
        panel.set_xlabel(f"change of the probability of {figure_text(target, 20)}")
        panel.grid(axis="y", visible=False)
    return figure


@in_common_look
def plot_boxes(boxes: Mapping[str, Mapping[str, Mapping[str, float]]], what: str) -> Figure:
    """Plot box plots of groups, one panel per label.

    `boxes` has whislo, q1, med, q3 and whishi, as matplotlib's `bxp` takes them, by label and group.
    """
    figure, panels = new_panels(len(boxes), height=1.4)
    for panel, (label, groups) in zip(panels, boxes.items(), strict=True):
        drawn = panel.bxp(
            [{**box, "label": figure_text(group, 20)} for group, box in groups.items()],
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
        farthest = max(box["whishi"] for box in groups.values()) or 1.0  # 0 if it is active nowhere
        panel.set(xlim=(-0.02 * farthest, 1.05 * farthest), xlabel=what)
        panel.set_title(figure_text(label, _LONGEST_TITLE))
    return figure


@in_common_look
def plot_tree(rows: Sequence[tuple[str, int, float | None]], title: str | None = None) -> Figure:
    """Plot trees, each row to the right of and below its parent.

    Rows are (label, depth, share or None), parents before their children; the share is written after the label.
    """
    figure, axes = new_figure(1, 1, width=5.5, height=max(1.5, 0.24 * len(rows) + 0.5), title=title)
    panel = axes[0, 0]
    last: dict[int, int] = {}
    for place, (label, depth, share) in enumerate(rows):
        if depth:
            corner = depth - 0.85
            panel.plot([corner, corner, depth - 0.1], [last[depth - 1] + 0.3, place, place], color="0.6", lw=1)
            label = label if share is None else f"{label}  ({share:.0%})"
        panel.text(depth, place, figure_text(label, 60), va="center", fontsize=8, color=PALETTE[depth % 2])
        last[depth] = place
    panel.set(xlim=(-0.2, max((depth for _, depth, _ in rows), default=0) + 3), ylim=(len(rows) - 0.5, -0.7))
    panel.set_axis_off()
    return figure


@in_common_look
def plot_contact_sheet(
    rows: Sequence[tuple[str, Sequence[Image.Image], Sequence[bool] | None]], title: str | None = None
) -> Figure:
    """Plot one row per concept: its caption, and the images that activate it most.

    Rows are (caption, images, hits). If `hits` is given, images without the concept are marked by an orange border and
    a cross.
    """
    from matplotlib.patches import Rectangle

    columns = max(len(pictures) for _, pictures, _ in rows)
    captions = [
        "\n".join(fill(line, _LONGEST_CAPTION) for line in figure_text(caption, 60).split("\n"))
        for caption, _, _ in rows
    ]
    room = LETTER * max(len(line) for caption in captions for line in caption.split("\n")) + 0.06
    width = min(0.8, (2 * WIDTH - room) / columns)
    height = max(1.05 * width, 0.15 * max(caption.count("\n") + 1 for caption in captions))
    # One panel in inches: matplotlib takes seconds to draw one for each picture.
    whole = room + columns * width, len(rows) * height
    figure, axes = new_figure(1, 1, whole[0] + 0.04, whole[1] + (0.36 if title else 0.04), title)
    figure.get_layout_engine().set(w_pad=0, h_pad=0.03 if title else 0)
    panel = axes[0, 0]
    panel.set_axis_off()
    for top, caption, (_, pictures, hits) in zip(np.arange(len(rows)) * height, captions, rows, strict=True):
        panel.text(0, top + height / 2, caption, va="center", ha="left", fontsize=8)
        for index, picture in enumerate(pictures):
            scale = 0.95 * width / max(picture.size)
            wide, high = picture.width * scale, picture.height * scale
            left, upper = room + (index + 0.5) * width - wide / 2, top + (height - high) / 2
            panel.imshow(np.asarray(picture.convert("RGB")), extent=(left, left + wide, upper + high, upper))
            if hits is not None and not hits[index]:
                panel.add_patch(Rectangle((left, upper), wide, high, fill=False, edgecolor=PALETTE[1], linewidth=2))
                panel.text(left + 0.06 * wide, upper + 0.06 * high, "✗", color=PALETTE[1], fontsize=9, va="top")
    panel.set(xlim=(-0.02, whole[0] + 0.02), ylim=(whole[1] + 0.02, -0.02))
    return figure
