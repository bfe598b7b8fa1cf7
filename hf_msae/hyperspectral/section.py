"""A red team's report as HTML, a section without scripts for any page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from .._utils.wording import counted

if TYPE_CHECKING:
    import pandas as pd

    from .result import RedTeamReport

CAPTIONS = {
    "shortcuts": (
        "R2, or the AUROC of a class, in random folds, and with a group left out: the distance is the shortcut index. "
        "The bar is what the mean of the group alone reaches."
    ),
    "pulls": (
        "How far a group shifts the log-odds of rows of the same class, relative to the difference that the class "
        "makes, with 95% intervals: 0 if the group does not matter, 1 (dashed) if it matters as much as the class."
    ),
    "predictions": (
        "Predictions of held-out rows against the truth. The bars along the axes go from the 5th to the 95th "
        "percentile of the truth (black) and of the predictions (orange)."
    ),
    "deciles": (
        "Residuals by part of the target, from low to high (tenths, or as many as have enough rows), in standard "
        "deviations, with 95% intervals. Below zero, predictions are too high."
    ),
    "wavelengths": ("How much predictions rest on each wavelength, by transformation. The line is the mean spectrum."),
    "bands": "How much predictions rest on each wavelength and transformation, over all targets.",
    "single_bands": (
        "Of what the most telling band adds to its four neighbors, the share that a target, a grouping or the order "
        "of the rows explains (dots), beside the largest share for these neighbors (bars). Hollow dots are no "
        "findings, wherever they lie: not significantly beyond the dashed line, or not three times their neighbors."
    ),
    "attributions": "Columns with the largest attributions, with 95% intervals.",
    "concepts": (
        "How the probability of a class changes when a concept goes from absent to strong and all else stays, with "
        "95% intervals. Filled dots: more than random latents do. Gray: expected to matter."
    ),
    "pruning": (
        "Error of models of few columns over that of the whole one. Columns are ranked inside the folds; "
        "bands are 95% intervals."
    ),
    "attacks": (
        "Errors against the strength of attacks. The dashed line is predicting the mean, the dotted one the "
        "strength that a model has to survive; bands are 95% intervals. Noise of patches is that of each pixel, which "
        "a mean over the field averages away, and not of the sensor as a whole, as gain, offset, tilt and shift are."
    ),
}
"""What each figure shows, in the order of the page."""

METRIC_MEANINGS = {
    "r2": "1 is perfect, 0 is predicting the mean",
    "score": "squared error over that of predicting the mean, as in the HYPERVIEW challenge",
    "rmse": "root mean squared error, in units of the target",
    "mae": "mean absolute error, in units of the target",
    "range_ratio": "spread of predictions over that of the truth",
    "range_ratio_q": "range of predictions from the 5th to the 95th percentile, over that of the truth",
    "calibration_slope": "rise of the truth for each unit of the prediction: above 1, predictions are too narrow",
    "outlier_error_ratio": "squared error beyond 2 standard deviations from the mean, over that of other rows",
    "outlier_response": "how far predictions follow these, over how far they follow others",
    "tail_response": "rise of predictions in the more extreme half of the truth, over that in the other half",
    "unreached_share": "true values beyond all predictions",
    "extrapolation_share": "rows far from those learned from: 5% if nothing is special",
    "unusual_error_ratio": "squared error of rows with the most unusual features, over that of others",
    "auroc": "share of pairs, a row of the class and another, that are ranked rightly: 0.5 is chance",
    "brier_skill": "1 is perfect, 0 is predicting the share of the class",
}
"""What the metrics of the table `performance` are."""
_MOST_CANCELLING = 12


def render_section(report: RedTeamReport) -> str:
    """Render the findings, the performance, the figures and how they were measured."""
    from ..plotting.look import svg_figure

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"digits": _digits, "hundredths": _hundredths}
    drawn = report.figures()
    captions = {name: text for name, text in CAPTIONS.items() if name in drawn}
    captions |= {name: "" for name in drawn if name not in captions}
    figures = [(svg_figure(drawn[name], text or name), text) for name, text in captions.items()]
    performance: dict[str, dict[str, tuple[float, float, float]]] = {}
    targets: list[str] = []
    if "performance" in report.tables:
        table = report.tables["performance"]
        targets = list(dict.fromkeys(table["target"]))
        for row in table.itertuples():
            cells = performance.setdefault(row.metric, {})
            if row.value is not None and np.isfinite(row.value):
                low, high = (float("nan") if end is None else float(end) for end in (row.low, row.high))
                cells[row.target] = (float(row.value), low, high)
    return environment.get_template("red_team.html").render(
        report=report,
        tests=("all " if report.num_tests > 1 else "") + counted(report.num_tests, "test"),
        performance={metric: cells for metric, cells in performance.items() if cells},
        targets=targets,
        meanings=METRIC_MEANINGS,
        shortcuts=_records(report.tables.get("shortcuts")),
        smallest=_records(report.tables.get("smallest")),
        cancelling=_cancelling(report.tables.get("attribution_groups")),
        figures=figures,
    )


def _records(table: pd.DataFrame | None) -> list[dict[str, Any]]:
    return [] if table is None else table.astype(object).where(table.notna(), float("nan")).to_dict("records")


def _cancelling(table: pd.DataFrame | None) -> list[dict[str, Any]]:
    """Return the groups of columns with the largest attributions whose parts cancel, as `attributions` says."""
    if table is None or table.empty:
        return []
    return _records(table[table["cancels"]].nlargest(_MOST_CANCELLING, "attribution"))


def _digits(value: float) -> str:
    """Write a number with three significant digits, without an exponent where it would be read."""
    if not np.isfinite(value):
        return "not defined"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _hundredths(value: float) -> str:
    """Write a number with two decimals, and zero without a sign."""
    return f"{round(value, 2) + 0.0:.2f}"
