"""Quality: what survives in the code at every k, as a table with its terms explained, and as a figure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...plotting import plot_quality_against_k
from ..figures import Drawing, drawing
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
        "the same after subtracting the mean from both: the more telling one.",
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


@dataclass(frozen=True)
class Quality:
    """The section.

    Attributes:
        rows: k and its metrics as texts, one for each of `columns`; last the baseline of predicting the mean.
        columns: Metric -> (heading, format, explanation).
        figure: The metrics against k.
        num_samples: Rows measured on; None if the metrics do not say.
        measured_here: Whether they were measured for this page.
    """

    rows: list[tuple[str, list[str]]]
    columns: Mapping[str, tuple[str, str, str]]
    figure: Drawing
    num_samples: int | None
    measured_here: bool


def build(context: Context) -> Quality:
    """Make the table and the figure."""
    metrics, num_latents = context.metrics, context.msae.config.num_latents
    levels = by_level(metrics)
    rows = [
        (f"{k:,} (all)" if k == num_latents else f"{k:,}", [_text(values, key) for key in COLUMNS])
        for k, values in levels.items()
    ]
    baseline = metrics.get("baseline_mean") or {}
    rows.append(("predicting the mean", [_text(baseline, key) for key in COLUMNS]))
    smallest, largest = min(levels), max(levels)
    alt = (
        f"How quality grows with k. FVU falls from {_text(levels[smallest], 'fvu')} at k={smallest} to "
        f"{_text(levels[largest], 'fvu')} at k={largest}; the table above has all the numbers."
    )
    figure = drawing(plot_quality_against_k(metrics), alt)
    return Quality(rows, COLUMNS, figure, metrics.get("num_samples"), context.measured_here)


def by_level(metrics: Mapping[str, Any]) -> dict[int, Mapping[str, Any]]:
    """Return k -> its metrics, k ascending."""
    return {int(k): values for k, values in sorted(metrics["by_k"].items(), key=lambda item: int(item[0]))}


def _text(values: Mapping[str, Any], key: str) -> str:
    value = values.get(key)
    return DASH if value is None else COLUMNS[key][1].format(value)
