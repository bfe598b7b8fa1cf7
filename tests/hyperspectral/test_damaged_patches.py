"""What is wrong with a patch is named with its file and field."""

import io
import pickle
import shutil
import warnings

import numpy as np
import pytest

from hf_msae.hyperspectral import PatchError
from hf_msae.hyperspectral.checks import says_outside
from tests.hyperspectral.patch_files import change, load, of, same


def damaged(**values):
    """A change of patch 2 and the field that is named."""

    def damage(folder):
        content = of(folder)
        return change(folder, **{name: value(content["data"], content["mask"]) for name, value in values.items()})

    return damage


def put(data, mask, value, bands=slice(None)):
    """Values in the first two pixels of the field."""
    data = data.astype(float) if isinstance(value, float) else data.copy()
    inside = np.argwhere(~mask[0])[:2]
    for y, x in inside:
        data[bands, y, x] = value
    return data


def zero_rows(data, mask):
    return np.where(np.indices(data.shape)[1] < 4, 0, data)


def band(data, place, value):
    return np.where(np.arange(150)[:, None, None] == place, value, data)


DAMAGES = {
    "missing bands": (damaged(data=lambda d, m: d[:149], mask=lambda d, m: m[:149]), "data", "149 bands"),
    "bands last": (
        damaged(data=lambda d, m: np.moveaxis(d, 0, -1), mask=lambda d, m: np.moveaxis(m, 0, -1)),
        "data",
        "bands first",
    ),
    "an empty band": (damaged(data=lambda d, m: band(d, 7, 0)), "data", "band 8"),
    "no field": (damaged(mask=lambda d, m: np.ones_like(m)), "mask", "no pixel"),
    "a mask of another shape": (damaged(mask=lambda d, m: m[:, 1:]), "mask", "shape"),
    "a mask of other values": (damaged(mask=lambda d, m: m * 2), "mask", "2"),
    "the field is zero": (damaged(data=zero_rows, mask=lambda d, m: np.indices(d.shape)[1] >= 4), "mask", "inverted"),
    "NaN": (damaged(data=lambda d, m: put(d, m, np.nan, 20)), "data", "2 of"),
    "infinity": (damaged(data=lambda d, m: put(d, m, np.inf, 149)), "data", "band 150"),
    "a mark in all bands": (damaged(data=lambda d, m: put(d, m, -1)), "mask", "2 of .* are -1 in all bands"),
    "a mark in a band": (damaged(data=lambda d, m: put(d, m, -9999, 20)), "data", "2 of .* -9999 in band 21"),
    "saturated by type": (damaged(data=lambda d, m: put(d, m, 2**15 - 1, 100)), "data", "saturated"),
    "saturated by value": (damaged(data=lambda d, m: put(d, m, 5000.0, slice(100, 120))), "data", "saturated"),
    "a saturated band": (damaged(data=lambda d, m: band(d, 140, 4095)), "data", "saturated"),
    "percent": (damaged(data=lambda d, m: d / 100), "data", "percent"),
    "reflectance": (damaged(data=lambda d, m: d / 10000), "data", "reflectance"),
    "no pixels": (damaged(data=lambda d, m: d[:, :0], mask=lambda d, m: m[:, :0]), "data", "no pixels"),
    "two dimensions": (damaged(data=lambda d, m: d[0]), "data", "bands, h, w"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_files_are_named_or_left_out(copy, name):
    damage, field, said = DAMAGES[name]
    file = damage(copy)
    with pytest.raises(PatchError, match=said) as error:
        load(copy)
    assert (error.value.file, error.value.field) == (str(file), field)
    with pytest.warns(UserWarning, match="1 patch is left out"):
        assert load(copy, invalid="drop").ids == ["0", "1", "3", "4"]


def test_simple_patches_are_not_called_damaged(made):
    spectrum = made.mean_spectra[0]
    uniform = np.broadcast_to(spectrum[:, None, None], (150, 6, 6))
    one_pixel = spectrum[:, None, None]
    outside = np.zeros((6, 6), dtype=bool)
    outside[:, 4:] = True
    unknown = np.where(outside, np.nan, uniform)
    found = load(
        [(uniform, ~outside), (one_pixel, np.zeros((1, 1))), (unknown, outside)], wavelengths=made.wavelengths
    )
    assert np.allclose(found.mean_spectra, spectrum) and found.sizes["pixels"].tolist() == [12, 1, 24]


def test_files_that_are_not_patches_are_named(copy):
    file = copy / "train_data" / "2.npz"
    np.savez(file, cube=1)
    with pytest.raises(PatchError, match="cube") as error:
        load(copy)
    assert (error.value.file, error.value.field) == (str(file), "data")
    whole = (copy / "train_data" / "1.npz").read_bytes()
    array = io.BytesIO()
    np.save(array, np.ones(3))
    damaged = bytearray(whole)
    damaged[200:260] = bytes(60)  # within the compressed numbers
    for content in (b"nothing", b"", whole[: len(whole) // 2], bytes(damaged), array.getvalue()):
        file.write_bytes(content)
        with pytest.raises(PatchError, match="damaged") as error:
            load(copy)
        assert (error.value.file, error.value.field) == (str(file), "file")
        assert "pickle" not in str(error.value)
    np.savez(file, data=np.array([None]), mask=np.ones(1))
    with pytest.raises(PatchError, match="objects") as error:
        load(copy)
    assert error.value.file == str(file) and "pickle" not in str(error.value)


def test_inverted_masks_are_noticed_together(made):
    fields = made[np.flatnonzero(made.edges > 11)]
    ring = np.pad(np.ones((8, 8), dtype=bool), 4)
    pairs = [(data[:, :16, :16], ring[: data.shape[1], : data.shape[2]]) for data, _ in fields]
    with pytest.raises(PatchError, match="mask_means='inside'") as error:
        load(pairs, wavelengths=made.wavelengths)
    assert (error.value.file, error.value.field) == ("patch 0", "mask")
    right = load(pairs, wavelengths=made.wavelengths, mask_means="inside")
    assert right.sizes["pixels"].tolist() == [int(mask.sum()) for _, mask in pairs]
    kept = load(pairs, wavelengths=made.wavelengths, mask_means="outside")
    assert kept.sizes["pixels"].tolist() == [int((~mask).sum()) for _, mask in pairs]


@pytest.mark.parametrize("outside", ["soil", "zeros", "marks", "nan"])
@pytest.mark.parametrize("invalid", ["raise", "drop"])
def test_inverted_masks_are_the_cause_of_what_is_wrong_with_the_first(made, outside, invalid):
    value = {"soil": 1500, "zeros": 0, "marks": -9999, "nan": np.nan}[outside]
    pairs = [(np.where(mask, value, data), ~mask) for data, mask in made]  # fields that fill their patch have none
    options = {"wavelengths": made.wavelengths, "invalid": invalid}
    with pytest.raises(PatchError, match="all 5 masks look inverted") as error:
        load(pairs, **options)
    assert (error.value.file, error.value.field) == ("patch 0", "mask")
    middle, edge, whole = np.mean([says_outside(~mask) for _, mask in made], axis=0)
    assert f"{middle:.0%} of the middle of a patch and {edge:.0%} of its edge" in str(error.value)
    assert f"{whole:.0%} of all pixels" in str(error.value)
    right = load(pairs, **options, mask_means="inside")
    assert right.sizes["pixels"].tolist() == made.sizes["pixels"].tolist()


def test_one_inverted_mask_is_named_alone(made):
    pairs = [(np.where(mask, 0, data), mask) for data, mask in made]
    place = int(np.argmax([mask.sum() for _, mask in pairs]))
    pairs[place] = (pairs[place][0], ~pairs[place][1])
    with pytest.raises(PatchError, match="0 everywhere") as error:
        load(pairs, wavelengths=made.wavelengths)
    assert (error.value.file, error.value.field) == (f"patch {place}", "mask")


def test_a_mask_that_looks_inverted_among_others_is_warned_of(made):
    ring = np.pad(np.zeros((6, 6), dtype=bool), 2, constant_values=True)
    spectra = made.mean_spectra[:, :, None, None] * np.linspace(0.9, 1.1, 100).reshape(10, 10)
    options = {"wavelengths": made.wavelengths, "ids": list("abcde")}
    with pytest.warns(UserWarning, match="^1 mask looks inverted.*: patch d$"):
        load([(data, ~ring if row == 3 else ring) for row, data in enumerate(spectra)], **options)
    full = np.zeros_like(ring)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load([(data, ring) for data in spectra], **options)
        load([(data, ~ring if row == 3 else full) for row, data in enumerate(spectra)], **options)


def test_copies_are_named(copy):
    files = copy / "train_data"
    shutil.copy(files / "1.npz", files / "4.npz")
    with pytest.warns(UserWarning, match="^1 patch is a copy.*4.npz of .*1.npz$"):
        assert load(copy).ids == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize(("unit", "factor"), [("reflectance", 10000), ("percent", 100)])
def test_units_are_converted_when_named_and_refused_otherwise(made, unit, factor):
    pairs = [(data / factor, mask) for data, mask in made]
    assert same(load(pairs, wavelengths=made.wavelengths, unit=unit), made)
    with pytest.raises(PatchError, match=f"unit='{unit}'") as error:
        load(pairs, wavelengths=made.wavelengths)
    assert (error.value.file, error.value.field) == ("patch 0", "data")
    with pytest.raises(PatchError, match="digital numbers") as error:
        load([*pairs[:3], made[3]], wavelengths=made.wavelengths, unit=unit)
    assert error.value.file == "patch 3"


def test_errors_survive_other_processes():

    error = pickle.loads(pickle.dumps(PatchError("1.npz", "mask", "it is empty")))
    assert (error.file, error.field, str(error)) == ("1.npz", "mask", "1.npz: mask: it is empty")


def test_marks_in_reflectance_are_the_same_number_and_standardized_spectra_are_not(made):
    pairs = [((data - data.mean(axis=0)) / data.std(axis=0), mask) for data, mask in made]
    options = {"wavelengths": made.wavelengths, "unit": "reflectance"}
    np.testing.assert_allclose(load(pairs, **options)[0][0], pairs[0][0] * 10000, rtol=1e-4)
    marked = [(np.insert(data[1:] / 10000, 20, -0.9999, axis=0), mask) for data, mask in made]
    with pytest.raises(PatchError, match=r"-0\.9999 in band 21"):
        load(marked, **options)
