"""The winners' hybrid, the challenge's score, and predictions of fields that a model has not seen."""

import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.cross_decomposition import PLSRegression
from sklearn.ensemble import RandomForestRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from hf_msae.hyperspectral import (
    EagleEyesFeatures,
    HybridRegressor,
    MeanSpectrum,
    hyperview_score,
    make_patches,
    predict_out_of_fold,
    score_by_size,
)

pytest.importorskip("pywt", reason="needs the extra hyperspectral")


def kept(patches):
    """The same fields in memory, which are not made again at every look."""
    return replace(patches, pairs=list(patches.pairs))


@pytest.fixture(scope="module")
def patches():
    return kept(make_patches(24, seed=0, edges=(16, 19), small_share=0.5))


@pytest.fixture(scope="module")
def model():
    return HybridRegressor(n_estimators=3, n_neighbors=3, crops=2, random_state=0)


@pytest.fixture(scope="module")
def fitted(model, patches):
    return clone(model).fit(patches[:18], patches.targets[:18])


def test_larger_fields_get_the_forest_and_small_ones_their_neighbors(patches, fitted):
    predictions = fitted.predict(patches)
    table = fitted.features_.transform(patches)
    small = patches.edges <= 11
    scale = patches.targets[:18].max().to_numpy()
    assert 6 < small.sum() < 18
    assert np.allclose(predictions[~small], fitted.forest_.predict(table[~small]) * scale)
    assert not np.isclose(predictions, fitted.forest_.predict(table) * scale)[18:][small[18:]].all(axis=1).any()
    seen = np.flatnonzero(small[:18])
    assert np.allclose(predictions[seen], patches.targets.iloc[seen]), "a known field is its own nearest neighbor"
    expected = RandomForestRegressor(3, random_state=fitted.forest_.random_state)
    expected.fit(table[:18], patches.targets[:18] / scale)
    assert np.array_equal(expected.predict(table), fitted.forest_.predict(table))


def test_neighbors_learn_from_crops_too(patches, fitted):
    assert len(fitted.columns_of_neighbors_) == 1650 and fitted.neighbors_.n_neighbors == 3
    small = patches.edges[:18] <= 11
    windows = [sliding_window_view(patches[int(row)][1], (11, 11)).sum((2, 3)) for row in np.flatnonzero(~small)]
    larger = sum(bool((outside <= 1).any()) for outside in windows)
    assert larger > 3
    assert len(fitted.neighbors_._fit_X) == small.sum() + 2 * larger


def test_it_is_an_estimator(patches, model, fitted):
    again = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(again.predict(patches[:5]), fitted.predict(patches[:5]))
    assert not hasattr(clone(fitted), "forest_") and clone(fitted).get_params()["n_neighbors"] == 3
    pairs = clone(model).set_params(features=EagleEyesFeatures(patches.wavelengths))
    found = pairs.fit(list(patches[:18]), patches.targets[:18]).predict(list(patches[:5]))
    assert np.array_equal(found, fitted.predict(patches[:5])), "pairs will do"
    one = clone(model).set_params(features=EagleEyesFeatures(variant="paper"), crops=0)
    assert one.fit(patches[:6], patches.targets["K"][:6]).predict(patches[:2]).shape == (2,)
    assert one.features_.variant == "paper"


def test_without_small_fields_there_is_only_the_forest(patches, model):
    large = patches[patches.edges > 11]
    model = clone(model).fit(large, large.targets)
    assert model.neighbors_ is None and model.predict(patches[:9]).shape == (9, 4)


def test_score_is_the_mean_of_ratios_to_the_baseline():
    true = np.array([[1.0, 10.0], [3.0, 30.0]])
    train = np.array([[0.0, 0.0], [4.0, 40.0]])
    assert hyperview_score(true, np.full((2, 2), [2, 20]), train) == pytest.approx(1)
    assert hyperview_score(true, true, train) == 0
    assert hyperview_score(true, [[1, 20], [3, 20]], train) == pytest.approx(0.5)
    assert hyperview_score(true[:, 0], [1, 2], train[:, 0]) == pytest.approx(0.5)
    assert hyperview_score(pd.DataFrame(true * 100), true * 100 + 50, train * 100) == pytest.approx(
        (0.25 + 0.0025) / 2
    )
    with pytest.raises(ValueError, match=r"\(1, 2\)"):
        hyperview_score(true, true[:1], train)
    with pytest.raises(ValueError, match="target 1"):
        hyperview_score(np.array([[1.0, 5.0]]), np.array([[1.0, 5.0]]), np.array([[2.0, 5.0]]))


def test_scores_by_size_have_the_classes_of_the_winners_report():
    true = pd.DataFrame({"P": [1.0, 2, 3, 4], "K": [1.0, 2, 3, 5]})
    table = score_by_size(true, true + np.array([1, 2]), np.zeros((4, 2)), np.array([11, 11.5, 45, 200]))
    assert table["edge"].tolist() == ["0-11", "11-40", "40-50", "130+", "all"]
    assert table["fields"].tolist() == [1, 1, 1, 1, 4]
    assert table["P"].tolist() == pytest.approx([1, 1 / 4, 1 / 9, 1 / 16, 4 / 30])
    assert table["score"].iloc[0] == pytest.approx((1 + 4) / 2)


class Remembering(RegressorMixin, BaseEstimator):
    """Predicts the mean of what it saw, unless it saw the patch; then 1,000."""

    def fit(self, X, y):
        self.seen_ = {data.tobytes() for data, _ in X}
        self.mean_ = np.asarray(y).mean(axis=0)
        return self

    def predict(self, X):
        return np.array([np.full(4, 1000.0) if data.tobytes() in self.seen_ else self.mean_ for data, _ in X])


def test_no_field_is_predicted_by_a_model_that_saw_it_or_its_group(patches):
    predictions, baseline = predict_out_of_fold(Remembering(), patches, folds=4)
    assert predictions.max() < 1000 and np.allclose(predictions, baseline)
    assert len(np.unique(baseline[:, 0])) == 4
    farms = patches.groups["farm"]
    _, baseline = predict_out_of_fold(Remembering(), patches, folds=3, groups=farms)
    values = patches.targets.to_numpy()
    for farm in np.unique(farms):
        same = baseline[farms == farm]
        assert np.allclose(same, same[0]), "a farm is never split"
        with_it = np.array([np.allclose(same[0], row) for row in baseline])
        assert np.allclose(same[0], values[~with_it].mean(axis=0))


def test_predictions_of_one_target_are_not_taken_for_all(patches):
    class OfOne(Remembering):
        def predict(self, X):
            return super().predict(X)[:, :1]

    with pytest.raises(ValueError, match=r"OfOne was fitted to 4 targets \(P, K, Mg, pH\).* \(12, 1\)"):
        predict_out_of_fold(OfOne(), patches, folds=2)


def test_features_predict_what_is_known_to_be_there():
    patches = kept(make_patches(90, seed=0, small_share=1, label_noise=0.1))
    model = make_pipeline(MeanSpectrum(), FunctionTransformer(np.log), PLSRegression(12))
    predictions, baseline = predict_out_of_fold(model, patches, folds=2)
    scores = score_by_size(patches.targets, predictions, baseline, patches.edges).set_index("edge")
    assert scores.loc["all", "score"] < 0.5
    shuffled = patches.targets.sample(frac=1, random_state=0).reset_index(drop=True)
    predictions, baseline = predict_out_of_fold(model, replace(patches, targets=shuffled), folds=2)
    assert score_by_size(shuffled, predictions, baseline, patches.edges)["score"].iloc[-1] > 0.9
    with pytest.raises(ValueError, match="no targets"):
        predict_out_of_fold(model, replace(patches, targets=None))
