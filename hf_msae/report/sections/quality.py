"""Quality: how well codes of every k represent the embeddings, as a table with its terms explained and a figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...plotting import plot_quality_against_k
from ..rendering import drawing
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
    """Make the rows of the table, k ascending and the baseline of predicting the mean last, and the figure."""
    metrics = context.metrics
    levels = by_level(metrics)
    smallest, largest = min(levels), max(levels)
    alt = (
        f"How quality grows with k. FVU falls from {_text(levels[smallest], 'fvu')} at k={smallest} to "
        f"{_text(levels[largest], 'fvu')} at k={largest}; the table above has all the numbers."
    )
    all_latents = context.msae.config.num_latents
    rows = {f"{k:,} (all)" if k == all_latents else f"{k:,}": values for k, values in levels.items()}
    rows["predicting the mean"] = metrics.get("baseline_mean") or {}
    return {
        "rows": [(title, [_text(values, key) for key in COLUMNS]) for title, values in rows.items()],
        "columns": COLUMNS,
        "figure": drawing(plot_quality_against_k(metrics, columns=2), alt),
        "num_samples": metrics.get("num_samples"),
        "measured_here": context.measured_here,
    }


def by_level(metrics: Mapping[str, Any]) -> dict[int, Mapping[str, Any]]:
    """Return k -> its metrics, k ascending."""
    return {int(k): values for k, values in sorted(metrics["by_k"].items(), key=lambda item: int(item[0]))}


def _text(values: Mapping[str, Any], key: str) -> str:
    value = values.get(key)
    return DASH if value is None else COLUMNS[key][1].format(value)
