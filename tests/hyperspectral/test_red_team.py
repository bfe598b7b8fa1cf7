"""Red teaming: a sound model, all audits of one with a leaking band, and what is kept."""

import json

import numpy as np
import pytest
import yaml
from matplotlib.figure import Figure
from scipy.stats import t as student
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from hf_msae.hyperspectral import RedTeamReport, red_team
from hf_msae.hyperspectral.audits.outcome import Outcome
from hf_msae.hyperspectral.audits.stability import attribution_shift
from hf_msae.hyperspectral.subject import make_subject
from tests.hyperspectral.worlds import CAUSES, MODEL, QUICK, WAVELENGTHS, audited, spectra


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """All audits of a model of spectra with a leaking band, n = 120."""
    X, y, groups, table = spectra("leaking band", n=120)
    folder = tmp_path_factory.mktemp("kept")
    return red_team(MODEL, X, y, groups, features=table, output_dir=folder, **QUICK), folder


def test_a_sound_model_has_no_severe_finding():
    found = audited(None, "shortcuts", "performance", "bands")
    assert [finding for finding in found.findings if finding.severity == "severe"] == []
    assert found.num_tests > 10


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


def test_rankings_are_tested_over_samples(report):
    found, folder = report
    table = found.tables["stability"].set_index(["target", "metric"])
    assert 0 < table.loc[("K", "prediction_change"), "value"] < 1
    assert -1 <= table.loc[("K", "rank_correlation"), "value"] <= 1
    overlap = table.loc[("K", "top_overlap")]
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


def test_a_class_that_was_typed_in_is_known_by_what_it_does(tmp_path, monkeypatch):
    X, y, groups, table = spectra(None, n=120)
    options = {"features": table, "output_dir": tmp_path, "audits": ["performance"], **QUICK}

    def audits(strength):
        known = {"__name__": "__main__", "Ridge": Ridge}
        exec(f"class Mine(Ridge):\n    def fit(self, X, y):\n        self.alpha = {strength}\n"
             "        return super().fit(X, y)", known)  # fmt: skip
        monkeypatch.setattr("__main__.Mine", known["Mine"], raising=False)
        red_team(make_pipeline(StandardScaler(), known["Mine"]()), X, y, groups, **options)
        return len(list((tmp_path / "audits").iterdir()))

    assert [audits(1), audits(1), audits(100)] == [1, 1, 2]


def test_figures_are_drawn(report):
    drawn = report[0].figures()
    assert set(drawn) == {"predictions", "shortcuts", "deciles", "single_bands", "wavelengths", "pruning", "attacks"}
    assert len(drawn["attacks"].axes) == 9 and len(drawn["predictions"].axes) == 2
    assert all(report[0].figures()[name] is figure for name, figure in drawn.items()), "drawn once"


def test_a_model_is_called_by_its_name_and_not_by_its_scaling():
    X, y, _, _ = spectra(n=60)
    scaled = TransformedTargetRegressor(MODEL, transformer=StandardScaler())
    found = red_team(scaled, X, y, audits=["performance"], **QUICK)
    assert found.about["model"] == "Ridge" and found.verdict().count("Ridge")


def test_a_figure_without_a_caption_is_on_the_page_too(report, monkeypatch):
    found = report[0]
    one = dict(list(found.figures().items())[:1])
    monkeypatch.setattr(type(found), "figures", lambda of: one | {"of one's own": Figure()})
    assert found.to_html().count("<figure") == 2
