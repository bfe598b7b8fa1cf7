"""Red teaming: a sound model, all audits of one with a leaking band, what is kept, and what is refused."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.figure import Figure
from scipy.stats import t as student
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.cross_decomposition import PLSRegression
from sklearn.ensemble import (
    BaggingRegressor,
    GradientBoostingRegressor,
    RandomForestRegressor,
    StackingClassifier,
    StackingRegressor,
    VotingRegressor,
)
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.tree import DecisionTreeRegressor

from hf_msae.hyperspectral import RedTeamReport, red_team
from hf_msae.hyperspectral.audits.outcome import Outcome
from hf_msae.hyperspectral.audits.pruning import _impurity
from hf_msae.hyperspectral.audits.stability import attribution_shift
from hf_msae.hyperspectral.reading import read_targets
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


@pytest.mark.parametrize("name", [None, "mine.py:boosting"])
def test_a_model_of_one_target_says_how_to_test_several(name):
    X, y, _, _ = spectra(n=60)
    called = name or "GradientBoostingRegressor"
    with pytest.raises(ValueError, match=rf"^{called} .*K, pH.*--targets.*MultiOutputRegressor"):
        make_subject(GradientBoostingRegressor(n_estimators=1), X[:, :3], y, model_name=name).fit(np.arange(40))


def test_a_model_that_fits_no_target_is_not_said_to_have_too_many():
    X, y, _, _ = spectra(n=60)
    with pytest.raises(ValueError, match=r"^pls cannot be fitted to 40 rows of 5 columns.*n_components") as error:
        make_subject(PLSRegression(12), X[:, :5], y, model_name="pls").fit(np.arange(40))
    assert "--targets" not in str(error.value)
    with pytest.raises(TypeError, match="head has no fit"):
        red_team("model", X, y, model_name="head")


class OwnModel(RegressorMixin, BaseEstimator):
    """Least squares whose `fit` returns nothing, and whose predictions a function makes something of."""

    def __init__(self, shaped=np.asarray):
        self.shaped = shaped

    def fit(self, X, y):
        self.coefficients_ = np.linalg.lstsq(X, y, rcond=None)[0]

    def predict(self, X):
        return self.shaped(X @ self.coefficients_)


@pytest.mark.parametrize(
    ("shaped", "shape"),
    [(lambda p: p[:, :1], r"\(12, 1\)"), (lambda p: p[:, 0], r"\(12,\)"), (np.transpose, r"\(2, 12\)")],
)
def test_predictions_of_one_target_are_not_taken_for_all(shaped, shape):
    X, y, _, _ = spectra(n=60)
    expected = (
        rf"^mine\.py:own was fitted to 2 targets \(K, pH\), but predicts .* {shape} for 12 .* \(12, 2\).*--targets K"
    )
    with pytest.raises(ValueError, match=expected):
        _ = make_subject(OwnModel(shaped), X, y, model_name="mine.py:own").predictions
    one = make_subject(OwnModel(lambda p: p[:, None].tolist()), X, y["K"]).predictions
    assert np.allclose(one, make_subject(LinearRegression(fit_intercept=False), X, y["K"]).predictions)


def test_predictions_that_are_not_finite_are_refused():
    X, y, _, _ = spectra(n=60)
    with pytest.raises(ValueError, match="what OwnModel predicts is nan in row 0, K, and not finite in 10 places"):
        _ = make_subject(OwnModel(lambda p: np.where(np.arange(len(p))[:, None] < 1, np.nan, p)), X, y).predictions


def test_labels_may_be_a_table_of_one_column():
    labels = pd.DataFrame({"soil": ["clay", "sand", "clay"]})
    Y, targets, classes = read_targets(labels, 3, classify=True)
    assert Y.tolist() == [[0], [1], [0]] and classes.tolist() == ["clay", "sand"] and "sand" in targets[0]
    with pytest.raises(ValueError, match="choose one of soil, more"):
        read_targets(labels.assign(more=1), 3, classify=True)


@pytest.mark.parametrize(
    ("values", "name", "targets"),
    [
        ([0.0, 1.0, 1.0], "acid", ("acid 1",)),  # as tables of targets hold them
        ([0.0, 1.0, 1.0], None, ("1",)),
        ([3.0, 1.0, 2.0], "texture", ("texture 1", "texture 2", "texture 3")),
        ([0.5, 1.5, 1.5], "level", ("level 1.5",)),
    ],
)
def test_classes_that_are_numbers_have_the_name_of_their_column(values, name, targets):
    _, found, classes = read_targets(pd.Series(values, name=name), 3, classify=True)
    assert found == targets and len(classes) == len(set(values))


def test_labels_that_are_missing_or_text_for_a_regressor_are_named():
    labels = pd.Series(["clay", None, "sand", np.nan], name="soil")
    with pytest.raises(ValueError, match="soil has no value in row 1: leave out 2 such rows"):
        read_targets(labels, 4, classify=True)
    with pytest.raises(ValueError, match=r"soil must be numbers for a regressor.*'clay'.*ClassifierMixin"):
        read_targets(labels.fillna("loam"), 4, classify=False)


def test_a_classifier_without_classes_is_named():
    class Mine(ClassifierMixin, OwnModel):
        def predict(self, X):
            return super().predict(X) > 0

    X, y, _, _ = spectra(n=60)
    with pytest.raises(ValueError, match=r"Mine has no classes_: its fit must set self\.classes_"):
        _ = make_subject(Mine(), X, y["K"] > y["K"].median()).predictions


def test_probabilities_of_another_shape_are_refused():
    class OfSecond(LogisticRegression):
        def predict_proba(self, X):
            return super().predict_proba(X)[:, 1:]

    X, y, _, _ = spectra(n=60)
    with pytest.raises(ValueError, match=r"OfSecond returns an array of shape \(12, 1\) for 12 rows of 2 classes"):
        _ = make_subject(OfSecond(), X, y["K"] > y["K"].median()).predictions


def test_a_classifier_is_not_given_measurements():
    y = pd.Series(np.linspace(5, 8, 30), name="pH")
    with pytest.raises(ValueError, match="pH has 30 values"):
        read_targets(y, 30, classify=True)
    with pytest.raises(ValueError, match="row 2, pH"):
        read_targets(y.where(y.index != 2), 30, classify=True)


def test_input_is_checked():
    X, y, groups, table = spectra(n=60)
    nan, named = X.copy(), pd.DataFrame(X, columns=table["feature"])
    nan[4, 7] = np.nan
    for given, options, said in (
        ((MODEL, X[:3], y[:3]), {}, "3 rows"),
        ((MODEL, nan, y), {}, "row 4, column 7"),
        ((MODEL, named.replace(X[4, 1], np.inf), y), {}, "row 4, 474 nm"),
        ((MODEL, X, y.replace(y["pH"][4], np.nan)), {}, "row 4, pH"),
        ((MODEL, X, y[:59]), {}, "59 rows"),
        ((MODEL, X, y, {"farm": groups["farm"][:5]}), {}, "'farm'"),
        ((MODEL, X, y, {"half": groups["farm"]}), {}, "'half'"),
        ((MODEL, X, y), {"features": table.drop(columns="band")}, "'band'"),
        ((MODEL, X, y), {"audits": ["shortcut"]}, "'shortcut'"),
        ((MODEL, X, y.assign(K=1.0)), {}, "target K is 1"),
        ((LogisticRegression(), X, np.where(np.arange(60) == 3, "rare", "usual")), {}, "class 'rare' of y"),
        ((LogisticRegression(), X, np.full(60, "usual")), {}, "class 'usual'"),
    ):
        with pytest.raises(ValueError, match=said):
            red_team(*given, **options)
    with pytest.raises(TypeError, match="str"):
        red_team("model", X, y)


def test_a_model_that_predicts_only_once_it_is_fitted_is_one():
    X, y, *_ = spectra(n=60)
    models = [("a", LinearRegression())], [("a", LogisticRegression())]
    stacks = make_pipeline(StandardScaler(), StackingRegressor(models[0])), StackingClassifier(models[1])
    for model, target in zip(stacks, (y["K"], pd.Series(y["K"] > 0, name="K")), strict=True):
        assert not hasattr(model, "predict")
        found = make_subject(model, X, target)
        assert found.targets == ("K",) and np.isfinite(found.predictions).all()
    with pytest.raises(TypeError, match="StandardScaler has no fit and predict"):
        make_subject(StandardScaler(), X, y)


def test_impurity_is_that_of_columns_or_left_out():
    X, y, *_ = spectra(n=60)
    forest, tree = RandomForestRegressor(2, random_state=0), DecisionTreeRegressor(random_state=0)
    mixed = VotingRegressor([("a", forest), ("b", LinearRegression())]).fit(X, y["K"])
    assert _impurity(mixed) is None  # numpy took the forest for an array of its trees
    alike = VotingRegressor([("a", forest), ("b", forest)]).fit(X, y["K"])
    assert np.allclose(_impurity(alike), forest.fit(X, y["K"]).feature_importances_)
    assert len(_impurity(BaggingRegressor(tree, 2).fit(X, y["K"]))) == X.shape[1]
    assert _impurity(BaggingRegressor(tree, 2, max_features=0.5).fit(X, y["K"])) is None


def test_a_model_without_errors_may_need_few_columns():
    X = np.random.default_rng(0).integers(0, 2, (80, 12)).astype(float)

    class First(ClassifierMixin, BaseEstimator):
        def fit(self, X, y):
            self.classes_, self.place_ = np.unique(y), int(np.argmax((X == y[:, None]).mean(axis=0)))
            return self

        def predict(self, X):
            return X[:, self.place_].astype(int)

    found = red_team(First(), X, X[:, 3].astype(int), audits=["pruning"], progress=False).tables["smallest"]
    assert found.set_index("ranking")["features"][["attribution", "permutation"]].tolist() == [1, 1]


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


def test_rows_of_pandas_in_another_order_are_refused():
    X, y, groups, _ = spectra(n=60)
    X, y = pd.DataFrame(X), pd.Series(np.asarray(y["K"]), name="K")
    farm, shuffled = pd.Series(np.asarray(groups["farm"])), np.random.default_rng(0).permutation(60)
    for given in (
        (y.iloc[shuffled],),
        (y, farm.iloc[shuffled]),
        (y, {"farm": farm.iloc[shuffled]}),
        (y, pd.DataFrame({"farm": farm}).iloc[shuffled]),
    ):
        with pytest.raises(
            ValueError, match=f"rows of X in another order: row 0 is {shuffled[0]} in (y|groups.*) and 0"
        ):
            make_subject(MODEL, X, *given)
    subject = make_subject(MODEL, X, y.iloc[shuffled].reset_index(drop=True), farm)
    np.testing.assert_array_equal(subject.Y[:, 0], y.iloc[shuffled])


def test_columns_of_a_table_are_groupings():
    X, y, groups, _ = spectra(n=60)
    table = pd.DataFrame({"farm": np.asarray(groups["farm"]), "year": np.arange(60) % 3})
    found = make_subject(MODEL, X, y, table).groups
    assert list(found) == ["farm", "year"] and found["year"].tolist() == [str(row % 3) for row in range(60)]
    with pytest.raises(ValueError, match="two groupings are called 'farm'"):
        make_subject(MODEL, X, y, table.set_axis(["farm", "farm"], axis=1))
    with pytest.raises(ValueError, match="two columns of y are called 'K'"):
        make_subject(MODEL, X, y.iloc[:, :2].set_axis(["K", "K"], axis=1))


def test_masked_values_and_fractions_of_numbers_are_named():
    X, y, groups, _ = spectra(n=60)
    values = np.asarray(y["K"])
    mask = np.arange(60) == 7
    for given, named in (
        ((np.ma.masked_array(X, np.broadcast_to(mask[:, None], X.shape)), values), "X masks"),
        ((X, np.ma.masked_array(values, mask)), "y masks 1 of its values, the first in row 7"),
        ((X, values, {"farm": np.ma.masked_array(groups["farm"], mask)}), "groups 'farm' masks 1 .* row 7"),
    ):
        with pytest.raises(ValueError, match=named):
            make_subject(MODEL, *given)
    for name in ("num_folds", "num_bootstrap", "num_attacked", "num_explained", "num_seeds"):
        with pytest.raises(ValueError, match=rf"{name} must be an integer .* got 200\.0"):
            red_team(MODEL, X, y, **{name: 200.0})
