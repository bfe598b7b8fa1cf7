"""The features of the challenge's winners agree with their published code, which computed the golden file."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks

from hf_msae.hyperspectral import HYPERVIEW_WAVELENGTHS, EagleEyesFeatures, MeanSpectrum, PatchError, make_patches
from hf_msae.hyperspectral.eagle_eyes import KNN_TRANSFORMATIONS, singular_values
from tests.conftest import GOLDEN

pytest.importorskip("pywt", reason="needs the extra hyperspectral")


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "eagleeyes_small.npz") as content:
        return dict(content)


@pytest.fixture(scope="module")
def pairs(golden):
    return [(golden[f"data_{i}"], golden[f"mask_{i}"]) for i in range(3)]


@pytest.fixture(scope="module")
def fitted(golden, pairs):
    return EagleEyesFeatures(golden["wavelengths"]).fit(pairs)


@pytest.fixture(scope="module")
def computed(fitted, pairs):
    return fitted.transform(pairs)


def test_every_block_agrees_with_the_published_code(golden, fitted, computed, relative_error):
    assert computed.shape == (3, 2400)
    for transformation, columns in fitted.feature_table.groupby("transformation", sort=False).groups.items():
        for ours, theirs in zip(computed[:, columns], golden["features_rf"][:, columns], strict=True):
            assert relative_error(ours, theirs) < 1e-10, transformation


def test_what_the_neighbors_see_agrees_with_the_published_code(golden, fitted, computed, relative_error):
    kept = fitted.feature_table["transformation"].isin(KNN_TRANSFORMATIONS).to_numpy()
    assert relative_error(computed[:, kept], golden["features_knn"]) < 1e-10


def test_paper_differs_in_two_of_the_fourier_and_two_of_the_wavelet_blocks(fitted, computed, pairs):
    paper = EagleEyesFeatures(fitted.wavelengths_, variant="paper").fit(pairs)
    table, ours = paper.feature_table, paper.transform(pairs)
    assert len(table) == 2400 and table["feature"].is_unique
    same = {"mean", "derivative_3", "singular_ratio", "singular_5", "fft_mean_imaginary"}
    same_columns = table["transformation"].isin(same).to_numpy()
    assert np.array_equal(ours[:, same_columns], computed[:, same_columns])
    ratio, mean = (ours[:, (table["transformation"] == name).to_numpy()] for name in ("singular_ratio", "mean"))
    fourier = (table["transformation"] == "fft_singular_ratio_real").to_numpy()
    assert np.allclose(ours[:, fourier], np.fft.fft(ratio).real)
    import pywt

    details = ours[:, ((table["transformation"] == "dmey_detail") & (table["level"] == 1)).to_numpy()]
    assert np.allclose(details, pywt.dwt(mean, "dmey", mode="constant", axis=1)[1][:, 12:92])
    approximations = ours[:, (table["transformation"] == "dmey_approximation").to_numpy()]
    code = fitted.feature_table["transformation"] == "dmey_approximation"
    assert np.array_equal(approximations, computed[:, code.to_numpy()])


def test_feature_table_says_what_each_feature_is(fitted, golden):
    table = fitted.feature_table
    assert list(table.columns) == ["feature", "transformation", "band", "wavelength", "level", "frequency"]
    assert list(fitted.get_feature_names_out()) == list(table["feature"])
    singular = table[table["transformation"] == "singular_2"]
    assert np.array_equal(singular["wavelength"], golden["wavelengths"]) and list(singular["band"]) == list(range(150))
    mixed = table[table["transformation"].str.contains("fft|dmey|sym3")]
    assert len(mixed) == 6 * 150 and mixed[["band", "wavelength"]].isna().all(axis=None)
    levels = table.groupby("transformation")["level"].value_counts().to_dict()
    assert levels == {
        **{("sym3_approximation", level): n for level, n in zip((1.0, 2.0, 3.0, 4.0), (77, 40, 21, 12), strict=True)},
        **{("dmey_approximation", level): n for level, n in zip((1.0, 2.0, 3.0, 4.0), (80, 40, 20, 10), strict=True)},
    }
    pretended = EagleEyesFeatures(golden["wavelengths"], pseudo_wavelength=True).fit([]).feature_table
    assert pretended["band"].notna().all() and pretended["wavelength"].iloc[-1] == golden["wavelengths"][-1]


@pytest.mark.parametrize("shape", [(11, 11), (7, 23), (23, 7), (3, 10), (5, 5)])
def test_singular_values_are_those_of_the_square(shape):
    images = np.random.default_rng(0).normal(1, 0.3, size=(4, *shape))
    images[:, :2] = 0
    side = max(shape)
    square = np.pad(images, ((0, 0), (0, side - shape[0]), (0, side - shape[1])), mode="wrap")
    expected = np.linalg.svd(square, compute_uv=False)[:, :5]
    assert np.allclose(singular_values(images), expected, rtol=1e-9, atol=1e-12 * expected.max())


def test_small_singular_values_keep_their_digits():
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.normal(size=(9, 9)))[0] for _ in range(2))
    values = np.array([1, 1e-3, 1e-6, 1e-8, 1e-9, 0, 0, 0, 0])
    found = singular_values((left * values @ right)[None])[0]
    assert np.allclose(found, values[:5], rtol=1e-5)


def test_pixels_outside_the_field_have_no_influence(fitted, pairs, computed):
    data, mask = pairs[1]
    changed = data.astype(float)
    changed[:, mask] = np.nan
    assert np.array_equal(fitted.transform([(changed, np.broadcast_to(mask, data.shape))])[0], computed[1])


def test_threads_pickles_and_clones_compute_the_same(fitted, pairs, computed):
    again = clone(fitted).set_params(n_jobs=2).fit(pairs)
    assert np.array_equal(again.transform(pairs), computed)
    assert np.array_equal(pickle.loads(pickle.dumps(fitted)).transform(pairs), computed)
    frame = clone(fitted).set_output(transform="pandas").fit_transform(pairs)
    assert list(frame.columns) == list(fitted.feature_table["feature"])
    scaled = make_pipeline(clone(fitted), StandardScaler()).fit(pairs).transform(pairs)
    assert scaled.shape == (3, 2400) and np.abs(scaled.mean(axis=0)).max() < 1e-6


CHECKS = [
    "check_no_attributes_set_in_init",
    "check_get_params_invariance",
    "check_set_params",
    "check_parameters_default_constructible",
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_valid_tag_types",
    "check_estimator_tags_renamed",
]


@pytest.mark.parametrize("transformer", [EagleEyesFeatures, MeanSpectrum])
def test_estimator_checks_that_do_not_make_tables_of_numbers(transformer):
    checks = [getattr(estimator_checks, name) for name in CHECKS if hasattr(estimator_checks, name)]
    assert len(checks) > 4  # not every version of scikit-learn has all of them
    for check in checks:
        check(transformer.__name__, transformer())


def test_patches_of_one_pass_are_read_one_at_a_time(fitted, pairs):
    class Counting:
        """Hands out patches and counts those that are alive."""

        def __init__(self):
            self.read = []

        def __len__(self):
            return 4

        def __getitem__(self, index):
            self.read.append(index)
            return pairs[0]

    X = Counting()
    assert fitted.transform(X).shape == (4, 2400)
    assert X.read == [0, 1, 2, 3]


def test_bad_patches_are_named(fitted, pairs):
    data, mask = pairs[0]
    for broken, field in [
        ((data[:149], mask), "data"),
        ((data, np.ones_like(mask)), "mask"),
        ((data, mask[:5]), "mask"),
        ((np.where(data == data.max(), np.nan, data), mask), "data"),
        ((data[:, :4, :3], mask[:4, :3]), "data"),
    ]:
        with pytest.raises(PatchError) as error:
            fitted.transform([pairs[0], broken])
        assert (error.value.file, error.value.field) == ("patch 1", field)


def test_wavelengths_are_checked(pairs):
    with pytest.raises(ValueError, match=r"EagleEyesFeatures\(wavelengths\)"):
        EagleEyesFeatures().fit(pairs)
    with pytest.raises(ValueError, match="149 wavelengths"):
        EagleEyesFeatures(HYPERVIEW_WAVELENGTHS[1:]).fit(pairs)
    with pytest.raises(PatchError, match="micrometers"):
        EagleEyesFeatures(HYPERVIEW_WAVELENGTHS / 1000).fit(pairs)
    with pytest.raises(ValueError, match="'codes'"):
        EagleEyesFeatures(HYPERVIEW_WAVELENGTHS, variant="codes").fit(pairs)
    others = make_patches(2, wavelengths=np.linspace(420, 900, 150))
    with pytest.raises(ValueError, match="420"):
        EagleEyesFeatures(HYPERVIEW_WAVELENGTHS).fit(others)
    with pytest.raises(ValueError, match="no patches"):
        EagleEyesFeatures(HYPERVIEW_WAVELENGTHS).fit([]).transform([])


def test_mean_spectrum_is_the_mean_of_the_field(pairs, golden):
    fitted = MeanSpectrum(golden["wavelengths"]).fit(pairs)
    found = fitted.transform(pairs)
    data, mask = pairs[2]
    assert np.allclose(found[2] * 10000, data[:, ~mask].mean(axis=1))
    table = fitted.feature_table
    assert np.array_equal(table["wavelength"], golden["wavelengths"]) and len(table) == found.shape[1] == 150
    with pytest.raises(PatchError) as error:
        fitted.transform([(data[1:], mask)])
    assert error.value.field == "data"
