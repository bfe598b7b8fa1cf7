"""Only what is beyond what is harmless, and significant among all tests, is a finding."""

import numpy as np
import pytest

from hf_msae.statistics import candidate, confirmed


def examined(value, spread=0.01, limits=(0.1, 0.2, 0.3), kind="gap", subject="K", audit="one", **options):
    draws = np.random.default_rng(0).normal(value, spread, 400)
    return candidate(
        audit, kind, subject, f"a gap in {subject}", "gap", value, draws, limits, "Seen.", "Act.", **options
    )


@pytest.mark.parametrize(
    ("value", "severity"), [(0.05, None), (0.11, None), (0.15, "minor"), (0.25, "moderate"), (0.35, "severe")]
)
def test_severity_is_that_of_the_end_near_to_harmless(value, severity):
    assert examined(value).severity == severity
    mirrored = examined(-value, limits=(-0.1, -0.2, -0.3), below=True)
    assert mirrored.severity == severity
    assert mirrored.p_value == pytest.approx(examined(value).p_value, abs=0.02)


def test_a_sign_that_the_data_chose_doubles_the_p_value():
    assert examined(0.11, two_sided=True).p_value == pytest.approx(2 * examined(0.11).p_value)
    assert examined(0.05, two_sided=True).p_value == 1


def test_ratios_are_tested_on_their_logarithm():
    draws = np.exp(np.random.default_rng(0).normal(np.log(4), 0.5, 4000))
    ratio = candidate("one", "k", "s", "t", "m", 4.0, draws, (1, 2, 3), "", "", log=True)
    inverse = candidate("one", "k", "s", "t", "m", 0.25, 1 / draws, (1, 1 / 2, 1 / 3), "", "", log=True, below=True)
    assert ratio.p_value == pytest.approx(inverse.p_value) == pytest.approx(0.0028, rel=0.15)


def test_a_ratio_may_be_tested_as_a_difference():
    tested = (1.0, np.random.default_rng(0).normal(1, 0.5, 4000))
    found = examined(0.05, limits=(0.5, 0.3), below=True, tested=tested)
    assert found.p_value == pytest.approx(0.023, rel=0.1) and found.severity == "moderate"


def test_undefined_quantities_are_not_examined():
    assert examined(np.nan) is None
    assert candidate("one", "k", "s", "t", "m", 1.0, np.full(9, np.nan), (0, 1, 2), "", "") is None


def test_all_tests_are_corrected_together():
    shaky = examined(0.15, spread=0.02)  # p = 0.006
    assert shaky.severity == "minor" and 0.001 < shaky.p_value < 0.02
    assert len(confirmed([shaky], 0.05)) == 1
    assert confirmed([shaky] + [examined(0.0)] * 30, 0.05) == ()
    assert confirmed([], 0.05) == ()


def test_candidates_of_a_kind_become_one_finding():
    several = [examined(0.15, subject="K"), examined(0.35, subject="pH"), examined(0.4, kind="other", audit="two")]
    first, second = confirmed(several, 0.05)
    assert (first.severity, first.title, first.audit) == ("severe", "a gap in pH", "one")
    assert "K: 0.15" in first.evidence and "Seen." in first.evidence
    assert (second.audit, second.severity) == ("two", "severe")
    assert first.p_value >= several[1].p_value


@pytest.mark.parametrize("below", [False, True])
def test_the_largest_of_equally_grave_effects_leads(below):
    sign, limits = (-1, (-0.1, -0.2, -0.3)) if below else (1, (0.1, 0.2, 0.3))
    near = examined(sign * 0.4, 0.001, limits, subject="pH", below=below)  # the surest, so it has the least p-value
    far = examined(sign * 0.9, 0.1, limits, subject="clay", below=below)
    assert near.severity == far.severity == "severe" and near.p_value < far.p_value
    (first,) = confirmed([near, far], 0.05)
    assert (first.title, first.value) == ("a gap in clay", sign * 0.9)
    assert f"Of the same kind: a gap in pH: {sign * 0.4}" in first.evidence
