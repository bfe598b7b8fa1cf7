"""Figures of red teaming over wavelengths: attributions, the map of bands, and single bands unlike their neighbors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .look import PALETTE, figure_text, in_common_look, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RANGES = (
    ("visible", 380, 680),
    ("red edge", 680, 750),
    ("near-infrared", 750, 1000),
    ("shortwave infrared", 1000, 2500),
)
"""Ranges of wavelengths in nm, as sensors are named; the red edge is that of green vegetation."""
_SHADES = ("#f3f6fb", "#fbeeee", "#f4f4f4", "#fbf6ec")
_OTHERS = "0.7"
_MOST_TRANSFORMATIONS = 6
_LONGEST = 26


@in_common_look
def plot_wavelengths(attributions: pd.DataFrame, spectrum: pd.DataFrame | None = None) -> Figure:
    """Plot how much the predictions rest on each wavelength, stacked by transformation, a row for each target.

    Shaded are the visible range, the red edge, the near and the shortwave infrared; the line is the mean spectrum,
    without a scale. The title has what 100% is. Columns without a wavelength, such as those of a Fourier transform,
    are only counted there.
    """
    targets = list(dict.fromkeys(attributions["target"]))
    figure, axes = new_figure(len(targets), 1, width=6.3, height=2.2 if len(targets) > 1 else 2.9)
    total = attributions.groupby("transformation", sort=False)["share"].sum()
    with_wavelength = attributions.dropna(subset=["wavelength"])
    strongest = total[total.index.isin(with_wavelength["transformation"])].nlargest(_MOST_TRANSFORMATIONS).index
    named = [name for name in dict.fromkeys(with_wavelength["transformation"]) if name in strongest]
    colors = dict(zip(named, PALETTE, strict=False))
    handles: dict = {}
    for panel, target in zip(axes[:, 0], targets, strict=True):
        rows = with_wavelength[with_wavelength["target"] == target]
        shown = rows.assign(transformation=rows["transformation"].where(rows["transformation"].isin(named), "others"))
        stacked = shown.pivot_table(
            index="wavelength", columns="transformation", values="share", aggfunc="sum"
        ).fillna(0)
        wavelengths = stacked.index.to_numpy()
        width = float(np.median(np.diff(wavelengths))) if len(wavelengths) > 1 else 1.0
        panel.set_xlim(wavelengths[0] - width, wavelengths[-1] + width)
        _shade(panel)
        bottom = np.zeros(len(stacked))
        for name in [*named, "others"]:
            if name in stacked:
                heights = 100 * stacked[name].to_numpy()
                color = colors.get(name, _OTHERS)
                bars = panel.bar(wavelengths, heights, width, bottom, color=color, linewidth=0)
                handles.setdefault(figure_text(name, _LONGEST), bars)
                bottom += heights
        left_out = 1 - rows["share"].sum()
        note = f", {left_out:.0%} without a wavelength" if left_out > 0.005 else ""
        whole = attributions.loc[attributions["target"] == target, "attribution"].sum()
        size = f"{whole:,.0f}" if whole >= 100 else f"{whole:.3g}"
        panel.set_title(f"{figure_text(target)}: 100% is a sum of mean |SHAP| of {size}{note}", loc="left")
        panel.set(ylabel="share of |SHAP| (%)", ylim=(0, 1.12 * max(1e-9, bottom.max())))
        if spectrum is not None and len(spectrum):
            above = panel.twinx()
            above.set_zorder(panel.get_zorder() + 1)
            above.fill_between(
                spectrum["wavelength"], spectrum["low"], spectrum["high"], color="black", alpha=0.06, lw=0
            )
            line = above.plot(spectrum["wavelength"], spectrum["mean"], color="black", linewidth=1, alpha=0.75)[0]
            above.set(yticks=[], ylim=(min(0, float(spectrum["low"].min())), 1.15 * float(spectrum["high"].max())))
            above.spines[["left", "bottom", "right", "top"]].set_visible(False)
            above.grid(False)
            handles.setdefault("mean spectrum", line)
    axes[-1, 0].set_xlabel("wavelength (nm)")
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)
    return figure


def _shade(panel: Axes) -> None:
    """Shade the ranges of wavelengths that a panel shows, and write their names along its upper edge."""
    first, last = panel.get_xlim()
    for (name, start, end), shade in zip(RANGES, _SHADES, strict=True):
        low, high = max(start, first), min(end, last)
        if low < high:
            panel.axvspan(low, high, color=shade, linewidth=0, zorder=0)
            if high - low > 0.1 * (last - first):
                place = (low + high) / 2
                panel.text(place, 0.98, name, transform=panel.get_xaxis_transform(), ha="center", va="top", fontsize=7)
    panel.grid(False, axis="x")


@in_common_look
def plot_band_map(attributions: pd.DataFrame, spectrum: pd.DataFrame | None = None) -> Figure:
    """Plot a heat map of the attribution of each wavelength (columns) and transformation (rows), over all targets.

    The mean spectrum is drawn above the map.
    """
    rows = attributions.dropna(subset=["wavelength"])
    number = attributions["target"].nunique()
    table = rows.pivot_table(
        index="transformation", columns="wavelength", values="share", aggfunc="sum", sort=False, observed=True
    )
    table = table.reindex(columns=sorted(table.columns)).fillna(0) * 100 / number
    wavelengths = table.columns.to_numpy(dtype=float)
    with_spectrum = spectrum is not None and len(spectrum) > 0
    map_height = 0.7 + 0.24 * len(table)
    heights = [0.9, map_height] if with_spectrum else [map_height]
    figure, axes = new_figure(len(heights), 1, width=6.3, height=sum(heights) / len(heights))
    axes[0, 0].get_gridspec().set_height_ratios(heights)
    panel = axes[-1, 0]
    step = float(np.median(np.diff(wavelengths))) if len(wavelengths) > 1 else 1.0
    edges = np.concatenate([wavelengths - step / 2, [wavelengths[-1] + step / 2]])
    heat = panel.pcolormesh(
        edges, np.arange(len(table) + 1), table.to_numpy(), cmap="viridis", vmin=0, rasterized=True
    )
    panel.set_yticks(np.arange(len(table)) + 0.5, [figure_text(str(name), _LONGEST) for name in table.index])
    panel.set(xlabel="wavelength (nm)", xlim=(edges[0], edges[-1]))
    panel.invert_yaxis()
    panel.grid(False)
    for _, start, _ in RANGES[1:]:
        if edges[0] < start < edges[-1]:
            panel.axvline(start, color="white", linewidth=0.8, linestyle=":")
    if with_spectrum:
        above = axes[0, 0]
        above.set(xlim=(edges[0], edges[-1]), title="mean spectrum", ylim=(0, 1.2 * float(spectrum["high"].max())))
        _shade(above)
        above.plot(spectrum["wavelength"], spectrum["mean"], color="black", linewidth=1)
        above.fill_between(spectrum["wavelength"], spectrum["low"], spectrum["high"], color="black", alpha=0.1, lw=0)
        above.tick_params(labelbottom=False)
    figure.colorbar(heat, ax=axes[:, 0].tolist(), label="share of |SHAP| (%)")
    return figure


@in_common_look
def plot_single_bands(bands: pd.DataFrame) -> Figure:
    """Plot how much of what one band adds to its neighbors is explained, beside the same for these neighbors."""
    rows = bands[::-1]
    figure, axes = new_figure(1, 1, width=6.0, height=1.3 + 0.3 * len(rows))
    panel = axes[0, 0]
    heights, share = np.arange(len(rows)), 100 * rows["share"].astype(float).to_numpy()
    panel.barh(heights, 100 * rows["nearby"].astype(float), 0.5, color="0.85", label="its four neighbors, at most")
    # As the audit tests: significant, and isolated from the neighbors.
    told = (rows["p_value"].astype(float) < 0.05) & (rows["share"].astype(float) > 3 * rows["nearby"].astype(float))
    for shown, fill, what in (
        (told, PALETTE[0], "the band"),
        (~told, "white", "the band (no finding)"),
    ):
        if shown.any():
            panel.plot(share[shown], heights[shown], "o", color=PALETTE[0], markerfacecolor=fill, label=what)
    panel.axvline(5, color="0.3", linewidth=0.8, linestyle="--")
    labels = []
    for name, band, wavelength in zip(rows["name"], rows["band"], rows["wavelength"].astype(float), strict=True):
        where = f"{wavelength:.0f} nm" if np.isfinite(wavelength) else f"band {band}"
        labels.append(f"{figure_text(str(name), _LONGEST)}: {where}")
    panel.set_yticks(heights, labels)
    panel.set(ylim=(-0.6, len(rows) - 0.4), xlim=(0, max(10, 1.05 * share.max())), xlabel="share explained (%)")
    panel.grid(False, axis="y")
    figure.legend(loc="outside lower center", ncols=2)
    return figure
