"""Findings: what is wrong with a model, how badly, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from .multiple_testing import holm

SEVERITIES = ("severe", "moderate", "minor")
_QUANTILES = (0.025, 0.975)


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a model. Before all tests are corrected together, it is a candidate.

    Attributes:
        severity: "severe", "moderate" or "minor", by the end of the interval that is nearer to harmless; None for a
            candidate whose interval holds harmless values.
        title: What is wrong, in a few words.
        metric: The quantity that shows it.
        value: Its value.
        low: Lower end of its 95% interval.
        high: Upper end.
        evidence: What was measured, in sentences with numbers.
        advice: What to do about it.
        p_value: P-value against the least value that matters: of a candidate before correction, of a finding corrected
            for all tests of the report (Holm).
        audit: The audit that found it.
        kind: Candidates of one kind, such as those of several targets, become one finding: the gravest, with the
            others as evidence.
        subject: What distinguishes it from others of its kind, such as the target.
        below: Whether small values of the metric are bad.
    """

    severity: str | None
    title: str
    metric: str
    value: float
    low: float
    high: float
    evidence: str
    advice: str
    p_value: float
    audit: str
    kind: str = ""
    subject: str = ""
    below: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the fields; an infinite end of an interval becomes None."""
        return {
            name: None if isinstance(value, float) and not np.isfinite(value) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Finding:
        """Build a finding from what `to_dict` returned."""
        return cls(**{**content, **{name: _float(content[name]) for name in ("value", "low", "high", "p_value")}})

    def __str__(self) -> str:
        return f"{self.severity}: {self.title} ({self.metric} {self.value:.3g}, {self.low:.3g} to {self.high:.3g})"


def candidate(
    audit: str,
    kind: str,
    subject: str,
    title: str,
    metric: str,
    value: float,
    draws: np.ndarray,
    limits: Sequence[float],
    evidence: str,
    advice: str,
    log: bool = False,
    below: bool = False,
    two_sided: bool = False,
    tested: tuple[float, np.ndarray] | None = None,
) -> Finding | None:
    """Test whether a quantity is beyond what is harmless: a candidate, or None if it is not defined.

    The interval is that of the bootstrap percentiles. The p-value is that of a normal distribution with the standard
    deviation of the resamples, since a share of resamples could not be small enough to survive a correction.

    `draws` are the values of the quantity in resamples, and it is minor, moderate and severe beyond `limits`, of which
    the last may be missing, or `below` them. Of a ratio, the logarithm is tested (`log`). Where the data said which
    sign is bad, the p-value is doubled (`two_sided`). `tested` is a quantity that is above 0 where the first limit is
    passed, and its draws, for the p-value: of a ratio a / b that is bad below a limit, limit b - a, which stays normal
    where b is close to 0 (Fieller).
    """
    from scipy.stats import norm  # here, since it takes most of a second

    draws = draws[np.isfinite(draws)]
    if not np.isfinite(value) or len(draws) < 2:
        return None
    low, high = map(float, np.quantile(draws, _QUANTILES))
    sign = -1.0 if below else 1.0
    scale = (lambda x: np.log(np.maximum(x, 1e-12))) if log else (lambda x: x)
    if tested is None:
        spread, distance = float(np.std(scale(draws))), sign * float(scale(value) - scale(limits[0]))
    else:
        spread, distance = float(np.std(tested[1])), float(tested[0])
    p_value = float(norm.sf(distance / spread)) if spread > 0 else float(distance <= 0)
    p_value = min(1.0, 2 * p_value) if two_sided else p_value
    severity = graded(low, high, limits, below)
    words = (evidence, advice, p_value, audit, kind, subject)
    return Finding(severity, title, metric, float(value), low, high, *words, below)


def graded(low: float, high: float, limits: Sequence[float], below: bool = False) -> str | None:
    """Return the severity of a quantity: that of the end of its interval which is nearer to harmless."""
    sign, safe = (-1.0, high) if below else (1.0, low)
    passed = [name for name, limit in zip(SEVERITIES[::-1], limits, strict=False) if sign * (safe - limit) > 0]
    return passed[-1] if passed else None


def confirmed(candidates: Sequence[Finding], alpha: float) -> tuple[Finding, ...]:
    """Turn candidates into findings: those that stay significant when all tests are corrected together.

    Candidates of one kind become one finding, the gravest, and of equally grave ones the one with the largest effect;
    the others are added to its evidence.

    Args:
        candidates: All tests of a report, also those that found nothing.
        alpha: Probability of one false finding or more.

    Returns:
        Findings, the gravest first; of equally grave ones, those of the first audit.
    """
    corrected = holm(np.array([each.p_value for each in candidates]))
    found = [
        (each, float(p))
        for each, p in zip(candidates, corrected, strict=True)
        if p <= alpha and each.severity is not None
    ]
    audits = list(dict.fromkeys(each.audit for each in candidates))
    found.sort(key=lambda pair: (SEVERITIES.index(pair[0].severity), audits.index(pair[0].audit), pair[1]))
    kinds: dict[tuple[str, str], list[tuple[Finding, float]]] = {}
    for each, p in found:
        kinds.setdefault((each.audit, each.kind), []).append((each, p))
    findings = []
    for (gravest, _), *_ in kinds.values():
        members = kinds[gravest.audit, gravest.kind]
        alike = [pair for pair in members if (pair[0].severity, pair[0].metric) == (gravest.severity, gravest.metric)]
        first, p = max(alike, key=lambda pair: -pair[0].value if pair[0].below else pair[0].value)
        others = [pair for pair in members if pair[0] is not first]
        evidence = first.evidence
        if others:
            also = "; ".join(f"{o.title}: {o.value:.3g} ({o.low:.3g} to {o.high:.3g})" for o, _ in others)
            evidence += f" Of the same kind: {also}."
        findings.append(replace(first, evidence=evidence, p_value=p))
    return tuple(findings)


def _float(value: float | None) -> float:
    return float("nan") if value is None else float(value)
