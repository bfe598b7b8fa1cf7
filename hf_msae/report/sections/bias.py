"""Bias: what drives a classifier, in a sentence, a table and figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..figures import Drawing, drawing
from ..wording import signed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...bias import BiasReport
    from ..context import Context

_ROWS, _NAMED, _DRAWN = 12, 5, 6
_MAX_P = 0.05


@dataclass(frozen=True)
class BiasFinding:
    """What a `BiasReport` says.

    Attributes:
        target: What was predicted.
        verdict: What was found, in a sentence.
        correlates: What is only correlated with the prediction, in a sentence; "" if nothing is.
        rows: The first concepts of the report, as dictionaries of `BiasReport.frame`, with `label`.
        reach: Range of their intervals, zero included.
        num_concepts: Concepts tested.
        num_samples: Rows intervened on.
        baseline: Mean probability, unedited.
        alpha: Level of the intervals.
        figures: The figures of the report.
    """

    target: str
    verdict: str
    correlates: str
    rows: list[dict[str, Any]]
    reach: tuple[float, float]
    num_concepts: int
    num_samples: int
    baseline: float
    alpha: float
    figures: list[Drawing]


def build(context: Context) -> list[BiasFinding]:
    """Summarize each report."""
    return bias_findings(context.bias)


def bias_findings(reports: Sequence[BiasReport]) -> list[BiasFinding]:
    """Summarize each report."""
    return [
        BiasFinding(
            target=report.target,
            verdict=verdict(report),
            correlates=_correlates(report),
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
    """Say what drives the prediction, in the order of the report."""
    drivers = report.drivers.to_dict("records")
    asked = f"{len(report.frame):,} concepts"
    if not drivers:
        return (
            f"None of {asked} was shown to drive the prediction of “{report.target}”. This does not prove that none "
            "does: the test misses weak causes."
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


def _correlates(report: BiasReport) -> str:
    """Name the concepts that are correlated with the prediction but do not drive it."""
    frame = report.frame
    along = frame[~frame["drives"] & (frame["p_association"] <= _MAX_P)]
    along = along.sort_values("association", key=abs, ascending=False, kind="stable").head(3).to_dict("records")
    if not along:
        return ""
    told = ", ".join(f"{_label(row)} ({signed(row['association'])})" for row in along)
    return f"Correlated with the prediction, but not shown to drive it: {told}."


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
