"""The result of a bias analysis."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

from .._utils.wording import counted, marked
from ..concepts.table import display_names, to_text
from ..statistics import Finding, Result, confirmed
from .interventions import driver_candidates

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHOWN = "name validated latent association effect low high flip_rate z q drives".split()
_BOX = {"low": "whislo", "q1": "q1", "median": "med", "q3": "q3", "high": "whishi"}


@dataclass(frozen=True)
class BiasReport(Result):
    """What `bias_report` found.

    Attributes:
        frame: One row per concept, those that drive the classifier first, then by size of the effect: latent, name,
            validated (whether the name passed its tests); association (rank-biserial correlation of the
            activation with the prediction) and its Holm-corrected p_association; effect (mean change of the
            probability when the concept goes from absent to strong), its bootstrap interval from low to high,
            flip_rate (share of samples whose prediction changes); log_odds (mean change), null_spread (spread of that
            change for random latents), z and q_effect; drives (whether the effect is more than chance).
        curves: Mean probability at each dose of each concept: latent, dose (the activation), quantile, probability,
            low, high.
        boxes: Activations of each concept, separately for samples with and without the predicted class: latent,
            predicted, num_samples, active (share of samples), low, q1, median, q3, high (the 5th, 25th, 50th, 75th and
            95th percentile).
        baseline: Mean probability of the unedited samples.
        target: Name of the predicted class.
        num_samples: Number of samples that were intervened on.
        alpha: Level of tests and intervals.
        accuracy: Share of the labels that the classifier predicts, if that was measured.
        accuracy_of_guessing: Share of the most frequent label, if the accuracy was measured.
    """

    frame: pd.DataFrame = field(metadata={"key": "concepts"})
    curves: pd.DataFrame
    boxes: pd.DataFrame
    baseline: float
    target: str
    num_samples: int
    alpha: float = 0.05
    accuracy: float | None = None
    accuracy_of_guessing: float | None = None

    @property
    def drivers(self) -> pd.DataFrame:
        """The concepts that drive the classifier."""
        return self.frame[self.frame["drives"].astype(bool)]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The concepts that drive the classifier as a red team would report them, corrected together (Holm)."""
        return confirmed(driver_candidates(self.frame, self.target, "bias"), self.alpha)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON can hold it, with the latents that drive the classifier."""
        return {**super().to_dict(), "drivers": self.drivers["latent"].tolist()}

    def verdict(self) -> str:
        """Say in one sentence which concepts drive the classifier."""
        names = [
            f"latent {latent}" if pd.isna(name) else marked(name, sure)
            for latent, name, sure in zip(
                self.drivers["latent"],
                self.drivers["name"],
                self.drivers.get("validated", pd.Series(True, self.drivers.index)),
                strict=True,
            )
        ]
        tested = counted(len(self.frame), "concept")
        if not names:
            none = "the only concept tested is not" if len(self.frame) == 1 else f"none of {tested} is"
            return f"{none} shown to drive the prediction of {self.target!r}"
        drive = "drives" if len(names) == 1 else "drive"
        return f"{len(names)} of {tested} {drive} the prediction of {self.target!r}: {', '.join(names)}"

    def __str__(self) -> str:
        table = self.frame.head(12).assign(latent=self.frame["latent"].astype(str))
        table = table.assign(q=table["q_effect"].map("{:.3f}".format)).reset_index(drop=True)
        return f"{self.verdict()}\n{to_text(table, '{:+.3f}', _SHOWN)}\nq: by Benjamini and Hochberg"

    def plot(self, n: int = 6) -> Figure:
        """Draw dose and response of the first n concepts, with the q-value of each effect."""
        from ..plotting import plot_dose_response

        curves = {}
        for (label, latent), row in zip(self._first(n), self.frame.head(n).itertuples(), strict=True):
            q = "q < 0.001" if row.q_effect < 0.001 else f"q = {row.q_effect:.3f}"
            curves[f"{label}\n{q}{'' if row.drives else ', may be chance'}"] = self.curves[
                self.curves["latent"] == latent
            ]
        return plot_dose_response(curves, self.baseline, f"probability of {self.target}")

    def plot_boxes(self, n: int = 6) -> Figure:
        """Draw how active the first n concepts are in samples with and without the predicted class."""
        from ..plotting import plot_boxes

        found = {}
        for label, latent in self._first(n):
            boxes = self.boxes[self.boxes["latent"] == latent].rename(columns=_BOX)
            rows = boxes[list(_BOX.values())].to_dict("records")
            groups = [self.target if predicted else f"not {self.target}" for predicted in boxes["predicted"]]
            found[label] = dict(zip(groups, rows, strict=True))
        return plot_boxes(found, "activation")

    def _first(self, n: int) -> list[tuple[str, int]]:
        first = self.frame.head(n)
        return list(zip(display_names(first), first["latent"].tolist(), strict=True))
