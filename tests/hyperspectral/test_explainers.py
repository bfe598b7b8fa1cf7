"""SHAP values: exact where they can be, additive everywhere."""

import numpy as np
import pytest
from sklearn.cross_decomposition import PLSRegression
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hf_msae.hyperspectral.audits import explainers
from hf_msae.hyperspectral.audits.explainers import clusters, explain
from hf_msae.hyperspectral.subject import make_subject

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 6))
Y = np.stack([X[:, 0] - X[:, 2], 2 * X[:, 3]], axis=1)
ROWS, BACKGROUND = np.arange(8), np.arange(20, 50)


def explained(model, y=Y, X=X):
    subject = make_subject(model, X, y)
    return explain(subject, subject.fit(np.arange(len(X))), ROWS, BACKGROUND)


@pytest.mark.parametrize("model", [Ridge(), PLSRegression(3), make_pipeline(StandardScaler(), Ridge())], ids=str)
def test_affine_models_have_exact_values(model):
    found = explained(model)
    fitted = model.fit(X, Y)
    slopes = np.stack([fitted.predict(row[None]) - fitted.predict(0 * row[None]) for row in np.eye(6)], axis=1)[0]
    assert found.values == pytest.approx(slopes[None] * (X[ROWS] - X[BACKGROUND].mean(axis=0))[:, :, None], abs=1e-9)
    assert found.method.startswith("closed form") and found.largest_gap < 1e-9


@pytest.mark.parametrize(
    ("model", "y", "method"),
    [
        (RandomForestRegressor(5, random_state=0), Y, "TreeSHAP, tree_path_dependent"),
        (make_pipeline(StandardScaler(), ExtraTreesRegressor(5, random_state=0)), Y[:, 0], "TreeSHAP"),
        (RandomForestClassifier(5, random_state=0), X[:, 0] > 0, "TreeSHAP"),
        (KNeighborsRegressor(5), Y, "sampled permutations"),
        (GradientBoostingClassifier(n_estimators=2), np.digitize(X[:, 0], [-0.5, 0.5]), "sampled permutations"),
    ],
    ids=lambda each: type(each).__name__,
)
def test_values_sum_to_predictions(model, y, method):
    found = explained(model, y)
    assert found.method.startswith(method)
    assert found.largest_gap < 1e-9
    strongest = np.abs(found.values[:, :, 0]).mean(axis=0).argmax()
    assert strongest in (0, 2)


def test_deep_trees_are_explained_by_interventions():
    rng = np.random.default_rng(0)
    sparse = (rng.random((200, 200)) < 1.5 / 200) * rng.lognormal(0, 2, size=(200, 200))
    y = np.exp(3 * rng.normal(size=200)) * (sparse.sum(axis=1) > 0) + sparse @ rng.lognormal(size=200)
    model = RandomForestRegressor(3, random_state=0)
    assert max(tree.tree_.max_depth for tree in model.fit(sparse, y).estimators_) > 64
    found = explained(model, y, sparse)
    assert found.method == "TreeSHAP, interventional" and found.largest_gap < 1e-5
    assert "levels deep" in found.remarks[0]


def test_shallower_trees_are_explained_if_nothing_else_is_additive(monkeypatch):
    class ExplainerError(Exception):
        """As in shap."""

    real = explainers.tree_shap

    def tree_shap(parts, X, background):
        if max(map(explainers.depth, (part.model for part in parts))) > 3:
            raise ExplainerError("Additivity check failed!")
        return real(parts, X, background)

    monkeypatch.setattr(explainers, "tree_shap", tree_shap)
    monkeypatch.setattr(explainers, "_MEND_DEPTH", 3)
    known, subject = BACKGROUND, make_subject(RandomForestRegressor(5, random_state=0), X, Y)
    found = explain(subject, subject.fit(known, seed=7), ROWS, BACKGROUND)
    assert found.method == "TreeSHAP, max_depth=3" and found.largest_gap < 1e-9
    shallow, deep = (
        RandomForestRegressor(5, random_state=7, max_depth=m).fit(X[known], Y[known]).predict(X[ROWS])
        for m in (3, None)
    )
    base = shallow - found.values.sum(axis=1)
    assert base == pytest.approx(np.tile(base[:1], (len(ROWS), 1))), "explained is a model that did not see the rows"
    same = min(np.corrcoef(shallow[:, target], deep[:, target])[0, 1] for target in range(2))
    assert len(found.remarks) == 3 and f"(correlation of predictions {same:.3f})" in found.remarks[-1]


def test_values_that_are_not_additive_are_computed_again(monkeypatch):
    modes, real = [], explainers.tree_shap

    def tree_shap(parts, X, background):
        modes.append(background is not None)
        values, base, predicted = real(parts, X, background)
        return (values if len(modes) > 1 else 1.1 * values), base, predicted

    monkeypatch.setattr(explainers, "tree_shap", tree_shap)
    found = explained(RandomForestRegressor(5, random_state=0))
    assert modes == [False, True]  # along paths, then interventional
    assert found.method == "TreeSHAP, interventional" and found.largest_gap < 1e-3
    assert "was off by up to" in found.remarks[0]


def test_correlated_columns_are_clusters():
    wide = np.concatenate([X, X[:, :1] + 0.01 * X[:, 1:2], -X[:, 2:3]], axis=1)
    found = clusters(wide)
    assert found[0] == found[6] and found[2] == found[7]
    assert len(set(found)) == 6
    assert len(set(clusters(wide, most=3))) == 3


def test_columns_of_wide_models_are_explained_together(monkeypatch):
    monkeypatch.setattr(explainers, "_MOST_PLAYERS", 3)
    found = explained(KNeighborsRegressor(5))
    assert found.largest_gap < 1e-9
    assert "6 columns were explained as 3 groups" in found.remarks[0]
