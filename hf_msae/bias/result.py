"""The result of a bias analysis: tables, text, JSON and figures."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from .._utils.json_files import json_records, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BOX = {"low": "whislo", "q1": "q1", "median": "med", "q3": "q3", "high": "whishi"}


@dataclass(frozen=True)
class BiasReport:
    """What `bias_report` found.

    Attributes:
        frame: one row a concept, those that drive the classifier first, then by effect: latent, name; association
            (rank-biserial correlation of the activation with the prediction) and its p-value, Holm-corrected; effect
            (mean change of the probability when the concept goes from absent to strong), its bootstrap interval low to
            high, flip_rate (share of samples whose prediction changes); log_odds (mean change), null_spread (of random
            latents' changes of it), z and q_effect; drives (whether it is more than chance).
        curves: mean probability at each dose of each concept: latent, dose (the activation), quantile, probability,
            low, high.
        boxes: activations of each concept, apart for samples that the class is and is not predicted for: latent,
            predicted, num_samples, active (share of them), low, q1, median, q3, high (the 5th, 25th, ... percentile).
        baseline: mean probability, unedited.
        target: what was predicted.
        num_samples: intervened on.
        alpha: level of tests and intervals.
    """

    frame: pd.DataFrame
    curves: pd.DataFrame
    boxes: pd.DataFrame
    baseline: float
    target: str
    num_samples: int
    alpha: float = 0.05

    @property
    def drivers(self) -> pd.DataFrame:
        """The concepts that drive the classifier."""
        return self.frame[self.frame["drives"]]

    def to_pandas(self) -> pd.DataFrame:
        """A copy of `frame`."""
        return self.frame.copy()

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        tables = {"concepts": self.frame, "curves": self.curves, "boxes": self.boxes}
        return {
            "target": self.target,
            "baseline": self.baseline,
            "num_samples": self.num_samples,
            "alpha": self.alpha,
            "drivers": self.drivers["latent"].tolist(),
            **{name: json_records(table) for name, table in tables.items()},
        }

    def save(self, path: str | os.PathLike) -> None:
        """Write `to_dict` as JSON."""
        write_json(path, self.to_dict())

    def verdict(self) -> str:
        """What was found, in a sentence."""
        names = [row.name or f"latent {row.latent}" for row in self.drivers.itertuples(index=False)]
        if not names:
            return f"none of {len(self.frame)} concepts is shown to drive the prediction of {self.target!r}"
        drive = "drives" if len(names) == 1 else "drive"
        return (
            f"{len(names)} of {len(self.frame)} concepts {drive} the prediction of {self.target!r}: {', '.join(names)}"
        )

    def __str__(self) -> str:
        shown = ["name", "latent", "association", "effect", "low", "high", "flip_rate", "z", "drives"]
        table = self.frame.head(12)[shown].to_string(index=False, float_format="{:+.3f}".format)
        return f"{self.verdict()}\n{table}"

    def plot(self, n: int = 6) -> Figure:
        """Dose and response of the first n concepts."""
        from ..plotting import plot_dose_response

        curves = {label: self.curves[self.curves["latent"] == latent] for label, latent in self._first(n)}
        return plot_dose_response(curves, self.baseline, f"probability of {self.target}")

    def plot_boxes(self, n: int = 6) -> Figure:
        """How active the first n concepts are where the class is predicted, and where it is not."""
        from ..plotting import plot_boxes

        found = {}
        for label, latent in self._first(n):
            boxes = self.boxes[self.boxes["latent"] == latent].rename(columns=_BOX)
            rows = boxes[list(_BOX.values())].to_dict("records")
            groups = [self.target if predicted else f"not {self.target}" for predicted in boxes["predicted"]]
            found[label] = dict(zip(groups, rows, strict=True))
        return plot_boxes(found, "activation")

    def _first(self, n: int) -> list[tuple[str, int]]:
        rows = self.frame.head(n).itertuples(index=False)
        return [(f"{row.name or 'latent'} · {row.latent}", row.latent) for row in rows]
