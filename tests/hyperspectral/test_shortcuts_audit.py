"""Shortcuts: predictions that rest on a group are found, and what cannot be tested is said."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.metrics import r2_score
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hf_msae.hyperspectral import RedTeamReport, red_team
from hf_msae.hyperspectral.audits.shortcuts import _without_one
from hf_msae.hyperspectral.subject import make_subject
from tests.hyperspectral.worlds import MODEL, QUICK, audited, of_kind, spectra


def test_a_farm_that_tells_the_target_is_a_severe_shortcut():
    found = audited("farm", "shortcuts", "performance")
    first = found.findings[0]
    assert (first.severity, first.metric, first.audit) == ("severe", "shortcut_index", "shortcuts")
    assert "farm" in first.title and "K" in first.title + first.evidence
    assert 0.3 < first.low < first.value < first.high
    table = found.tables["shortcuts"].set_index("target")
    assert 0.8 < table.loc["K", "random"] > 0.3 + table.loc["K", "left_out"]
    assert table.loc["K", "group_mean"] > 0.7 and table.loc["pH", "group_mean"] < 0.1
    assert 0.3 < table.loc["K", "least_without_one"] < table.loc["K", "shortcut_index"]
    assert "Without any one farm, the index is" in first.evidence
    assert table.loc["K", "decoded"] > 0.9 and table.loc["K", "chance"] < 0.4


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


def test_groups_of_single_rows_are_remarked_on():
    X, y, _, table = spectra(n=60)
    hours = {"hour": np.arange(60).astype(str)}
    found = red_team(MODEL, X, y, hours, features=table, audits=["shortcuts", "bands"], **QUICK)
    assert [remark.split(":")[0] for remark in found.remarks if "60 groups of 60 rows" in remark] == ["hour", "hour"]
    assert found.tables["shortcuts"].empty and "hour" not in set(found.tables["bands"]["name"])


@pytest.mark.parametrize(
    ("groups", "of_spectra", "named"),
    [
        ({}, True, ("farm", "--group_table")),
        ({"field_size": np.arange(60) % 2}, True, ("farm", "--group_table")),
        ({"field_size": np.arange(60) % 2}, False, ("group", "--groups")),
        ({"drone": np.repeat("old", 60), "camera": np.arange(60)}, True, ("drone and camera", "remarks")),
        ({"drone": np.repeat("old", 60), "camera": np.arange(60) % 2}, True, ("the drone is", "remarks")),
        ({"camera": np.arange(60) % 2}, True, ()),
    ],
)
def test_a_verdict_says_that_shortcuts_are_not_known(groups, of_spectra, named, monkeypatch):
    monkeypatch.setattr(RedTeamReport, "figures", lambda self: {})
    X, y, _, table = spectra(n=60)
    features = table if of_spectra else None
    found = red_team(MODEL, X, y[["K"]], groups, features=features, audits=["shortcuts"], **QUICK)
    found = replace(found, findings=(), num_tests=9)
    performance = pd.DataFrame([("K", "r2", 0.5, 0.4, 0.6)], columns=["target", "metric", "value", "low", "high"])
    others = replace(found, tables={**found.tables, "performance": performance})
    page = others.to_html()
    for verdict in (found.verdict(), others.verdict(), page, RedTeamReport.from_dict(others.to_dict())):
        said = str(verdict)
        assert ("whether predictions rest on" in said) == bool(named) and ("nothing wrong" in said) <= (not named)
        assert all(each in said for each in named)
    assert ("farm" in page) == ("farm" in named), "by the verdict and a remark"
    remarks = [each for each in found.remarks if "nothing is known of shortcuts" in each]
    assert len(remarks) == (set(groups) <= {"field_size"}) and ("farm" in "".join(remarks)) == ("farm" in named)


@pytest.mark.parametrize(("groups", "what"), [((), "a farm, an instrument or a date"), (("date",), "the date")])
def test_a_verdict_on_a_model_that_is_not_fitted_again_says_so(groups, what):
    about = {"audits": ["shortcuts", "performance"], "groupings": ["field_size", *groups], "is_spectral": True}
    verdict = RedTeamReport((), {}, (), about | {"is_fixed": True}, num_tests=9).verdict()
    assert f"rest on {what} is not known" in verdict and "not fitted again" in verdict


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


def test_a_class_of_two_rows_is_never_drawn_into_one_fold():
    X = np.random.default_rng(0).normal(size=(40, 3))
    for labels in (np.arange(40) < 2, np.minimum(np.arange(40) // 2, 2)):
        subject = make_subject(LogisticRegression(), X, labels.astype(int), num_folds=2)
        for seed in range(8):
            folds = subject.drawn_folds(subject.folds, np.random.default_rng(seed))
            assert folds[0] != folds[1] and sorted(folds) == sorted(subject.folds)


@pytest.mark.filterwarnings("error")
def test_groups_of_few_rows_are_not_read_and_that_is_said(monkeypatch):
    rng = np.random.default_rng(0)
    pairs = np.arange(60) // 2
    seen = rng.normal(size=(30, 3))[pairs]  # rows of a pair look alike, and have the same target
    y = rng.normal(size=30)[pairs] + 0.1 * rng.normal(size=60)
    sizes = np.concatenate([np.repeat(["a", "b"], 25), np.repeat([f"small {i}" for i in range(5)], 2)])
    X = np.column_stack([seen + 0.05 * rng.normal(size=seen.shape), 5 * (sizes == "a"), 5 * (sizes == "b")])
    groups = {"pair": pairs, "size": sizes}
    found = red_team(KNeighborsRegressor(1), X, y, groups, audits=["shortcuts"], **QUICK)
    (finding,) = [each for each in of_kind(found, "shortcut_index") if "pair" in each.title]
    assert "read from X" not in finding.evidence and "nan" not in finding.evidence
    table = found.tables["shortcuts"].set_index("grouping")
    assert table.loc["pair", ["decoded", "decoded_low", "chance"]].isna().all()
    assert table.loc["size", ["decoded", "chance"]].tolist() == [1, 0.5], "of the 50 rows of a and b"
    remarks = {each.split(":")[0]: each for each in found.remarks if "read from X" in each}
    assert "all 30 groups have" in remarks["pair"] and "without 5 groups" in remarks["size"]
    monkeypatch.setattr(RedTeamReport, "figures", lambda self: {})
    assert "10 rows" in remarks["size"] and "nan" not in found.to_html()


def test_the_index_is_also_that_without_each_group():
    rng = np.random.default_rng(0)
    places = np.repeat([0, 1, 2], [20, 30, 10])
    y = rng.normal(size=(60, 1))
    subject = make_subject(LinearRegression(), rng.normal(size=(60, 2)), y)
    random, unseen = y + 0.1 * rng.normal(size=y.shape), np.where(places[:, None] == 1, 0.0, y)
    least, most = _without_one(subject, places, random, unseen)
    kept = [places != group for group in range(3)]
    indices = [r2_score(y[rows], random[rows]) - r2_score(y[rows], unseen[rows]) for rows in kept]
    assert (least[0], most[0]) == (pytest.approx(min(indices)), pytest.approx(max(indices)))
    assert np.argmin(indices) == 1 and min(indices) < 0 < 0.3 < max(indices), "all of it is of one group"
