"""Red teaming straight from patches: the hybrid, pipelines and models of features, and what is kept between runs."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.base import ClassifierMixin
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hf_msae.hyperspectral import (
    HybridRegressor,
    MeanSpectrum,
    RedTeamReport,
    VisionRegressor,
    load_patches,
    make_patches,
    red_team,
)
from hf_msae.hyperspectral.audits.explainers import explain
from hf_msae.hyperspectral.from_patches import inputs_of_patches
from hf_msae.hyperspectral.hybrid_of_features import EDGE
from hf_msae.hyperspectral.subject import make_subject

pytest.importorskip("pywt", reason="needs the extra hyperspectral")
QUICK = {"num_folds": 2, "num_bootstrap": 100, "progress": False}


@pytest.fixture(scope="module")
def patches():
    made = make_patches(32, seed=0, edges=(15, 16), small_share=0.5)
    return replace(made, pairs=list(made.pairs))


@pytest.fixture(scope="module")
def hybrid():
    return HybridRegressor(MeanSpectrum(), n_estimators=4, n_neighbors=3, crops=2, random_state=0)


@pytest.fixture(scope="module")
def subject(patches, hybrid):
    return make_subject(**inputs_of_patches(hybrid, patches), num_folds=2)


def test_targets_and_groups_come_from_the_patches(patches):
    found = red_team(Ridge(1e-3), patches, audits=["performance"], **QUICK)
    assert found.about["targets"] == ["P", "K", "Mg", "pH"] and found.about["columns"] == 150
    assert found.about["groupings"] == ["farm", "date", "instrument", "field_size"]
    by_hand = red_team(
        Ridge(1e-3), MeanSpectrum().fit_transform(patches), patches.targets, {}, audits=["performance"], **QUICK
    )
    predictions = found.tables["predictions"]
    assert predictions["id"].tolist() == [name for name in patches.ids for _ in range(4)]
    assert predictions.drop(columns="id").equals(by_hand.tables["predictions"])
    some = red_team(Ridge(), patches, patches.targets["K"], {}, audits=["performance"], **QUICK)
    assert some.about["targets"] == ["K"] and some.about["groupings"] == []
    labels = np.where(patches.targets["K"] > patches.targets["K"].median(), "rich", "poor")
    assert red_team(LogisticRegression(), patches, labels, audits=["performance"], **QUICK).about["targets"] == [
        "rich"
    ]


def test_patches_that_were_dropped_are_remarked_on(patches):
    pairs = [(np.full_like(data, np.nan) if row in (1, 3) else data, mask) for row, (data, mask) in enumerate(patches)]
    options = {"ids": [f"field {row}" for row in range(32)], "invalid": "drop", "progress": False}
    with pytest.warns(UserWarning, match="2 patches are left out"):
        found = load_patches(pairs, wavelengths=patches.wavelengths, **options)
    assert found.dropped == ("field 1", "field 3") == found[:3].dropped
    subject = make_subject(**inputs_of_patches(Ridge(), found, np.arange(30.0)))
    assert subject.ids[:3] == ("field 0", "field 2", "field 4")
    (remark,) = subject.remarks
    assert remark.startswith("2 invalid patches") and "field 1, field 3" in remark


def test_the_first_step_of_a_pipeline_makes_the_features(patches):
    found = inputs_of_patches(make_pipeline(MeanSpectrum(), StandardScaler(), Ridge()), patches)
    assert [type(step).__name__ for step in found["model"]] == ["StandardScaler", "Ridge"]
    assert isinstance(found["transformer"], MeanSpectrum) and found["X"].shape == (32, 150)
    assert found["features"]["wavelength"].iloc[0] == pytest.approx(462.08)


def test_the_hybrid_of_features_is_the_hybrid(patches, hybrid, subject):
    """The same forest and neighbors as from patches, but for the draws of crops, which only neighbors see."""
    rows = np.arange(24)
    fitted = subject.fit(rows)
    expected = HybridRegressor(MeanSpectrum(), n_estimators=4, n_neighbors=3, crops=2, random_state=0)
    expected.fit(patches[:24], patches.targets[:24])
    small = patches.edges <= 11
    assert 4 < small[24:].sum() < 8 and subject.features["feature"].iloc[-1] == EDGE
    own, of_patches = fitted(subject.X), expected.predict(patches)
    seen = np.flatnonzero(small[:24])
    assert np.allclose(own[seen], of_patches[seen]), "a known field is its own nearest neighbor"
    model = fitted.model.model_
    owners = subject.model.fields.crops[1]
    assert len(owners) > 5 and (~small)[owners].all()
    assert len(model.neighbors_._fit_X) == len(expected.neighbors_._fit_X) == small[:24].sum() + (owners < 24).sum()
    assert np.corrcoef(own[~small].ravel(), of_patches[~small].ravel())[0, 1] > 0.95
    moved = subject.X.copy()
    moved[:, -1] = 40
    assert np.array_equal(fitted(moved), fitted(np.column_stack([moved[:, :-1], np.full(32, 99.0)])))
    assert not np.allclose(fitted(moved)[small], own[small]), "the edge decides who predicts"


def test_the_hybrid_does_with_some_columns_and_rows_twice(subject):
    rows = np.array([0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9])
    without = subject.fit(rows, np.arange(5, 20))
    assert without(subject.X).shape == (32, 4) and not without.model.small(subject.X[:, 5:20]).any()
    assert subject.fit(rows, np.array([150])).model.small(subject.X[:, [150]]).sum() == (subject.X[:, -1] <= 11).sum()


def test_the_forest_of_the_hybrid_is_explained(subject):
    found = explain(subject, subject.fit(np.arange(32)), np.arange(12), np.arange(12, 30))
    assert found.method.startswith("TreeSHAP") and found.largest_gap < 1e-9
    assert (subject.X[found.rows, -1] > 11).all() and 0 < len(found.rows) < 12
    assert (found.values[:, -1] == 0).all() and np.abs(found.values[:, :-1]).sum() > 0
    assert "neighbors" in found.remarks[0]


def test_forests_of_scaled_targets_are_explained_in_units_of_the_targets(patches):
    model = TransformedTargetRegressor(RandomForestRegressor(3, random_state=0), transformer=StandardScaler())
    subject = make_subject(model, patches.mean_spectra, patches.targets)
    fitted = subject.fit(np.arange(32))
    found = explain(subject, fitted, np.arange(6), np.arange(6, 20))
    assert found.method.startswith("TreeSHAP") and found.largest_gap < 1e-9
    spread = fitted(subject.X[:6]) - fitted(subject.X[:6]).mean(axis=0)
    sums = found.values.sum(axis=1)
    assert np.allclose(sums - sums.mean(axis=0), spread)


def test_what_is_missing_or_unknown_is_named(patches):
    with pytest.raises(ValueError, match="no targets"):
        red_team(Ridge(), replace(patches, targets=None), **QUICK)
    with pytest.raises(ValueError, match="y is missing"):
        red_team(Ridge(), patches.mean_spectra, **QUICK)
    with pytest.raises(ValueError, match="patches already"):
        red_team(Ridge(), patches, patches=patches, **QUICK)
    with pytest.raises(TypeError, match="ClassifierOfPatches"):
        red_team(ClassifierOfPatches(), patches, **QUICK)


class Corner(VisionRegressor):
    """Predicts from the corner of an image, as networks may; what its features are nobody knows."""

    def __init__(self, band=75):
        self.band = band

    def predict(self, X):
        return np.array([data[self.band, 0, 0] for data, _ in X])


class Weights(int):
    """Weights, of which nothing is printed."""

    def __repr__(self):
        return "Weights()"


class ClassifierOfPatches(ClassifierMixin, Corner):
    """A classifier that is given patches."""


def test_networks_predict_from_patches_also_attacked_ones(patches, tmp_path):
    model = Corner()
    audits = ["performance", "attributions", "pruning", "attacks", "stability"]
    options = {"audits": audits, "num_attacked": 3, "num_seeds": 2, "output_dir": tmp_path, **QUICK}
    found = red_team(model, patches, patches.targets["K"], {}, **options)
    assert np.allclose(found.tables["predictions"]["prediction"], model.predict(patches).ravel(), rtol=1e-5)
    assert sum("predicts from patches" in remark for remark in found.remarks) == 2
    assert "attributions" not in found.tables and found.about["model"] == "Corner"
    attacks = found.tables["attacks"].set_index(["attack", "strength"])["change"]
    assert attacks["gain", 0.2] > attacks["gain", 0.01] > 0 == attacks["erosion", 1]
    assert attacks["crop", 0.75] > 0
    given = inputs_of_patches(model, patches, patches.targets["K"], output_dir=tmp_path)  # the features are kept
    assert np.array_equal(
        make_subject(**given, num_folds=2).predictions[:, 0], found.tables["predictions"]["prediction"]
    )
    other = red_team(Corner(Weights(20)), patches, patches.targets["K"], {}, **options | {"audits": ["performance"]})
    last = red_team(Corner(Weights(90)), patches, patches.targets["K"], {}, **options | {"audits": ["performance"]})
    assert not other.tables["predictions"].equals(last.tables["predictions"]), "not what is kept of other weights"
    with pytest.raises(ValueError, match="no patch"):
        given["model"].fit(given["X"], None, np.arange(32)).predict(given["X"] + 1)


def test_networks_are_not_fitted_again(patches, monkeypatch):
    monkeypatch.setattr(RedTeamReport, "figures", lambda self: {})
    dates = np.arange(len(patches)) % 2
    found = red_team(
        Corner(), patches, patches.targets["K"], {"date": dates}, audits=["shortcuts", "stability"], **QUICK
    )
    assert found.tables == {"spectrum": found.tables["spectrum"]} and found.num_tests == 0
    assert sum("not fitted again" in remark for remark in found.remarks) == 2
    assert "its model did not see" not in found.to_html()


class Counting(MeanSpectrum):
    """Counts what it transforms."""

    calls = 0

    def transform(self, X):
        Counting.calls += 1
        return super().transform(X)


@pytest.mark.parametrize("source", ["synthetic", "files", "memory"])
def test_features_are_kept_by_what_they_are_made_of(source, patches, tmp_path):
    def opened(seed=0):
        made = make_patches(6, seed, edges=(11, 12))
        if source == "files":
            if not (tmp_path / str(seed)).is_dir():
                made.save(tmp_path / str(seed))
            return load_patches(tmp_path / str(seed), progress=False)
        return made if source == "synthetic" else replace(made, pairs=list(made.pairs))

    def features(patches, transformer=None):
        before = Counting.calls
        found = inputs_of_patches(Ridge(), patches, transformer=transformer or Counting(), output_dir=tmp_path / "o")
        return found["X"], Counting.calls - before

    first, calls = features(opened())
    again, repeated = features(opened())
    assert (calls, repeated) == (1, 0) and np.array_equal(first, again)
    assert features(opened(seed=1))[1] == 1 and features(opened()[2:])[1] == 1
    assert features(opened()[2:])[1] == 0
    assert features(opened(), Counting(opened().wavelengths))[1] == 1, "another setting"
    learned = Counting().fit(opened())
    learned.offset_ = 1  # what it has learned counts, too
    assert features(opened(), learned)[1] == 1
    for kept in (tmp_path / "o" / "features").iterdir():
        kept.write_bytes(b"damaged")
    assert features(opened())[1] == 1


def test_features_of_a_class_that_was_typed_in_are_kept_by_what_it_does(tmp_path):
    patches = make_patches(6, 0, edges=(11, 12))

    def features(factor):
        known = {"__name__": "__main__", "MeanSpectrum": MeanSpectrum}
        exec(f"class Mine(MeanSpectrum):\n    def transform(self, X):\n"
             f"        return super().transform(X) * {factor}", known)  # fmt: skip
        return inputs_of_patches(Ridge(), patches, transformer=known["Mine"](), output_dir=tmp_path)["X"]

    assert np.allclose(features(2), 2 * features(1))


def test_making_fields_makes_no_pixels(monkeypatch):
    monkeypatch.setattr("hf_msae.hyperspectral.generator.SyntheticFields.__getitem__", None)
    made = make_patches(5, edges=(12, 13))[1:]
    assert len(made) == 4 and made.sizes["height"].between(11, 13).all()
    assert made.known_spectra is None


def test_findings_of_a_target_that_is_a_letter_are_joined_with_those_of_others():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 3))
    y = pd.DataFrame(X[:, :2] + 0.3 * rng.normal(size=(200, 2)), columns=["P", "red"])  # as in "Predictions"
    found = red_team(Ridge(500), X, y, audits=["performance"], **QUICK)
    (slope,) = (finding for finding in found.findings if finding.metric == "calibration_slope")
    assert (
        slope.severity == "severe"
        and "Of the same kind: " in slope.evidence
        and "red" in slope.evidence.split("kind: ")[1]
    )


def test_targets_in_another_order_than_the_patches_are_refused(patches):
    names = [f"field {number}" for number in range(len(patches))]
    named = replace(patches, ids=names)
    y = pd.DataFrame(patches.targets.to_numpy(), index=pd.Index(names, dtype=object), columns=patches.targets.columns)
    with pytest.raises(ValueError, match="y has the rows of the patches in another order: row 0 is field "):
        inputs_of_patches(Ridge(), named, y[::-1])
    assert inputs_of_patches(Ridge(), named, y)["y"] is y
