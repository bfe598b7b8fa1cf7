"""Which models and arrays a red team takes, and how it names what it refuses."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.cross_decomposition import PLSRegression
from sklearn.ensemble import (
    BaggingRegressor,
    GradientBoostingRegressor,
    RandomForestRegressor,
    StackingClassifier,
    StackingRegressor,
    VotingRegressor,
)
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeRegressor

from hf_msae.hyperspectral import red_team
from hf_msae.hyperspectral.audits.pruning import _impurity
from hf_msae.hyperspectral.reading import read_targets
from hf_msae.hyperspectral.subject import make_subject
from tests.hyperspectral.worlds import MODEL, spectra


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
