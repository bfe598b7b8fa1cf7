"""Figures of the quality of a model, and of its training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .._utils.levels import read_levels
from .look import LETTER, PALETTE, WIDTH, figure_text, in_common_look, log_axis, new_panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@in_common_look
def plot_quality_against_k(metrics: Mapping, title: str | None = None, columns: int = 2) -> Figure:
    """Plot FVU, cosine, L0 and CKNNA at every level (k, or width of a prefix), with `columns` panels in a row.

    `metrics` is the content of metrics.json, or an `EvaluationResult.to_dict()`. Classification of reconstructions,
    sparse probing, stability across seeds and monosemanticity get panels if they were measured.
    """
    from matplotlib.ticker import NullLocator

    levels = read_levels(metrics)
    ks = [level.size for level in levels.each]
    panels = _quality_panels({level.size: level.metrics for level in levels.each}, ks)
    figure, axes = new_panels(len(panels), columns, title=title)
    for panel, (name, scale, series) in zip(axes, panels, strict=True):
        for index, (label, values) in enumerate(series.items()):
            values = [np.nan if value is None else value for value in values]
            panel.plot(
                ks, values, f"{'osD^v'[index % 5]}-", color=PALETTE[index % len(PALETTE)], label=figure_text(label)
            )
        panel.set(title=figure_text(name), xscale="log", xlabel=levels.axis)
        if scale == "log":
            log_axis(panel)
        labels = [level.label.replace(" (", "\n(") for level in levels.each]
        tilt = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if _crowded(ks, labels) else {}
        panel.set_xticks(ks, labels, **tilt)
        panel.xaxis.set_minor_locator(NullLocator())
    axes[2].plot(ks, ks, ":", color="0.5", label="all of the prefix" if levels.of_dictionary else "k")
    baseline = metrics.get("baseline_mean", {})
    if "cosine_similarity" in baseline:
        axes[1].axhline(baseline["cosine_similarity"], ls="--", lw=1, color="0.4", label="raw, predicting the mean")
    explained: list[list[str]] = [[]]
    for panel in axes:
        labels = panel.get_legend_handles_labels()[1]
        if labels not in explained:  # the same legend again would only cover curves
            panel.legend()
        explained.append(labels)
    return figure


def _crowded(ks: Sequence[int], labels: Sequence[str]) -> bool:
    """Whether labels at these places of a logarithmic axis would touch if they were upright."""
    places = np.log(ks)
    gap = 0.8 * WIDTH * np.diff(places).min() / np.ptp(places) if len(ks) > 1 else WIDTH
    return gap < LETTER * (1 + max(len(line) for label in labels for line in label.split("\n")))


def _quality_panels(by_k: Mapping[int, Mapping], ks: list[int]) -> list[tuple[str, str, dict]]:
    """Return title, scale and curves (label -> a value for each k) of each panel that has values."""

    def series(**keys: str) -> dict[str, list]:
        found = {label: [by_k[k].get(key) for k in ks] for key, label in keys.items()}
        return {label: values for label, values in found.items() if any(value is not None for value in values)}

    panels = [
        ("Fraction of variance unexplained", "log", series(fvu="FVU")),
        ("Cosine with the original", "linear", series(cosine_similarity="raw", cosine_similarity_centered="centered")),
        ("Latents in use", "log", series(l0="L0 (mean count)")),
        ("Neighborhoods kept", "linear", series(cknna="CKNNA, latents", cknna_reconstruction="reconstructions")),
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
    probes: dict[str, list] = {}
    for name, found in (by_k[ks[-1]].get("sparse_probing") or {}).items():
        for key in (key for key in found if key.startswith("auroc_")):
            label = f"{name}, {key.removeprefix('auroc_')} latent{'s' * (key != 'auroc_1')}"
            probes[label] = [by_k[k]["sparse_probing"][name][key] for k in ks]
    if probes:
        panels.append(("Sparse probing (AUROC)", "linear", probes))
    if by_k[ks[-1]].get("seed_stability"):
        found = {"mean_cosine": "mean cosine", "by_chance": "random directions"}
        series_of = {label: [by_k[k]["seed_stability"][key] for k in ks] for key, label in found.items()}
        panels.append(("Found again by other seeds", "linear", series_of))
    if scores := series(monosemanticity="mean over latents"):
        panels.append((f"Monosemanticity ({by_k[ks[-1]]['monosemanticity_encoder']})", "linear", scores))
    return panels


@in_common_look
def plot_training(log: Sequence[Mapping], title: str | None = None) -> Figure:
    """Plot loss, FVU, sparsity and dead latents over the steps of a training run.

    `log` has the records of training_log.jsonl; the names of held-out figures begin with `eval_`.
    """
    figure, axes = new_panels(4, height=2.1, title=title)
    panels = [("Loss", "loss", "log"), ("FVU", "fvu", "log"), ("Sparsity", "sparsity", "linear")]
    for panel, (name, key, scale) in zip(axes, [*panels, ("Dead latents", "dead_latents", "linear")], strict=True):
        for index, (prefix, label, mark) in enumerate((("", "training batch", "-"), ("eval_", "held out", "o"))):
            points = [(r["step"], r[prefix + key]) for r in log if r.get(prefix + key) is not None]
            if points:
                panel.plot(*zip(*points, strict=True), mark, color=PALETTE[index], label=label)
        panel.set(title=name, xlabel="step")
        if panel.has_data():
            if scale == "log":
                log_axis(panel)
            panel.legend()
    return figure
