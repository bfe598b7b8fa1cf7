"""Red teaming finds what was planted, and nothing severe in a sound model."""

import json
from itertools import combinations, pairwise

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy.stats import f
from scipy.stats import t as student
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from hf_msae.hyperspectral import FixedClassifier, RedTeamReport, red_team
from hf_msae.hyperspectral.audits.attacks import attacks
from hf_msae.hyperspectral.audits.attribution_shift import attribution_shift
from hf_msae.hyperspectral.audits.bands import share_p_value
from hf_msae.hyperspectral.audits.outcome import Outcome
from hf_msae.hyperspectral.audits.performance import performance
from hf_msae.hyperspectral.audits.stability import over_samples
from hf_msae.hyperspectral.reading import read_targets
from hf_msae.hyperspectral.subject import make_subject
from hf_msae.plotting.hyperspectral import plot_attacks, plot_shortcuts
from hf_msae.plotting.spectra import plot_single_bands
from hf_msae.statistics import Finding
from tests.hyperspectral.worlds import CAUSES, WAVELENGTHS, spectra

QUICK = {"num_folds": 4, "num_bootstrap": 100, "num_seeds": 2, "num_attacked": 4, "progress": False}
MODEL = make_pipeline(StandardScaler(), Ridge(1.0))


def audited(fault, *audits, seed=0, model=MODEL, n=200):
    X, y, groups, table = spectra(fault, seed, n)
    return red_team(model, X, y, groups, features=table, audits=audits, seed=seed, **QUICK)


def of_kind(report, metric):
    return [finding for finding in report.findings if finding.metric == metric]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """All audits of a model of spectra with a leaking band, n = 120."""
    X, y, groups, table = spectra("leaking band", n=120)
    folder = tmp_path_factory.mktemp("kept")
    return red_team(MODEL, X, y, groups, features=table, output_dir=folder, **QUICK), folder


@pytest.mark.parametrize("seed", range(2))
def test_a_sound_model_has_no_severe_finding(seed):
    found = audited(None, "shortcuts", "performance", "bands", seed=seed)
    assert [finding for finding in found.findings if finding.severity == "severe"] == []
    assert found.num_tests > 10


def test_a_farm_that_tells_the_target_is_a_severe_shortcut():
    found = audited("farm", "shortcuts", "performance")
    first = found.findings[0]
    assert (first.severity, first.metric, first.audit) == ("severe", "shortcut_index", "shortcuts")
    assert "farm" in first.title and "K" in first.title + first.evidence
    assert 0.3 < first.low < first.value < first.high
    table = found.tables["shortcuts"].set_index("target")
    assert 0.8 < table.loc["K", "random"] > 0.3 + table.loc["K", "left_out"]
    assert table.loc["K", "group_mean"] > 0.7 and table.loc["pH", "group_mean"] < 0.1
    assert table.loc["K", "decoded"] > 0.9 and table.loc["K", "chance"] < 0.4


@pytest.mark.parametrize(
    ("fault", "title"), [("leaking band", "tells of K"), ("drifting band", "differs by farm")], ids=str
)
@pytest.mark.parametrize("seed", range(2))
def test_a_band_unlike_its_neighbors_is_named(fault, title, seed):
    (finding,) = audited(fault, "bands", seed=seed).findings
    assert finding.severity == "severe" and title in finding.title
    assert f"and 20 ({WAVELENGTHS[20]:.0f} nm)" in finding.title
    assert finding.value > 0.5


def test_a_share_that_is_harmless_is_not_significant():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 200))
    y = np.sqrt(0.05) * x + np.sqrt(0.95) * rng.normal(size=x.shape)  # 5% is explained: neither more nor less
    shares = [np.corrcoef(a, b)[0, 1] ** 2 for a, b in zip(x, y, strict=True)]
    assert 0.02 < np.mean([share_p_value(share, 200, 1) < 0.05 for share in shares]) < 0.09
    assert share_p_value(0.12, 200, 1) > 0.01 and f.sf(0.12 * 198 / 0.88, 1, 198) < 1e-5
    assert share_p_value(0.95, 300, 7) < share_p_value(0.6, 300, 7) < 1e-20


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
    return tail, [each for each in outcome.candidates if each.metric == "tail_response"], outcome.remarks


@pytest.mark.parametrize(("slope", "severity"), [(1, None), (0.2, "moderate"), (0, "severe")])
def test_the_response_in_the_tails_is_the_slope_beyond_the_median(slope, severity):
    def bent(z):
        within = np.clip(z, *(np.median(np.abs(z)) * np.array([-1, 1])))
        return 0.8 * within + 0.8 * slope * (z - within)

    tail, (tested,), remarks = predicted(bent)
    assert tail["value"] == pytest.approx(slope) and tested.severity == severity
    assert (tested.p_value < 1e-9) == (severity is not None) and remarks == []


def test_what_weak_predictions_cannot_tell_is_said():
    noise = np.random.default_rng(1).normal(size=300)
    tail, (tested,), remarks = predicted(lambda z: 0.1 * z + 0.4 * noise)
    assert tail["low"] < 0.1 < 0.5 < tail["high"] and tested.severity is None and tested.p_value > 0.05
    (remark,) = [each for each in remarks if "not known" in each]
    assert "of K" in remark and f"half of its values ({tail['low']:.2g} to {tail['high']:.2g})" in remark


def test_worse_predictions_of_unusual_rows_are_named():
    (finding,) = of_kind(audited("unusual rows", "performance", n=400), "unusual_error_ratio")
    assert finding.severity == "severe" and finding.low > 5


@pytest.mark.parametrize(
    "model", [MODEL, DummyRegressor(), KNeighborsRegressor(30)], ids=lambda each: type(each).__name__
)
def test_a_model_of_noise_is_no_better_than_the_mean(model):
    found = audited("noise", "shortcuts", "performance", model=model, n=400)
    (finding,) = found.findings
    assert (finding.severity, finding.metric) == ("severe", "r2")
    assert finding.high < 0.05 and "no better than the mean" in finding.title


def test_nothing_rests_on_a_group_if_nothing_is_predicted():
    rng = np.random.default_rng(0)
    farms = np.repeat(["a", "b", "c"], 40)
    y = np.repeat([0.0, 1.0, 2.0], 40) + rng.normal(size=120)  # without one farm, the mean of the others is far off
    found = red_team(
        DummyRegressor(), rng.normal(size=(120, 120)), y, {"farm": farms}, audits=["shortcuts", "pruning"], **QUICK
    )
    assert found.findings == () and found.tables["shortcuts"]["shortcut_index"].iloc[0] > 0.2
    assert any("leaving a group out was not tested" in remark for remark in found.remarks)
    assert any("few columns" in remark for remark in found.remarks)
    assert found.num_tests == 0 and found.verdict().startswith("nothing could be tested of DummyRegressor")


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


def test_groups_of_single_rows_are_remarked_on():
    X, y, _, table = spectra(n=60)
    hours = {"hour": np.arange(60).astype(str)}
    found = red_team(MODEL, X, y, hours, features=table, audits=["shortcuts", "bands"], **QUICK)
    assert [remark.split(":")[0] for remark in found.remarks if "60 groups of 60 rows" in remark] == ["hour", "hour"]
    assert found.tables["shortcuts"].empty and "hour" not in set(found.tables["bands"]["name"])


def test_a_group_is_found_behind_predictions_some_of_which_are_far_off():
    rng = np.random.default_rng(0)
    farm = rng.integers(5, size=300)
    y = farm + 0.5 * rng.normal(size=300)
    X = np.eye(5)[farm] + 0.1 * rng.normal(size=(300, 5))
    X[::50] *= 10  # rows on which a linear model is far off: worse than the mean on the whole
    found = red_team(LinearRegression(), X, y, {"farm": farm.astype(str)}, audits=["shortcuts"], **QUICK)
    (row,) = found.tables["shortcuts"].to_dict("records")
    assert row["random"] < 0 and of_kind(found, "shortcut_index"), "R2 is below 0, but predictions follow the farm"


def test_a_grouping_of_one_group_is_named_as_people_write_it():
    X = np.arange(20.0)[:, None]
    found = red_team(Ridge(), X, X[:, 0], {"farm": np.repeat("north", 20)}, audits=["shortcuts"], **QUICK)
    assert [remark for remark in found.remarks if "'north'" in remark and "str_" not in remark] == found.remarks
    assert len(found.remarks) == 1 and found.verdict().startswith("nothing could be tested")


def test_attributions_lie_at_causes_and_leaks(report):
    table = report[0].tables["attributions"]
    assert table.groupby("target")["share"].sum().tolist() == pytest.approx([1, 1])
    for target, cause in CAUSES.items():
        place = WAVELENGTHS[20] if target == "K" else cause
        near = table[(table["wavelength"] - place).abs() < 100].groupby("target")["share"].sum()
        assert near[target] == near.max() > 0.4
    gaps = report[0].tables["additivity"].iloc[0]
    assert gaps["median_gap"] <= gaps["largest_gap"] < 1e-9


def test_groups_sum_signed_values_first(report):
    groups = report[0].tables["attribution_groups"]
    assert (groups["absolute_first"] >= groups["attribution"] - 1e-12).all()
    assert set(groups["grouping"]) == {"band", "cluster"}
    flagged = groups["absolute_first"] > 2 * groups["attribution"]
    assert (groups["cancels"].astype(bool) == flagged).all() and flagged.any()


def test_pruning_finds_the_columns_that_suffice():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 100))
    y = X[:, 3] + X[:, 70] + 0.3 * rng.normal(size=120)
    found = red_team(Ridge(1.0), X, y, audits=["pruning"], **QUICK)
    losses = found.tables["pruning"].set_index(["ranking", "features"])["loss"]
    assert losses["attribution", 2] < 0.5 and losses["permutation", 2] < 0.5 < 1.5 < losses["random", 2]
    assert losses["all columns", 100] == 1
    smallest = found.tables["smallest"].set_index("ranking")
    assert smallest.loc["attribution", "features"] in (1, 2) and smallest.loc["random", "features"] > 10
    assert found.findings == ()  # a single column, 1%, does not do as well


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_class_of_one_row_does_not_rank_columns_where_it_is_not():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 6))
    labels = np.where(X[:, 3] > 0, "a", "b").astype(object)
    model = LogisticRegression().fit(np.concatenate([X, -X[:3]]), [*labels, *["rare"] * 3])
    labels[5] = "rare"
    found = red_team(FixedClassifier(model), X, labels, audits=["pruning"], **QUICK)
    losses = found.tables["pruning"].set_index(["ranking", "features"])["loss"]
    assert losses["attribution", 1] < losses["random", 1] and losses["all columns", 6] == 1


def test_a_hundredth_of_columns_that_suffices_is_a_minor_finding():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 100))
    found = red_team(Ridge(1.0), X, X[:, 3] + 0.3 * rng.normal(size=120), audits=["attributions", "pruning"], **QUICK)
    assert [(each.severity, each.metric) for each in found.findings] == [("minor", "loss")]
    assert "1 of 100 columns" in found.findings[0].title


def test_errors_grow_with_the_strength_of_attacks(report):
    table = report[0].tables["attacks"]
    assert table.groupby("attack")["allowed"].sum().tolist() == [2] * 7  # one strength, two targets
    for attack in ("noise", "tilt", "haze"):
        errors = table[(table["attack"] == attack) & (table["target"] == "K")]["error"].to_numpy()
        assert errors[-1] > errors[0] and np.isfinite(errors).all()
    worst = report[0].tables["worst_case"].set_index(["target", "search"])["loss"]
    assert worst["K", "worst"] > worst["K", "random"]


def test_attributions_are_compared_before_and_after_attacks(report):
    table = report[0].tables["attribution_shift"]
    assert len(table) == 14 and (table["rows"] == 18).all()  # of the 80 attacked rows, those of one fold
    assert table["rank_correlation"].between(0.5, 1).all() and table["top_overlap"].between(0.5, 1).all()
    assert any("correlate with those before" in remark for remark in report[0].remarks)
    X, y, _, _ = spectra(n=60)
    subject, mixed = make_subject(Ridge(1e-3), X, y), np.random.default_rng(0).permutation(X, axis=1)
    found, _ = attribution_shift(subject, np.arange(60), {"nothing": X, "mixed": mixed})
    assert found["rank_correlation"].iloc[:2].tolist() == pytest.approx([1, 1])
    assert found["rank_correlation"].iloc[2:].max() < 0.9


def test_sampled_attributions_are_not_compared():
    X, y, _, _ = spectra(n=60)
    subject = make_subject(KNeighborsRegressor(5), X[:, :5], y[["K"]])
    found, remarks = attribution_shift(subject, np.arange(60), {"noise": X[:, :5]})
    assert found.empty and "sampled" in remarks[0]


def test_stability_is_measured(report):
    table = report[0].tables["stability"].set_index(["target", "metric"])["value"]
    assert 0 < table["K", "prediction_change"] < 1
    assert -1 <= table["K", "rank_correlation"] <= 1 and 0 <= table["K", "top_overlap"] <= 1


def test_pairs_that_share_a_sample_are_not_independent():
    x = np.random.default_rng(0).normal(size=8)
    means = np.array([(a + b) / 2 for a, b in combinations(x, 2)])
    assert over_samples(means, 8) == pytest.approx((x.mean(), x.std(ddof=1) / np.sqrt(8)))


def test_rankings_are_tested_over_samples(report):
    found, folder = report
    overlap = found.tables["stability"].set_index(["target", "metric"]).loc[("K", "top_overlap")]
    error = (overlap["high"] - overlap["value"]) / student.ppf(0.975, 3)  # of two seeds, four samples
    assert overlap["high"] < 1 and overlap["value"] - overlap["low"] == pytest.approx(
        min(overlap["value"], overlap["high"] - overlap["value"])
    )
    (path,) = (folder / "audits").glob("stability-*.json")
    candidates = Outcome.from_dict(json.loads(path.read_text())).candidates
    (tested,) = [each for each in candidates if (each.kind, each.subject) == ("ranking", "K")]
    assert tested.p_value == pytest.approx(student.cdf((overlap["value"] - 0.5) / max(error, 0.01), 3))


def test_reports_are_saved_and_loaded(report, tmp_path):
    found, _ = report
    found.to_json(tmp_path / "report.json")
    again = RedTeamReport.load(tmp_path / "report.json")
    assert again.to_dict() == found.to_dict() and again.findings == found.findings
    assert found.to_pandas()["severity"].tolist() == [each.severity for each in found.findings]
    found.to_yaml(tmp_path / "findings.yaml")
    entries = yaml.safe_load((tmp_path / "findings.yaml").read_text())["findings"]
    assert [entry["title"] for entry in entries] == [each.title for each in found.findings]
    assert {entry["review_status"] for entry in entries} == {"unreviewed"}
    fields = {"title", "description", "model", "concepts", "method", "dataset", "evidence_type", "key_metric"}
    assert fields | {"caveat", "review_status"} < set(entries[0])
    leak = next(entry for entry in entries if "tells of K" in entry["title"])
    assert leak["concepts"] == ["concept:shortcut", "concept:acquisition-artefact"]
    assert leak["evidence_type"] == "correlational" and leak["key_metric"].startswith("share_of_remainder 0.")
    assert "narrower" in leak["caveat"] and all(type(each) is str for entry in entries for each in entry["concepts"])
    with pytest.raises(ValueError, match="RedTeamReport"):
        RedTeamReport.from_dict({"findings": []})


def test_finished_audits_are_kept(report, monkeypatch):
    found, folder = report
    X, y, groups, table = spectra("leaking band", n=120)
    kept = {path.name for path in (folder / "audits").iterdir()}
    assert len(kept) == 7
    monkeypatch.setattr("hf_msae.hyperspectral.subject.Subject.fit", None)  # nothing is fitted again
    audits = [name for name in found.tables if name in ("shortcuts", "pruning", "attacks", "stability")]
    again = red_team(MODEL, X, y, groups, features=table, output_dir=folder, audits=audits, **QUICK)
    for name in audits:
        assert again.tables[name].equals(found.tables[name]) or name == "shortcuts"
    monkeypatch.undo()
    red_team(Ridge(2.0), X, y, groups, features=table, output_dir=folder, audits=["shortcuts"], **QUICK)
    assert len({path.name for path in (folder / "audits").iterdir()} - kept) == 1


def test_what_a_model_that_looks_alike_found_is_not_kept(tmp_path):
    X, y, groups, table = spectra(None, n=120)
    columns = list(range(X.shape[1]))

    def reached(chosen):
        model = make_pipeline(ColumnTransformer([("kept", StandardScaler(), chosen)]), Ridge())
        found = red_team(model, X, y, groups, features=table, output_dir=tmp_path, audits=["performance"], **QUICK)
        return repr(model), found.tables["performance"]

    whole, without = reached(columns), reached([*columns[:35], *columns[36:]])
    assert whole[0] == without[0] and not whole[1].equals(without[1])
    assert reached(columns)[1].equals(whole[1]) and len(list((tmp_path / "audits").iterdir())) == 2


def test_models_that_cannot_be_pickled_are_known_by_their_predictions(tmp_path):
    X, y, groups, table = spectra(None, n=120)
    options = {"features": table, "output_dir": tmp_path, "audits": ["performance"], **QUICK}
    power = [1]
    model = make_pipeline(FunctionTransformer(lambda x: x ** power[0]), StandardScaler(), Ridge())
    for power[0] in (1, 3, 1):  # always of the same repr
        red_team(model, X, y, groups, **options)
    assert len(list((tmp_path / "audits").iterdir())) == 2


def test_figures_are_drawn(report):
    drawn = report[0].figures()
    assert set(drawn) == {
        "predictions",
        "shortcuts",
        "deciles",
        "single_bands",
        "wavelengths",
        "pruning",
        "attacks",
    }
    assert len(drawn["attacks"].axes) == 9 and len(drawn["predictions"].axes) == 2
    assert all(report[0].figures()[name] is figure for name, figure in drawn.items()), "drawn once"


def test_dots_of_bands_are_filled_if_significant_and_isolated():
    table = pd.DataFrame({"name": list("abc"), "band": 1, "wavelength": 500.0, "share": [0.3, 0.3, 0.2]})
    figure = plot_single_bands(table.assign(nearby=[0.01, 0.2, 0.01], p_value=[0.001, 0.001, 0.4]))
    drawn = {line.get_markerfacecolor(): line.get_ydata().tolist() for line in figure.axes[0].get_lines()[:2]}
    assert drawn.pop("white") == [0, 1] and list(drawn.values()) == [[2]]


def test_any_audit_has_a_figure_or_says_that_there_is_none():
    X, y, groups, table = spectra(n=60)
    found = red_team(MODEL, X, y, groups, features=table, audits=["bands"], **QUICK)
    assert list(found.figures()) == ["single_bands"] and found.plot() is found.figures()["single_bands"]
    labels = [label.get_text() for label in found.plot().axes[0].get_yticklabels()]
    assert len(labels) == 4 and labels[-1].startswith("K: ") and labels[-1].endswith(" nm")
    with pytest.raises(ValueError, match="pulls"):
        RedTeamReport((), {"pulls": pd.DataFrame(columns=["pull"])}).plot()


@pytest.mark.parametrize(("n", "part", "number"), [(80, "decile", 10), (60, "quintile", 5), (20, "half", 2)])
def test_residuals_are_shown_for_as_many_parts_of_a_target_as_rows_allow(n, part, number):
    X, y, _, _ = spectra(n=n)
    found = red_team(MODEL, X, y[["K"]], audits=["performance"], **QUICK)
    slices = found.tables["slices"]
    assert slices["grouping"].tolist() == [part] * number and slices["residual"].notna().all()
    panel = found.figures()["deciles"].axes[0]
    assert part in panel.get_xlabel() and len(panel.patches) == number


def test_strengths_of_attacks_are_written_side_by_side():
    strengths = [0.1, 0.25, 0.5, 0.75]  # as of crops: a logarithmic axis put 0.60 and 0.75 over each other
    table = pd.DataFrame({"strength": strengths, "error": 0.5, "low": 0.4, "high": 0.6, "target": "K"})
    table = table.assign(attack="crop", unit="share of height and width", allowed=table["strength"] == 0.25)
    figure = plot_attacks(table)
    figure.draw_without_rendering()
    labels = figure.axes[0].get_xticklabels()
    assert [label.get_text() for label in labels] == ["0.1", "0.25", "0.5", "0.75"]
    boxes = [label.get_window_extent() for label in labels]
    assert all(right.x0 - left.x1 > 2 for left, right in pairwise(boxes))


def test_the_mean_of_a_group_is_drawn_where_it_is_worse_than_nothing():
    columns = {"grouping": "farm", "target": ["P", "K"], "metric": "r2", "random": 0.5, "left_out": 0.4}
    panel = plot_shortcuts(pd.DataFrame({**columns, "group_mean": [-0.3, -9.0]})).axes[0]
    bars = next(line for line in panel.get_lines() if line.get_marker() == "|").get_xdata()
    assert bars.tolist() == [-1.5, -0.3] and panel.get_xlim()[0] < -1.5


def test_pulls_of_groups_are_drawn_the_strongest_first():
    table = pd.DataFrame({"grouping": "night", "group": ["True", "False", "dusk"], "target": "star", "rows": 9})
    report = RedTeamReport((), {"pulls": table.assign(pull=[0.2, -0.7, np.nan], low=[0.1, -0.9, np.nan], high=0.3)})
    panel = report.plot().axes[0]
    assert [label.get_text() for label in panel.get_yticklabels()] == [
        "star where night is True",
        "star where night is False",
    ]
    assert panel.get_xlim()[0] < -0.9 and panel.get_xlim()[1] > 1


def test_a_model_is_called_by_its_name_and_not_by_its_scaling():
    X, y, _, _ = spectra(n=60)
    scaled = TransformedTargetRegressor(MODEL, transformer=StandardScaler())
    found = red_team(scaled, X, y, audits=["performance"], **QUICK)
    assert found.about["model"] == "Ridge" and found.verdict().count("Ridge")


def test_classifiers_are_red_teamed():
    X, y, groups, table = spectra("farm")
    labels = np.where(y["K"] > y["K"].median(), "rich", "poor")
    found = red_team(
        make_pipeline(StandardScaler(), LogisticRegression()),
        X,
        labels,
        groups,
        features=table,
        audits=["shortcuts", "performance"],
        **QUICK,
    )
    (shortcut,) = of_kind(found, "shortcut_index")
    assert shortcut.severity == "severe" and "rich" in shortcut.title
    table = found.tables["performance"].set_index("metric")["value"]
    assert table["auroc"] > 0.9 and 0.8 < table["accuracy"] <= 1 and "range_ratio" not in table


def test_a_model_of_one_target_says_how_to_test_several():
    X, y, _, _ = spectra(n=60)
    with pytest.raises(ValueError, match=r"GradientBoostingRegressor.*K, pH.*--targets.*MultiOutputRegressor"):
        make_subject(GradientBoostingRegressor(n_estimators=1), X[:, :3], y).fit(np.arange(40))


def test_attacks_are_tested_of_targets_that_are_shown_to_be_predicted():
    rng = np.random.default_rng(0)
    attacked = rng.permutation(120)[:80]
    X, noise = rng.normal(size=(120, 3)), rng.normal(size=(120, 1))
    noise[attacked] *= 0.05  # so near the mean that errors there are smaller than the variance of all rows
    y = pd.DataFrame({"K": X[:, 0] + 0.1, "noise": noise[:, 0]})
    subject = make_subject(Ridge(), X, y, num_resamples=100, limits={"num_attacked": 4})
    assert subject.squared_errors[attacked, 1].mean() < noise.var()
    found = attacks(subject)
    assert {each.subject for each in found.candidates} == {"K"}
    assert [remark for remark in found.remarks if "noise" in remark and "K" not in remark]


def test_labels_may_be_a_table_of_one_column():
    labels = pd.DataFrame({"soil": ["clay", "sand", "clay"]})
    Y, targets, classes = read_targets(labels, 3, classify=True)
    assert Y.tolist() == [[0], [1], [0]] and classes.tolist() == ["clay", "sand"] and "sand" in targets[0]
    with pytest.raises(ValueError, match="shape"):
        read_targets(labels.assign(more=1), 3, classify=True)


def test_input_is_checked():
    X, y, groups, table = spectra(n=60)
    with pytest.raises(ValueError, match="3 rows"):
        red_team(MODEL, X[:3], y[:3])
    with pytest.raises(ValueError, match="row 4, column 7"):
        red_team(MODEL, np.where(np.arange(40) == 7, np.where(np.arange(60)[:, None] == 4, np.nan, X), X), y)
    with pytest.raises(ValueError, match="59 rows"):
        red_team(MODEL, X, y[:59])
    with pytest.raises(ValueError, match="'farm'"):
        red_team(MODEL, X, y, {"farm": groups["farm"][:5]})
    with pytest.raises(ValueError, match="'band'"):
        red_team(MODEL, X, y, features=table.drop(columns="band"))
    with pytest.raises(ValueError, match="'shortcut'"):
        red_team(MODEL, X, y, audits=["shortcut"])
    with pytest.raises(ValueError, match="target K is 1"):
        red_team(MODEL, X, y.assign(K=1.0))
    with pytest.raises(TypeError, match="str"):
        red_team("model", X, y)
    with pytest.raises(ValueError, match="class 'rare' of y"):
        red_team(LogisticRegression(), X, np.where(np.arange(60) == 3, "rare", "usual"), audits=["performance"])
    with pytest.raises(ValueError, match="class 'usual'"):
        red_team(LogisticRegression(), X, np.full(60, "usual"))
