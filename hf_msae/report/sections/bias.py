"""Bias: what drives a classifier, in a sentence, a table and figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..._utils.wording import counted, marked
from ...plotting.look import SvgFigure, svg_figure
from ..wording import signed

if TYPE_CHECKING:
    from ...bias import BiasReport
    from ..context import Context

_ROWS, _NAMED, _DRAWN = 12, 5, 4
_MAX_P = 0.05


@dataclass(frozen=True)
class BiasFinding:
    """What a `BiasReport` says."""

    report: BiasReport
    verdict: str  # what drives the prediction, in a sentence
    correlates: str  # what is only correlated with it, in a sentence; "" if nothing is
    rows: list[dict[str, Any]]  # the first concepts of `BiasReport.frame`, all that drive it included, with `label`
    others: list[dict[str, Any]]  # the rest of them, which the page folds
    reach: tuple[float, float]  # range of the intervals of all of them, zero included
    figures: list[SvgFigure]


def build(context: Context) -> list[BiasFinding]:
    """Summarize each report."""
    return bias_findings(context.bias)


def bias_findings(reports: Sequence[BiasReport]) -> list[BiasFinding]:
    """Summarize each report."""
    found = []
    for report in reports:
        rows = [{**row, "label": _label(row)} for row in report.frame.to_dict("records")]
        open_ = max(_ROWS, len(report.drivers))
        reach = min(0.0, *(row["low"] for row in rows)), max(1e-9, *(row["high"] for row in rows))
        said = verdict(report), _correlates(report)
        found.append(BiasFinding(report, *said, rows[:open_], rows[open_:], reach, _figures(report)))
    return found


def verdict(report: BiasReport) -> str:
    """Say what drives the prediction, in the order of the report."""
    drivers = report.drivers.to_dict("records")
    tested = counted(len(report.frame), "concept")
    if not drivers:
        none = "The only concept tested was not" if len(report.frame) == 1 else f"None of {tested} was"
        return (
            f"{none} shown to drive the prediction of “{report.target}”. This does not prove that none "
            "does: the test misses weak causes."
        )
    named = [f"{_label(row)} ({signed(row['effect'])}, {row['flip_rate']:.0%})" for row in drivers[:_NAMED]]
    first = drivers[0]  # the numbers are explained once
    named[0] = (
        f"{_label(first)} ({signed(first['effect'])} in probability, {first['flip_rate']:.0%} of predictions flip)"
    )
    more = f", and {len(drivers) - _NAMED:,} more" if len(drivers) > _NAMED else ""
    verb = "drives" if len(drivers) == 1 else "drive"
    return f"{len(drivers):,} of {tested} {verb} the prediction of “{report.target}”: {', '.join(named)}{more}."


def _correlates(report: BiasReport) -> str:
    """Name the concepts that are correlated with the prediction but do not drive it."""
    frame = report.frame
    frame = frame[~frame["drives"] & (frame["p_association"] <= _MAX_P)]
    rows = frame.sort_values("association", key=abs, ascending=False, kind="stable").head(3).to_dict("records")
    if not rows:
        return ""
    named = ", ".join(f"{_label(row)} ({signed(row['association'])})" for row in rows)
    return f"Correlated with the prediction, but not shown to drive it: {named}."


def _figures(report: BiasReport) -> list[SvgFigure]:
    shown = ", ".join(_label(row) for row in report.frame.head(_DRAWN).to_dict("records"))
    doses = (
        f"Dose and response: the mean probability of {report.target}, {report.baseline:.2f} unedited, as the "
        f"activation of one concept is set from zero to its largest. Concepts: {shown}."
    )
    boxes = f"Box plots of how active the same concepts are where {report.target} is predicted, and where it is not."
    return [svg_figure(report.plot(_DRAWN), doses), svg_figure(report.plot_boxes(_DRAWN), boxes)]


def _label(row: dict[str, Any]) -> str:
    name = row["name"]
    return f"latent {row['latent']}" if name is None or name != name else marked(str(name), row.get("validated", True))
