"""Attacks do to spectra and patches what they say."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import Ridge

from hf_msae.hyperspectral import EagleEyesFeatures, MeanSpectrum, make_patches, red_team
from hf_msae.hyperspectral.audits import perturbations as p

SPECTRUM = np.linspace(1.0, 3.0, 9)


def rng():
    return np.random.default_rng(0)


def test_spectral_attacks():
    assert np.abs(p.gain(SPECTRUM, 0.1, rng()) / SPECTRUM - 1) == pytest.approx(0.1)
    assert np.abs(p.offset(SPECTRUM, 0.1, rng()) - SPECTRUM) == pytest.approx(0.2)  # of a mean of 2
    assert np.std(p.noise(np.ones(10_000), 0.1, rng())) == pytest.approx(0.1, rel=0.05)
    tilted = p.tilt(SPECTRUM, 0.1, rng()) / SPECTRUM - 1
    assert abs(tilted[0]) == pytest.approx(0.1) and tilted[0] == pytest.approx(-tilted[-1])
    assert tilted[4] == pytest.approx(0)
    assert p.shifted(SPECTRUM, 1)[1:] == pytest.approx(SPECTRUM[:-1])
    assert p.shifted(SPECTRUM, -0.5)[:-1] == pytest.approx(SPECTRUM[:-1] + 0.125)
    hazy = p.haze(SPECTRUM, 0.2, rng(), wavelengths=np.linspace(462, 942, 9))
    assert hazy[0] == pytest.approx(0.8 * SPECTRUM[0] + 0.2 * 2)  # of a mean of 2


@pytest.mark.parametrize("number", [1, 3, 9])
def test_lost_bands_are_filled_from_their_neighbors(number):
    spike = SPECTRUM.copy()
    spike[4] += 10
    found = np.array([p.dropout(spike, number, np.random.default_rng(seed)) for seed in range(30)])
    assert found.shape == (30, 9)
    if number == 1:  # on a line, only the spike and its filling differ from what was there
        assert set(found[:, 4].round(6)) == {SPECTRUM[4], spike[4]}
    cube = p.dropout(np.repeat(SPECTRUM[:, None], 4, axis=1), number, rng())
    assert cube.shape == (9, 4)


def test_spatial_attacks():
    mask = np.ones((9, 9), dtype=bool)
    mask[2:7, 2:7] = False
    data = np.arange(2 * 81.0).reshape(2, 9, 9)
    _, eroded = p.erode((data, mask), 1, rng())
    assert (~eroded).sum() == 9
    _, last = p.erode((data, mask), 5, rng())
    assert (~last).sum() == 1 and not last[4, 4]
    _, full = p.erode((data, np.zeros((9, 9), dtype=bool)), 1, rng())
    assert (~full).sum() == 49  # the edge of the picture is an edge of the field
    part, cut = p.crop((data, mask), 0.3, rng())
    assert part.shape == (2, 6, 6) and cut.shape == (6, 6) and (~cut).any()
    assert p.crop((data, mask), 0.75, rng())[0].shape == (2, 5, 5)  # not less, which has no singular values
    assert p.crop((data[:, :3, 3:], mask[:3, 3:]), 0.75, rng())[1].shape == (3, 5)


@pytest.mark.parametrize("attack", p.SPATIAL, ids=lambda each: each.name)
def test_features_are_computed_of_the_smallest_fields_after_the_strongest_attack(attack):
    pytest.importorskip("pywt", reason="needs the extra hyperspectral")
    patches = make_patches(2, small_share=1)
    changed = [attack.spatial(patch, attack.strengths[-1], rng()) for patch in patches]
    features = EagleEyesFeatures().fit(patches)
    assert features.transform(changed).shape == (2, 2400)


def test_a_drift_is_all_four_changes():
    assert p.drifted(SPECTRUM, np.zeros(4)) == pytest.approx(SPECTRUM)
    assert p.drifted(SPECTRUM, np.array([0.1, 0, 0, 0])) == pytest.approx(1.1 * SPECTRUM)
    assert p.drifted(SPECTRUM, np.array([0, 0, 0, 1.0])) == pytest.approx(p.shifted(SPECTRUM, 1))


@pytest.fixture(scope="module")
def patches():
    return make_patches(30, edges=(11, 14), wavelengths=np.linspace(462, 942, 15))


def test_patches_are_attacked(patches):
    transformer = MeanSpectrum().fit(patches)
    X = transformer.transform(patches)
    options = {"patches": patches, "transformer": transformer, "features": transformer.feature_table}
    options |= {"audits": ["attacks"], "num_attacked": 3, "num_bootstrap": 100, "progress": False}
    report = red_team(Ridge(1e-3), X, patches.targets[["K"]], **options)
    table = report.tables["attacks"]
    assert {"erosion", "crop", "haze", "band dropout"} < set(table["attack"])
    assert table["error"].notna().all() and len(report.remarks) == 3  # haze; K is not predicted
    for seed in (1, 3):  # with which both of two patches would be in one half
        few = red_team(Ridge(1e-3), X, patches.targets[["K"]], **options | {"num_attacked": 2, "seed": seed})
        assert few.tables["worst_case"]["loss"].notna().all()
    with pytest.raises(ValueError, match=r"num_attacked.* 1"):
        red_team(Ridge(), X, patches.targets[["K"]], **options | {"num_attacked": 1})
    with pytest.raises(ValueError, match="patches into X"):
        red_team(Ridge(), X + 50, patches.targets[["K"]], **options)
    with pytest.raises(ValueError, match="29 patches"):
        red_team(Ridge(), X, patches.targets[["K"]], **options | {"patches": patches[:29]})


@pytest.mark.parametrize("outside", [np.nan, -9999])
def test_what_lies_outside_a_field_is_no_matter(patches, outside):
    def tables(pairs):
        transformer = MeanSpectrum().fit(patches)
        options = {"patches": pairs, "transformer": transformer, "features": transformer.feature_table}
        options |= {"audits": ["attacks"], "num_attacked": 9, "num_bootstrap": 100, "progress": False}
        return red_team(Ridge(1e-3), transformer.transform(patches), patches.targets[["K"]], **options).tables

    found, expected = tables([(np.where(mask, outside, data), mask) for data, mask in patches]), tables(list(patches))
    for name in ("attacks", "worst_case"):
        pd.testing.assert_frame_equal(found[name], expected[name])


def test_predictions_that_an_attack_makes_infinite_are_remarked_on():
    class Fragile(Ridge):
        def predict(self, X):
            return np.where(X[:, 0] % 0.5, np.nan, super().predict(X))

    X = np.random.default_rng(0).integers(-4, 5, (80, 4)) / 2
    report = red_team(Fragile(), X, X[:, 0] + X[:, 1], audits=["attacks"], progress=False)
    (said,) = [remark for remark in report.remarks if "not finite" in remark]
    assert said.startswith("Under noise of ") and "80 of 80 rows" in said


def test_what_misleads_a_classifier_without_errors_is_found():
    class Brighter(ClassifierMixin, BaseEstimator):
        def fit(self, X, y):
            self.classes_ = np.unique(y)
            return self

        def predict(self, X):
            return (X.mean(axis=1) > 2).astype(int)

    y = np.arange(80) % 2
    X = SPECTRUM + np.where(y, 0.01, -0.01)[:, None]
    features = pd.DataFrame({"feature": list("abcdefghi"), "transformation": "reflectance", "band": range(9)})
    features = features.assign(wavelength=np.linspace(500, 900, 9), level=np.nan)
    X = X + 1e-4 * rng().normal(size=X.shape)
    report = red_team(Brighter(), X, y, features=features, audits=["attacks"], num_bootstrap=100, progress=False)
    table = report.tables["attacks"].query("allowed").set_index("attack")
    wrong = table.loc["gain", "error"] / 4 * 80  # of 80 rows, in a variance of 1/4 each
    assert table.loc["gain", "loss"] == pytest.approx(2 * wrong) and wrong > 20
    assert table.loc["noise", "error"] == 0 and np.isnan(table.loc["noise", "loss"])
    found = {finding.title: finding for finding in report.findings}
    gain = found["Gain misleads predictions of 1"]
    assert (
        gain.severity == "severe" and gain.value == pytest.approx(2 * wrong) and "There is no error" in gain.evidence
    )
    assert found["A small drift of the instrument misleads predictions of 1"].low > 1
