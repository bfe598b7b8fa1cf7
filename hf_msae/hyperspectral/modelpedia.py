"""The findings of a red team as records of modelpedia."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .._utils.wording import mentions
from ..statistics import Finding

if TYPE_CHECKING:
    from .result import RedTeamReport

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
