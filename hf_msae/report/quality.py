"""What survives in the code at every k, as a table with its words explained, and as a figure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..plotting import plot_quality_against_k
from .figures import Drawing, drawing
from .wording import DASH

if TYPE_CHECKING:
    from ..embeddings import EmbeddingDataset
    from ..model.modeling_msae import MSAEModel

COLUMNS = {  # metric -> (heading, format, what it is)
    "fvu": ("FVU", "{:.4f}", "fraction of the variance unexplained: 0 is a perfect copy, and 1 what the mean gives."),
    "cosine_similarity": (
        "cosine",
        "{:.4f}",
        "mean cosine of embedding and reconstruction. Where embeddings share a large mean it is high for nothing.",
    ),
    "cosine_similarity_centered": (
        "cosine, centred",
        "{:.4f}",
        "the same after the mean is taken off both: the one to go by.",
    ),
    "l0": ("L0", "{:.1f}", "latents that are active in a row, on average."),
    "sparsity": ("sparsity", "{:.1%}", "share of all latents that are not active in a row, on average."),
    "dead_latents": ("dead latents", "{:,}", "latents that none of the rows activates."),
    "cknna": (
        "CKNNA",
        "{:.3f}",
        "whether rows that are neighbours by their embeddings are neighbours by their codes: 1 if they all are, 0 by "
        "chance.",
    ),
}


@dataclass(frozen=True)
class Quality:
    """Attributes:
    rows: k and what its code is worth, one text for each of `COLUMNS`; last the baseline of predicting the mean.
    figure: the same against k.
    num_samples: rows measured on; None where the metrics do not say.
    measured_here: whether that was done for the page.
    """

    rows: list[tuple[str, list[str]]]
    figure: Drawing
    num_samples: int | None
    measured_here: bool


def measure(msae: MSAEModel, acts: EmbeddingDataset, progress: bool) -> dict[str, Any]:
    """Metrics at every level of the MSAE, as metrics.json holds them."""
    from ..metrics import evaluate_msae

    return evaluate_msae(msae, acts, progress=progress).to_dict()


def quality_of(metrics: Mapping[str, Any], num_latents: int, measured_here: bool) -> Quality:
    """The section's table and figure."""
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
    return Quality(rows, figure, metrics.get("num_samples"), measured_here)


def by_level(metrics: Mapping[str, Any]) -> dict[int, Mapping[str, Any]]:
    """K -> its metrics, k ascending."""
    return {int(k): values for k, values in sorted(metrics["by_k"].items(), key=lambda item: int(item[0]))}


def _text(values: Mapping[str, Any], key: str) -> str:
    value = values.get(key)
    return DASH if value is None else COLUMNS[key][1].format(value)
