"""What the audit of performance names, and what it says that nothing is known of."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hf_msae.hyperspectral import RedTeamReport, red_team
from hf_msae.hyperspectral.audits.performance import performance
from hf_msae.hyperspectral.audits.slices import quantile_ratio, unknown_ends
from hf_msae.hyperspectral.modelpedia import caveat_of
from hf_msae.hyperspectral.subject import make_subject
from hf_msae.statistics import Finding, confirmed, resampled_means
from tests.hyperspectral.worlds import MODEL, QUICK, audited, of_kind, spectra


def test_a_narrow_range_is_named():
    found = audited(None, "performance", model=make_pipeline(StandardScaler(), Ridge(3000)))
    (slope,) = of_kind(found, "calibration_slope")
    assert slope.severity == "severe" and slope.low > 1.75
    table = found.tables["performance"].set_index(["target", "metric"])["value"]
    truth, predicted = (found.tables["predictions"].query("target == 'K'")[name] for name in ("truth", "prediction"))
    assert table["K", "range_ratio"] == pytest.approx(predicted.std() / truth.std())
    assert table["K", "rmse"] == pytest.approx(np.sqrt(((truth - predicted) ** 2).mean()))
    assert table["K", "calibration_slope"] == pytest.approx(np.polyfit(predicted, truth, 1)[0])
    assert table["K", "score"] == pytest.approx(1 - table["K", "r2"])


@pytest.mark.parametrize(
    ("fault", "metric"), [("flat ends", "tail_response"), ("unseen outliers", "outlier_response")]
)
def test_targets_that_predictions_do_not_follow_are_named(fault, metric):
    found = audited(fault, "performance", n=400)
    (finding,) = of_kind(found, metric)
    assert "K" in finding.title and finding.value < 0.5 and finding.high < 0.7
    table = found.tables["performance"].set_index(["target", "metric"])["value"]
    assert table["K", metric] == pytest.approx(finding.value) and table["pH", metric] > 0.7


def predicted(how, seed=0):
    """The audit of performance, of predictions that are a function of the standardized target."""
    y = np.random.default_rng(seed).exponential(size=300)
    z = (y - y.mean()) / y.std()
    subject = make_subject(Ridge(), z[:, None], pd.Series(y, name="K"), num_resamples=200)
    subject.__dict__["predictions"] = (y.mean() + y.std() * how(z))[:, None]
    outcome = performance(subject)
    (tail,) = outcome.tables["performance"].query("metric == 'tail_response'").to_dict("records")
    tests = [each for each in outcome.candidates if each.metric == "tail_response"]
    found = confirmed(outcome.candidates, 0.05)
    return tail, tests, unknown_ends(outcome.tables["performance"], found)


@pytest.mark.parametrize(("slope", "severity"), [(1, None), (0.2, "moderate"), (0, "severe")])
def test_the_response_in_the_tails_is_the_slope_beyond_the_median(slope, severity):
    def bent(z):
        within = np.clip(z, *(np.median(np.abs(z)) * np.array([-1, 1])))
        return 0.8 * within + 0.8 * slope * (z - within)

    tail, (tested,), unknown = predicted(bent)
    assert tail["value"] == pytest.approx(slope) and tested.severity == severity
    assert (tested.p_value < 1e-9) == (severity is not None) and unknown == {}


def test_what_weak_predictions_cannot_tell_is_said():
    noise = np.random.default_rng(1).normal(size=300)
    tail, (tested,), unknown = predicted(lambda z: 0.1 * z + 0.4 * noise)
    assert tail["low"] < 0.1 < 0.5 < tail["high"] and tested.severity is None and tested.p_value > 0.05
    far, half = unknown["K"]
    assert half.endswith(f"half of its values ({tail['low']:.2g} to {tail['high']:.2g})") and "2 standard" in far


def test_targets_that_are_not_predicted_share_a_remark():
    X, y, groups, table = spectra("noise", n=60)
    groups = {"farm": groups["farm"], "flight": np.arange(60) % 3}
    found = red_team(MODEL, X, y, groups, features=table, audits=["shortcuts", "performance"], **QUICK)
    assert [each.split(",")[0] for each in found.remarks] == [
        "farm",
        "K and pH are not shown to be predicted better than by their means",
    ]
    assert found.remarks[0].startswith("farm, flight: ") and "K and pH are not" in found.remarks[0]
    finding = Finding("minor", "Band 3 tells of pH", "share", 0.2, 0.1, 0.3, "", "", 0.001, "bands")
    assert found.remarks[1] in caveat_of(finding, found.remarks, ["K", "pH"])
    assert "only K" not in caveat_of(finding, ["This is only K."], ["K", "pH"])


def test_worse_predictions_of_unusual_rows_are_named():
    (finding,) = of_kind(audited("unusual rows", "performance", n=400), "unusual_error_ratio")
    assert finding.severity == "severe" and finding.low > 5


@pytest.mark.parametrize("model", [MODEL, DummyRegressor()], ids=lambda each: type(each).__name__)
def test_a_model_of_noise_is_no_better_than_the_mean(model):
    found = audited("noise", "shortcuts", "performance", model=model, n=400)
    (finding,) = found.findings
    assert (finding.severity, finding.metric) == ("severe", "r2")
    assert finding.high < 0.05 and "no better than the mean" in finding.title


@pytest.mark.parametrize(
    ("metric", "low", "is_shown"), [("r2", -0.1, False), ("r2", 0.1, True), ("auroc", 0.4, False)]
)
def test_a_verdict_names_targets_that_are_not_shown_to_be_predicted(metric, low, is_shown):
    rows = [("P", metric, low, low, 0.9), ("P", "correlation", 0.2, 0.05, 0.3), ("P", "rmse", 9.0, 8.0, 10.0)]
    rows += [("K", "r2", -1.0, -9.0, 0.5), ("K", "correlation", 0.5, 0.4, 0.6), ("K", "rmse", 1.0, 0.9, 1.1)]
    rows += [("all", "r2", -1.0, -2.0, 0.1)]
    table = pd.DataFrame(rows, columns=["target", "metric", "value", "low", "high"])
    finding = Finding("minor", "Band 3 drifts", "share", 0.2, 0.1, 0.3, "", "", 0.001, "bands")
    for findings in ((), (finding,)):
        verdict = RedTeamReport(findings, {"performance": table}, num_tests=17).verdict()
        assert ("P is not shown" in verdict) == (not is_shown) and "K" not in verdict
        assert ("nothing wrong" in verdict) == (is_shown and not findings)


@pytest.mark.parametrize(("n", "part", "number"), [(80, "decile", 10), (60, "quintile", 5), (20, "half", 2)])
def test_residuals_are_shown_for_as_many_parts_of_a_target_as_rows_allow(n, part, number):
    X, y, _, _ = spectra(n=n)
    found = red_team(MODEL, X, y[["K"]], audits=["performance"], **QUICK)
    slices = found.tables["slices"]
    assert slices["grouping"].tolist() == [part] * number and slices["residual"].notna().all()
    panel = found.figures()["deciles"].axes[0]
    assert part in panel.get_xlabel() and len(panel.patches) == number


def test_only_groups_that_are_judged_are_resampled(monkeypatch):
    X, y, groups, _ = spectra(n=100)
    groups["plot"] = [f"{row // 4:02}" for row in range(100)]
    widths = []

    def counted(columns, *given):
        widths.append(columns.shape[1])
        return resampled_means(columns, *given)

    monkeypatch.setattr("hf_msae.hyperspectral.audits.slices.resampled_means", counted)
    table = (
        red_team(MODEL, X, y[["K"]], groups, audits=["performance"], **QUICK).tables["slices"].set_index("grouping")
    )
    assert max(widths) == 1 + 3 * 10, "ten deciles; farms are fewer, and no plot is judged"
    assert table.loc["farm", "residual_high"].notna().all() and table.loc["plot", "error_ratio":].isna().all(axis=None)
    assert table.loc["plot", "rows"].tolist() == [4] * 25
    assert np.allclose(table.loc["plot", "mean"].to_numpy(), y["K"].to_numpy().reshape(25, 4).mean(axis=1))


UNSEEN = Finding(
    "minor", "Extreme values of P are not seen", "outlier_response", 0.1, 0, 0.2, "As of K.", "", 0.01, "performance"
)


@pytest.mark.parametrize(
    ("value", "low", "high", "found", "is_known"),
    [
        (0.5, 0.05, 0.9, (), False),
        (0.2, -0.1, 0.54, (), False),  # low for sure, but not so sure that it is a finding among many tests
        (0.2, -0.1, 0.54, (UNSEEN,), True),
        (0.2, -0.1, 0.54, (replace(UNSEEN, metric="tail_response"),), True),
        (0.2, -0.1, 0.54, (replace(UNSEEN, metric="range_ratio"),), False),
        (0.2, -0.1, 0.54, (replace(UNSEEN, evidence="Of the same kind: extreme values of Mg."),), False),
        (0.9, 0.8, 1.0, (), True),
        (np.nan, np.nan, np.nan, (), False),
    ],
)
def test_a_verdict_names_targets_whose_ends_nothing_is_known_of(value, low, high, found, is_known):
    rows = [("K", "r2", 0.1, 0.05, 0.2), ("K", "rmse", 9.0, 8.0, 10.0), ("K", "tail_response", 0.9, 0.8, 1.0)]
    rows += [("K", "outlier_response", value, low, high)]
    rows += [("pH", "r2", 0.1, -0.05, 0.2), ("pH", "rmse", 9.0, 8.0, 10.0), ("pH", "tail_response", 0.5, -1.0, 2.0)]
    table = pd.DataFrame(rows, columns=["target", "metric", "value", "low", "high"])
    for each in (table, table.astype(object).where(table.notna(), None)):  # measured, and read again
        verdict = RedTeamReport(found, {"performance": each}, num_tests=17).verdict()
        assert ("of K follow extreme values is not known" in verdict) == (not is_known)
        assert "pH is not shown" in verdict and "nothing wrong" not in verdict


def test_draws_of_many_rows_are_not_held_at_once():
    """All of a million rows would take 5 GB."""
    y, p = np.random.default_rng(0).normal(size=(2, 5000))
    tracemalloc.start()
    found = quantile_ratio(y, 0.5 * y + p, 3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e6
    rows = np.random.default_rng(3).integers(5000, size=(200, 5000))
    of_p, of_y = (np.diff(np.quantile(each[rows], (0.05, 0.95), axis=1), axis=0)[0] for each in (0.5 * y + p, y))
    assert found[1:] == pytest.approx(np.quantile(of_p / of_y, (0.025, 0.975)))
