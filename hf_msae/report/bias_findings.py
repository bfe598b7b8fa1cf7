"""What drives a classifier, in one sentence, a table and figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .figures import Drawing, drawing
from .wording import signed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..bias import BiasReport

_ROWS, _NAMED, _DRAWN = 12, 5, 6
_MAX_P = 0.05


@dataclass(frozen=True)
class BiasFinding:
    """Attributes:
    target: what was predicted.
    verdict: what was found, in a sentence.
    besides: what only goes along with the prediction, in a sentence; "" where nothing does.
    rows: the first concepts of the report, as dictionaries of `BiasReport.frame`, with `label`.
    reach: from where to where their intervals go, zero included.
    num_concepts: asked about.
    num_samples: intervened on.
    baseline: mean probability, unedited.
    alpha: level of its intervals.
    figures: the report's own.
    """

    target: str
    verdict: str
    besides: str
    rows: list[dict[str, Any]]
    reach: tuple[float, float]
    num_concepts: int
    num_samples: int
    baseline: float
    alpha: float
    figures: list[Drawing]


def bias_findings(reports: Sequence[BiasReport]) -> list[BiasFinding]:
    """One of each report."""
    return [
        BiasFinding(
            target=report.target,
            verdict=verdict(report),
            besides=_besides(report),
            rows=[{**row, "label": _label(row)} for row in report.frame.head(_ROWS).to_dict("records")],
            reach=_reach(report),
            num_concepts=len(report.frame),
            num_samples=report.num_samples,
            baseline=report.baseline,
            alpha=report.alpha,
            figures=_figures(report),
        )
        for report in reports
    ]


def verdict(report: BiasReport) -> str:
    """What drives the prediction, in the order of the report."""
    drivers = report.drivers.to_dict("records")
    asked = f"{len(report.frame):,} concepts"
    if not drivers:
        return (
            f"None of {asked} is shown to drive the prediction of “{report.target}”. That is no proof that none does: "
            "the test misses weak causes."
        )
    told = [f"{_label(row)} ({signed(row['effect'])}, {row['flip_rate']:.0%})" for row in drivers[:_NAMED]]
    first = drivers[0]  # the numbers are explained once
    told[0] = (
        f"{_label(first)} ({signed(first['effect'])} in probability, {first['flip_rate']:.0%} of predictions flip)"
    )
    more = f", and {len(drivers) - _NAMED:,} more" if len(drivers) > _NAMED else ""
    verb = "drives" if len(drivers) == 1 else "drive"
    return f"{len(drivers):,} of {asked} {verb} the prediction of “{report.target}”: {', '.join(told)}{more}."


def _reach(report: BiasReport) -> tuple[float, float]:
    shown = report.frame.head(_ROWS)
    return min(0.0, float(shown["low"].min())), max(1e-9, float(shown["high"].max()))


def _besides(report: BiasReport) -> str:
    """The concepts that are there with the prediction and do not drive it."""
    frame = report.frame
    along = frame[~frame["drives"] & (frame["p_association"] <= _MAX_P)]
    along = along.sort_values("association", key=abs, ascending=False, kind="stable").head(3).to_dict("records")
    if not along:
        return ""
    told = ", ".join(f"{_label(row)} ({signed(row['association'])})" for row in along)
    return f"Goes along with the prediction, but was not shown to drive it: {told}."


def _figures(report: BiasReport) -> list[Drawing]:
    shown = ", ".join(_label(row) for row in report.frame.head(_DRAWN).to_dict("records"))
    doses = (
        f"Dose and response: the mean probability of {report.target}, {report.baseline:.2f} unedited, as the "
        f"activation of one concept is set from zero to its largest. Concepts: {shown}."
    )
    boxes = f"Box plots of how active the same concepts are where {report.target} is predicted, and where it is not."
    return [drawing(report.plot(_DRAWN), doses), drawing(report.plot_boxes(_DRAWN), boxes)]


def _label(row: dict[str, Any]) -> str:
    name = row["name"]
    return f"latent {row['latent']}" if name is None or name != name else str(name)
