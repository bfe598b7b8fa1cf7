"""Quality: how well the codes of every level represent the embeddings, as a table with its terms and a figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..._utils.levels import read_levels
from ...plotting import plot_quality_against_k
from ...plotting.look import svg_figure
from ..wording import DASH

if TYPE_CHECKING:
    from ..context import Context

COLUMNS = {  # metric -> (heading, format, what it is)
    "fvu": ("FVU", "{:.4f}", "fraction of variance unexplained: 0 for a perfect copy, 1 for predicting the mean."),
    "cosine_similarity": (
        "cosine",
        "{:.4f}",
        "mean cosine of embedding and reconstruction. If the embeddings share a large mean, it is high for any model.",
    ),
    "cosine_similarity_centered": (
        "cosine, centered",
        "{:.4f}",
        "the same after subtracting the mean from both, which says more about the model.",
    ),
    "l0": ("L0", "{:.1f}", "active latents of a row, on average."),
    "sparsity": ("sparsity", "{:.1%}", "share of latents that are inactive in a row, on average."),
    "dead_latents": ("dead latents", "{:,}", "latents that no row activates."),
    "cknna": (
        "CKNNA",
        "{:.3f}",
        "whether rows that are neighbors by their embeddings are neighbors by their codes: 1 if all are, 0 by chance.",
    ),
}


def build(context: Context) -> dict[str, Any]:
    """Make the rows of the table, levels ascending and the baseline of predicting the mean last, and the figure."""
    metrics = context.metrics
    levels = read_levels(metrics)
    smallest, largest = levels.each[0], levels.each[-1]
    alt = (
        f"How quality grows with the level. FVU falls from {_text(smallest.metrics, 'fvu')} {smallest.phrase} to "
        f"{_text(largest.metrics, 'fvu')} {largest.phrase}; the table above has all the numbers."
    )
    rows = [(level.label, level.metrics) for level in levels.distinct]
    rows.append(("predicting the mean", metrics.get("baseline_mean") or {}))
    return {
        "levels": levels,
        "rows": [(title, [_text(values, key) for key in COLUMNS]) for title, values in rows],
        "columns": COLUMNS,
        "figure": svg_figure(plot_quality_against_k(metrics), alt),
        "num_samples": metrics.get("num_samples"),
        "measured_here": context.measured_here,
        "drawn": context.measured_here and metrics["num_samples"] < len(context.embeddings),
        "overfitted": context.overfitted,
    }


def _text(values: Mapping[str, Any], key: str) -> str:
    value = values.get(key)
    return DASH if value is None else COLUMNS[key][1].format(value)
