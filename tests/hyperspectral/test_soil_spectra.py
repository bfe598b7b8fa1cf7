"""Real soils: what is published of them is found again, the farm in the spectrum included."""

import sys

import numpy as np
import pytest
from sklearn.cross_decomposition import PLSRegression
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.model_selection import KFold, LeaveOneGroupOut, StratifiedKFold, cross_val_predict, cross_val_score

from hf_msae.hyperspectral import HYPERVIEW_WAVELENGTHS, SOIL_SETS, MeanSpectrum, load_soil_spectra

LimeSoDa = pytest.importorskip("LimeSoDa", reason="needs the extra soil")


@pytest.fixture(scope="module")
def soils():
    return load_soil_spectra()


def test_eight_farms_have_the_bands_of_the_challenge(soils):
    assert len(soils) == 1229 and len(set(soils.ids)) == 1229
    farms, numbers = np.unique(soils.groups["farm"], return_counts=True)
    assert set(farms) == set(SOIL_SETS)
    assert dict(zip(farms, numbers, strict=True)) == {name: int(name.partition(".")[2]) for name in SOIL_SETS}
    assert np.array_equal(soils.wavelengths, HYPERVIEW_WAVELENGTHS)
    data, mask = soils[0]
    assert data.shape == (150, 1, 1) and not mask.any()
    reflectance = MeanSpectrum().fit_transform(soils)
    assert np.allclose(reflectance * 10000, soils.mean_spectra)
    assert 0 < reflectance.min() and reflectance.max() < 0.6
    assert soils.targets["pH"].between(3, 9).all() and soils.targets["Clay"].between(1, 95).all()


def test_spectra_are_interpolated_from_the_package(soils):
    whole = load_soil_spectra(["SL.125"], wavelengths=np.arange(462.0, 939.0))
    chosen = soils[soils.groups["farm"] == "SL.125"]
    place = np.searchsorted(whole.wavelengths, chosen.wavelengths[75]) - 1
    low, high = whole.mean_spectra[:, place], whole.mean_spectra[:, place + 1]
    share = chosen.wavelengths[75] - whole.wavelengths[place]
    assert np.allclose(chosen.mean_spectra[:, 75], low + share * (high - low))


@pytest.mark.slow
def test_the_farm_is_what_a_pooled_model_of_ph_reads(soils):
    X, ph, farms = soils.mean_spectra / 10000, soils.targets["pH"].to_numpy(), soils.groups["farm"]

    def r2(predictions):
        return 1 - ((ph - predictions.ravel()) ** 2).sum() / ((ph - ph.mean()) ** 2).sum()

    model = PLSRegression(15)
    pooled = r2(cross_val_predict(model, X, ph, cv=KFold(10, shuffle=True, random_state=0)))
    left_out = r2(cross_val_predict(model, X, ph, cv=LeaveOneGroupOut(), groups=farms))
    assert (pooled, left_out) == pytest.approx((0.79, -1.39), abs=0.01)
    folds = StratifiedKFold(10, shuffle=True, random_state=0)
    assert cross_val_score(LinearDiscriminantAnalysis(), X, farms, cv=folds).mean() == pytest.approx(0.984, abs=0.005)


def test_what_is_missing_is_named(monkeypatch):
    with pytest.raises(ValueError, match=r"'CV.99'"):
        load_soil_spectra(["CV.99"])
    with pytest.raises(ValueError, match="300"):
        load_soil_spectra(["CV.98"], wavelengths=[300.0, 500.0])
    monkeypatch.setitem(sys.modules, "LimeSoDa", None)
    with pytest.raises(ImportError, match=r"hf_msae\[soil\]"):
        load_soil_spectra(["CV.98"])
