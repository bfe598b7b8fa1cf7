"""Synthetic fields have the ranges of the challenge, known causes, and the blind spots that were asked for."""

import pickle

import numpy as np
import pytest
from sklearn.cross_decomposition import PLSRegression
from sklearn.model_selection import KFold, LeaveOneGroupOut, cross_val_predict

from hf_msae.hyperspectral import BLIND_SPOTS, CAUSES, TARGETS, causal_bands, make_patches

N = 90
SMALL = {"edges": (13, 16), "small_share": 0.8}


@pytest.fixture(scope="module")
def clean():
    return make_patches(N, seed=1, **SMALL)


def answers(patches, target) -> float:
    """How well the depth of a target's absorption, against its shoulders, follows the target: a rank correlation."""
    center, width, _ = CAUSES[target]
    logs = np.log(patches.mean_spectra)

    def at(wavelength):
        return logs[:, np.argmin(np.abs(patches.wavelengths - wavelength))]

    depth = (at(center - 3 * width) + at(center + 3 * width)) / 2 - at(center)
    return float(np.corrcoef(np.argsort(np.argsort(depth)), patches.targets[target].rank())[0, 1])


def test_targets_have_the_ranges_and_means_of_the_challenge(clean):
    many = clean.targets
    for target, (low, high) in TARGETS.items():
        assert low <= many[target].min() < many[target].max() <= high
    assert abs(many["K"].mean() - 228) < 20 and abs(many["pH"].mean() - 6.79) < 0.08
    assert many["P"].skew() > 0.3 and many["K"].corr(many["P"]) > 0.15


def test_fields_are_reproducible_one_by_one(clean):
    again = make_patches(20, seed=1, **SMALL)
    data, mask = clean[7]
    assert data.shape == (150, *mask.shape) and np.array_equal(clean[7][0], data)
    assert not np.array_equal(make_patches(8, seed=2, **SMALL)[7][0][:, :7, :7], data[:, :7, :7])
    assert np.array_equal(pickle.loads(pickle.dumps(again))[3][0], again[3][0])
    assert np.allclose(clean.mean_spectra[7], data[:, ~mask].mean(axis=1))


def test_fields_have_shapes_and_plausible_spectra(clean):
    small = clean.edges <= 11
    assert 0.7 < small.mean() < 0.9
    assert (clean.sizes["pixels"][clean.edges == 11] == 121).any()
    for row in np.flatnonzero(clean.edges > 11)[:5]:
        _, mask = clean[int(row)]
        assert not mask.all(axis=0).any() and not mask.all(axis=1).any(), "it is cut out at its borders"
        assert not mask[mask.shape[0] // 2, mask.shape[1] // 2]
    spectra = clean.mean_spectra
    assert 100 < spectra.min() and spectra.max() < 5419
    assert (spectra[:, 120] > spectra[:, 20]).mean() > 0.9, "soils brighten towards the infrared"


@pytest.mark.parametrize("target", TARGETS)
def test_each_target_deepens_its_absorption_and_no_other(clean, target):
    assert answers(clean, target) > 0.6
    bands = causal_bands(target, clean.wavelengths)
    center, width, _ = CAUSES[target]
    assert np.abs(clean.wavelengths[bands] - center).max() <= 1.5 * width
    assert list(bands) == clean.truth["bands"][target]
    assert not set(bands) & {band for other in TARGETS if other != target for band in clean.truth["bands"][other]}


def test_nothing_is_planted_unless_asked_for(clean):
    assert clean.truth["blind_spots"] == {}
    means = clean.targets.groupby(clean.groups["farm"]).transform("mean")
    assert (means.var() / clean.targets.var()).max() < 0.2


def test_range_hides_what_is_far_from_the_mean(clean):
    planted = make_patches(N, seed=1, blind_spots=["range"], **SMALL)
    assert planted.truth["blind_spots"] == {"range": {"target": "K"}}
    assert planted.targets.equals(clean.targets)
    column = list(TARGETS).index("K")
    assert np.abs(planted.truth["strength"][:, column]).max() <= 0.5 < np.abs(clean.truth["strength"][:, column]).max()
    extreme = clean.targets["K"].rank(pct=True).sub(0.5).abs().to_numpy() > 0.25
    assert answers(planted, "K") < answers(clean, "K") - 0.1
    upper = clean.targets["K"].rank(pct=True).to_numpy() > 0.75
    assert answers(planted[extreme & upper], "K") < 0.35


def test_outliers_have_ordinary_spectra(clean):
    planted = make_patches(N, seed=1, blind_spots={"outliers": "Mg"}, **SMALL)
    rows = planted.truth["blind_spots"]["outliers"]["rows"]
    assert 3 <= len(rows) <= 20
    column = list(TARGETS).index("Mg")
    values = planted.targets["Mg"].to_numpy()
    assert (np.abs(values[rows] - values.mean()) > 1.4 * values.std()).all()
    assert np.array_equal(planted.truth["strength"], clean.truth["strength"])
    assert np.abs(planted.truth["strength"][rows, column]).mean() < 1.5
    assert np.array_equal(planted.mean_spectra, clean.mean_spectra), "only the values change"


@pytest.mark.parametrize(("kind", "wavelength"), [("drift", 870.0), ("leak", 725.0)])
def test_one_band_drifts_or_leaks(clean, kind, wavelength):
    planted = make_patches(N, seed=1, blind_spots=[kind], **SMALL)
    (band,) = planted.truth["blind_spots"][kind]["bands"]
    assert abs(planted.wavelengths[band] - wavelength) < 2
    gains = planted.mean_spectra / clean.mean_spectra
    others = np.delete(np.arange(150), band)
    assert np.allclose(gains[:, others], 1)
    of = clean.groups["date"] if kind == "drift" else clean.targets[BLIND_SPOTS["leak"]].to_numpy()
    if kind == "drift":
        by_date = [gains[of == date, band].mean() for date in np.unique(of)]
        assert np.allclose(by_date, [1, 1, 1.05, 1.15], atol=1e-3)
    else:
        assert np.corrcoef(gains[:, band], of)[0, 1] > 0.97


def test_farms_can_have_targets_of_their_own():
    planted = make_patches(N, seed=1, blind_spots="farm", **SMALL)
    means = planted.targets.groupby(planted.groups["farm"]).transform("mean")
    shares = means.var() / planted.targets.var()
    assert shares["K"] > 0.55 and shares.drop("K").max() < 0.2
    shown = planted.truth["strength"][:, list(TARGETS).index("K")]
    assert abs(shown.std() - 0.5) < 0.1, "the spectra show the rest"


def test_models_read_the_farm_and_fail_on_others(clean):
    planted = make_patches(N, seed=1, blind_spots="farm", **SMALL)

    def drop(patches):
        """How much R2 falls when farms are left out."""
        y, X = patches.targets["K"].to_numpy(), np.log(patches.mean_spectra)
        folds = [(KFold(5, shuffle=True, random_state=0), None), (LeaveOneGroupOut(), patches.groups["farm"])]
        errors = [y - cross_val_predict(PLSRegression(8), X, y, cv=cv, groups=of).ravel() for cv, of in folds]
        return ((errors[1] ** 2).sum() - (errors[0] ** 2).sum()) / ((y - y.mean()) ** 2).sum()

    assert drop(planted) > 0.2 > drop(clean)


def test_real_soils_can_be_given(clean):
    soils = np.linspace(0.1, 0.3, 150) * np.array([[1.0], [1.5]])
    made = make_patches(3, seed=0, soils=soils, **SMALL)
    assert made.mean_spectra.shape == (3, 150)
    with pytest.raises(ValueError, match=r"\(m, 150\)"):
        make_patches(3, soils=soils[:, :10])


def test_plants_and_what_lies_outside_can_be_given():
    one = np.full((1, 150), 0.9)
    options = {"n": 3, "seed": 0, "edges": (16, 18), "small_share": 0, "noise": 0}
    shapes, planted, others = (make_patches(**options, **given) for given in ({}, {"plants": one}, {"others": one}))
    for (known, mask), (green, _), (data, _) in zip(shapes, planted, others, strict=True):
        assert (green[:60, ~mask].mean(axis=1) > known[:60, ~mask].mean(axis=1)).all(), "leaves absorb visible light"
        assert data[:, mask].mean() > 1.5 * known[:, mask].mean(), "it was darker outside"
        assert abs(data[:, ~mask].mean() / known[:, ~mask].mean() - 1) < 0.5
    with pytest.raises(ValueError, match=r"plants .*\(1, 9\)"):
        make_patches(3, plants=one[:, :9])


def test_options_that_make_no_sense_are_named():
    for options, said in [
        ({"blind_spots": ["cloud"]}, "'cloud'"),
        ({"blind_spots": {"leak": "Zn"}}, "'Zn'"),
        ({"edges": (40, 14)}, "edges"),
        ({"n": 0}, "n=0"),
        ({"wavelengths": np.linspace(300, 900, 150)}, "300"),
    ]:
        with pytest.raises(ValueError, match=said):
            make_patches(**{"n": 2, **options})
