"""A red team's report as HTML, a section without scripts for any page, and its findings as records of modelpedia."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from .._utils.wording import counted, mentions
from ..statistics import Finding

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
    from ..plotting.look import drawing

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
    figures = [(drawing(drawn[name], text or name), text) for name, text in captions.items()]
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


_CONCEPTS = {
    "shortcuts": ("shortcut",),
    "performance": ("failure-mode",),
    "bands": ("acquisition-artefact",),
    "attacks": ("failure-mode",),
    "concepts": ("causal-subspace",),
}
"""What modelpedia calls the phenomena that audits find; attributions, pruning and stability find none of its."""
_LEAK = "leaking band"
_EVIDENCE = {"attributions": "correlational", "bands": "correlational", "shortcuts": "correlational"}
_EVIDENCE |= dict.fromkeys(("attacks", "concepts", "pruning"), "interventional")
"""Which of modelpedia's three kinds of evidence an audit brings; observational for the others."""
_ROWS = "Intervals are over rows, given the fitted models: what other rows to learn from would change is not in them."
_CAVEATS = {
    "shortcuts": "Groups may differ in more than the model reads of them.",
    "performance": "Which values and groups are hard is known for these rows only.",
    "bands": "A band that differs from its neighbors may also be a real feature that is narrower than they are.",
    "attributions": "Attributions describe the model, not causes in the world, and correlated columns share them.",
    "pruning": "Another set of columns of that size may do as well.",
    "attacks": "Attacks are simulated: an instrument may drift in other ways.",
    "concepts": "A concept is a latent with a name: changing it may change what else the latent stands for.",
    "stability": "Few seeds and samples were drawn.",
}


def entries(report: RedTeamReport) -> list[dict[str, Any]]:
    """Return one record for each finding, with the fields that modelpedia has, its severity, and what to do."""
    return [
        {
            "title": each.title,
            "description": each.evidence,
            "model": str(report.about.get("model", "")),
            "concepts": concepts_of(each),
            "method": f"hf_msae red_team, audit {each.audit}",
            "dataset": str(report.about.get("data", "")),
            "evidence_type": _EVIDENCE.get(each.audit, "observational"),
            "key_metric": _key_metric(each),
            "caveat": caveat_of(each, report.remarks, report.about.get("targets", ())),
            "severity": each.severity,
            "advice": each.advice,
            "review_status": "unreviewed",
        }
        for each in report.findings
    ]


def concepts_of(finding: Finding) -> list[str]:
    """Return the phenomena that a finding is a case of, as references to modelpedia's concepts."""
    found = _CONCEPTS.get(finding.audit, ())
    return [f"concept:{name}" for name in (("shortcut", *found) if finding.kind == _LEAK else found)]


def caveat_of(finding: Finding, remarks: Sequence[str], targets: Sequence[str]) -> str:
    """Return what limits a finding: the audit's own limits, and the remarks that speak of its targets or of none."""
    said = f"{finding.title} {finding.evidence}"
    own = [name for name in targets if mentions(said, name)]
    about = [
        each
        for each in remarks
        if any(mentions(each, name) for name in own) or not any(mentions(each, name) for name in targets)
    ]
    return " ".join([*filter(None, [_CAVEATS.get(finding.audit)]), _ROWS, *about])


def _key_metric(finding: Finding) -> str:
    numbers = [f"{value:.3g}" if np.isfinite(value) else "unbounded" for value in (finding.low, finding.high)]
    p_value = "p < 0.001" if finding.p_value < 0.001 else f"p = {finding.p_value:.3f}"
    interval = f"95% interval {numbers[0]} to {numbers[1]}"
    return f"{finding.metric} {finding.value:.3g} ({interval}; {p_value}, corrected for all tests of the report)"
