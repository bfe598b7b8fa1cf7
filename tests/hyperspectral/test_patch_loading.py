"""Patches come from every kind of source alike, and what is wrong is named with file and field."""

import shutil

import datasets
import numpy as np
import pandas as pd
import pytest

from hf_msae.hyperspectral import (
    HYPERVIEW2_TARGETS,
    HYPERVIEW_WAVELENGTHS,
    PatchError,
    Patches,
    load_patches,
    make_patches,
)
from hf_msae.hyperspectral.checks import says_outside


@pytest.fixture(scope="module")
def made():
    return make_patches(5, seed=14, edges=(14, 18), small_share=0.4, blind_spots=["leak"])


@pytest.fixture(scope="module")
def folder(made, tmp_path_factory):
    path = tmp_path_factory.mktemp("challenge")
    made.save(path)
    return path


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def load(source, **options):
    return load_patches(source, progress=False, **options)


def same(a: Patches, b: Patches) -> bool:
    assert a.ids == b.ids and np.allclose(a.wavelengths, b.wavelengths)
    assert np.allclose(a.mean_spectra, b.mean_spectra, rtol=1e-5)
    assert a.sizes.equals(b.sizes)
    return all(
        np.array_equal(mask, other_mask) and np.allclose(data, other, rtol=1e-5)
        for (data, mask), (other, other_mask) in zip(a, b, strict=True)
    )


def change(folder, name="2", **arrays):
    file = folder / "train_data" / f"{name}.npz"
    with np.load(file) as content:
        np.savez(file, **{**content, **arrays})
    return file


def of(folder, name="2"):
    with np.load(folder / "train_data" / f"{name}.npz") as content:
        return dict(content)


def test_the_layout_of_the_challenge_is_read_again(made, folder):
    found = load(folder)
    assert same(found, made)
    assert found.targets.equals(made.targets)
    assert {name: list(labels) for name, labels in found.groups.items()} == {
        name: list(labels) for name, labels in made.groups.items()
    }
    assert found.truth["bands"] == made.truth["bands"]
    assert found.truth["blind_spots"]["leak"]["target"] == "pH"
    data, mask = found[0]
    assert data.dtype == np.float32 and mask.dtype == bool and data.shape[1:] == mask.shape
    assert of(folder)["mask"].shape == of(folder)["data"].shape, "np.ma.MaskedArray(**npz) takes it"
    with pytest.raises(FileExistsError):
        made.save(folder)


def test_patches_can_be_chosen(made):
    chosen = made[[3, 1]]
    assert chosen.ids == ["3", "1"] and len(chosen) == 2
    assert chosen.targets["K"].tolist() == made.targets["K"].iloc[[3, 1]].tolist()
    assert chosen.groups["farm"].tolist() == made.groups["farm"][[3, 1]].tolist()
    assert np.array_equal(chosen[1][0], made[1][0])
    assert np.array_equal(chosen.truth["strength"], made.truth["strength"][[3, 1]])
    assert made[made.edges <= 11].ids == [name for name, edge in zip(made.ids, made.edges, strict=True) if edge <= 11]
    assert set(made.size_classes) == {"0-11", "11-40"}
    assert np.array_equal(made[-1][0], made[4][0])
    with pytest.raises(IndexError):
        made[5]


def test_bands_are_interpolated(made):
    coarse = made.resample(np.linspace(500, 900, 41))
    data, mask = coarse[0]
    assert data.shape[0] == 41 and coarse.mean_spectra.shape == (5, 41)
    assert np.allclose(data[:, ~mask].mean(axis=1), coarse.mean_spectra[0], rtol=1e-4)
    exact = made.resample(made.wavelengths[10:20])
    assert np.allclose(exact.mean_spectra, made.mean_spectra[:, 10:20])
    with pytest.raises(ValueError, match="400"):
        made.resample(np.array([400.0, 500.0]))


def test_datasets_arrays_and_pairs_are_read_alike(made, tmp_path):
    dataset = made.to_dataset()
    found = load(dataset)
    assert same(found, made) and found.targets.equals(made.targets) and list(found.groups) == list(made.groups)
    dataset.save_to_disk(tmp_path / "saved")
    assert same(load(tmp_path / "saved"), made)
    datasets.DatasetDict({"test": dataset}).save_to_disk(tmp_path / "splits")
    assert same(load(tmp_path / "splits", split="test"), made)
    with pytest.raises(ValueError, match="'train'"):
        load(tmp_path / "splits")
    nested = datasets.Dataset.from_list([{"data": data.tolist(), "mask": mask.tolist()} for data, mask in made[:2]])
    assert same(load(nested, wavelengths=made.wavelengths), made[:2])
    pairs = load(list(made), wavelengths=made.wavelengths, ground_truth=made.targets)
    assert same(pairs, made) and pairs.targets.equals(made.targets)
    cubes = np.stack([data[:, :9, :9] for data, _ in made])
    assert load(cubes, wavelengths=made.wavelengths, ids=list("abcde")).ids == list("abcde")


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


def test_envi_cubes_are_read(made, tmp_path):
    envi = pytest.importorskip("spectral.io.envi", reason="needs the extra hyperspectral")
    header = {"wavelength": list(made.wavelengths / 1000), "wavelength units": "Micrometers"}
    for row, (data, mask) in enumerate(made[:3]):
        cube = np.moveaxis(np.where(mask, -1, data), 0, -1).astype(np.int16)
        interleave = ("bil", "bip", "bsq")[row]
        envi.save_image(
            tmp_path / f"{row}.hdr", cube, metadata={**header, "data ignore value": -1}, interleave=interleave
        )
    expected = made[:3]
    found = load(tmp_path, ground_truth=made.targets[:3])
    assert found.ids == expected.ids and np.allclose(found.mean_spectra, expected.mean_spectra)
    assert all(np.array_equal(mask, other) for (_, mask), (_, other) in zip(found, expected, strict=True))
    cube = np.moveaxis(np.where(mask, 0, data), 0, -1).astype(np.int16)
    (tmp_path / "zeros").mkdir()
    envi.save_image(tmp_path / "zeros" / "2.hdr", cube, metadata=header)
    with pytest.raises(PatchError, match=f"{mask.sum()} of {mask.size} .*data ignore value.*NAME_mask.hdr") as error:
        load(tmp_path / "zeros")
    assert (error.value.file, error.value.field) == (str(tmp_path / "zeros" / "2.hdr"), "mask")
    data, mask = made[0]
    (tmp_path / "scaled").mkdir()
    both = {**header, "data ignore value": -9999, "reflectance scale factor": 10000}
    cube = np.moveaxis(np.where(mask, -9999, data), 0, -1).astype(np.int16)
    envi.save_image(tmp_path / "scaled" / "0.hdr", cube, metadata=both)
    scaled = load(tmp_path / "scaled")
    assert np.array_equal(scaled[0][1], mask)
    assert np.allclose(scaled.mean_spectra, cube[~mask].mean(axis=0))
    bad = {**header, "bbl": [0, *[1] * 149], "reflectance scale factor": 10000}
    data, mask = made[3]
    (tmp_path / "one").mkdir()
    envi.save_image(tmp_path / "one" / "3.hdr", np.moveaxis(data, 0, -1), metadata=bad)
    envi.save_image(tmp_path / "one" / "3_mask.hdr", mask[:, :, None].astype(np.uint8))
    one = load(tmp_path / "one")
    assert np.allclose(one.wavelengths, made.wavelengths[1:]) and np.allclose(
        one.mean_spectra, made.mean_spectra[3, 1:]
    )


def test_fields_are_cut_out_of_a_scene(made, tmp_path):
    envi = pytest.importorskip("spectral.io.envi", reason="needs the extra hyperspectral")
    data, mask = made[int(np.argmax(made.edges))]
    envi.save_image(tmp_path / "scene.hdr", np.moveaxis(data, 0, -1), metadata={"wavelength": list(made.wavelengths)})
    fields = np.where(mask, 0, 4)
    fields[:3] = np.where(mask[:3], 0, 7)
    found = load(tmp_path / "scene.hdr", fields=fields)
    assert found.ids == ["4", "7"]
    assert np.allclose(found.mean_spectra[1], data[:, fields == 7].mean(axis=1))
    np.save(tmp_path / "fields.npy", fields)
    assert same(load(tmp_path / "scene.hdr", fields=tmp_path / "fields.npy"), found)
    with pytest.raises(PatchError, match="labels of its fields"):
        load(tmp_path / "scene.hdr")
    with pytest.raises(PatchError, match="shape") as error:
        load(tmp_path / "scene.hdr", fields=fields[1:])
    assert error.value.field == "fields"


def test_names_of_the_challenges_are_targets(copy, made):
    table = pd.read_csv(copy / "train_gt.csv")
    table.rename(columns={"P": "P2O5"}).iloc[::-1].to_csv(copy / "train_gt.csv", index=False)
    assert load(copy).targets.equals(made.targets)
    micro = pd.DataFrame({"sample_index": [f"{row:04}" for row in range(5)]})
    micro = micro.assign(**{name: np.arange(5.0) + place for place, name in enumerate(HYPERVIEW2_TARGETS)})
    assert load(copy, ground_truth=micro).targets.columns.tolist() == list(HYPERVIEW2_TARGETS)
    chosen = load(copy, ground_truth=micro.assign(clay=1.5, farm="x"), targets=["clay", "Fe"], groups=["S"])
    assert list(chosen.targets) == ["clay", "Fe"] and list(chosen.groups) == ["S"]


def test_the_layout_of_hyperview2_is_read(made, tmp_path):
    for sensor, bands in (("hsi_airborne", 150), ("msi_satellite", 13)):
        (tmp_path / "train" / sensor).mkdir(parents=True)
        for row in range(3):
            data, mask = made[row]
            file = tmp_path / "train" / sensor / f"{row + 1:04}.npz"
            np.savez(file, data=data[:bands], mask=np.broadcast_to(mask, data[:bands].shape))
    table = pd.DataFrame({"sample_index": [3, 1, 2], **{name: [3.0, 1, 2] for name in HYPERVIEW2_TARGETS}})
    table.to_csv(tmp_path / "train_gt.csv", index=False)
    with pytest.raises(PatchError, match=r"hsi_airborne, .*msi_satellite"):
        load(tmp_path)
    found = load(tmp_path / "train" / "hsi_airborne", wavelengths=made.wavelengths)
    assert found.ids == ["1", "2", "3"] and found.targets["Zn"].tolist() == [1, 2, 3]
    assert np.allclose(found.mean_spectra, made.mean_spectra[:3])
    few = load(tmp_path / "train" / "msi_satellite", wavelengths=made.wavelengths[:13])
    assert few.mean_spectra.shape == (3, 13)


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


DAMAGES = {
    "missing bands": (
        damaged(data=lambda data, mask: data[:149], mask=lambda data, mask: mask[:149]),
        "data",
        "149 bands",
    ),
    "bands last": (
        damaged(data=lambda data, mask: np.moveaxis(data, 0, -1), mask=lambda data, mask: np.moveaxis(mask, 0, -1)),
        "data",
        "bands first",
    ),
    "an empty band": (
        damaged(data=lambda data, mask: np.where(np.arange(150)[:, None, None] == 7, 0, data)),
        "data",
        "band 8",
    ),
    "no field": (damaged(mask=lambda data, mask: np.ones_like(mask)), "mask", "no pixel"),
    "a mask of another shape": (damaged(mask=lambda data, mask: mask[:, 1:]), "mask", "shape"),
    "a mask of other values": (damaged(mask=lambda data, mask: mask * 2), "mask", "2"),
    "the field is zero": (
        damaged(
            data=lambda data, mask: np.where(np.indices(data.shape)[1] < 4, 0, data),
            mask=lambda data, mask: np.indices(data.shape)[1] >= 4,
        ),
        "mask",
        "inverted",
    ),
    "NaN": (damaged(data=lambda data, mask: put(data, mask, np.nan, 20)), "data", "2 of"),
    "infinity": (damaged(data=lambda data, mask: put(data, mask, np.inf, 149)), "data", "band 150"),
    "saturated by type": (damaged(data=lambda data, mask: put(data, mask, 2**15 - 1, 100)), "data", "saturated"),
    "saturated by value": (
        damaged(data=lambda data, mask: put(data, mask, 5000.0, slice(100, 120))),
        "data",
        "saturated",
    ),
    "a saturated band": (
        damaged(data=lambda data, mask: np.where(np.arange(150)[:, None, None] == 140, 4095, data)),
        "data",
        "saturated",
    ),
    "percent": (damaged(data=lambda data, mask: data / 100), "data", "percent"),
    "reflectance": (damaged(data=lambda data, mask: data / 10000), "data", "reflectance"),
    "no pixels": (
        damaged(data=lambda data, mask: data[:, :0], mask=lambda data, mask: mask[:, :0]),
        "data",
        "no pixels",
    ),
    "two dimensions": (damaged(data=lambda data, mask: data[0]), "data", "bands, h, w"),
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
    file.write_bytes(b"nothing")
    with pytest.raises(PatchError, match="npz") as error:
        load(copy)
    assert error.value.file == str(file)


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


@pytest.mark.parametrize("outside", ["soil", "zeros", "nan"])
@pytest.mark.parametrize("invalid", ["raise", "drop"])
def test_inverted_masks_are_the_cause_of_what_is_wrong_with_the_first(made, outside, invalid):
    value = {"soil": 1500, "zeros": 0, "nan": np.nan}[outside]
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


def test_wavelengths_of_files_are_checked(copy):
    file = copy / "wavelengths.csv"
    table = pd.read_csv(file)
    for wrong, said in [
        (table.iloc[::-1], "sort"),
        (table.assign(wavelength=table["wavelength"] * 1000), "nm"),
        (table.rename(columns={"wavelength": "center"}), "wavelength"),
    ]:
        wrong.to_csv(file, index=False)
        with pytest.raises(PatchError, match=said) as error:
            load(copy)
        assert (error.value.file, error.value.field[:10]) == (str(file), "wavelength")
    table[:140].to_csv(file, index=False)
    with pytest.raises(PatchError, match="140 wavelengths") as error:
        load(copy)
    assert (error.value.file, error.value.field) == (str(copy / "train_data" / "0.npz"), "data")
    file.unlink()
    with pytest.raises(PatchError, match="wavelengths="):
        load(copy)
    (copy / "wavelenghts.txt").write_text(", ".join(f"{value:.2f}" for value in HYPERVIEW_WAVELENGTHS))
    assert np.allclose(load(copy).wavelengths, HYPERVIEW_WAVELENGTHS, atol=0.006)


@pytest.mark.parametrize(
    ("edit", "field", "said"),
    [
        (lambda table: table[:4], "sample_index", "1 patch .* has no row .4."),
        (
            lambda table: pd.concat([table, table[:1].assign(sample_index=99)]),
            "sample_index",
            "1 row has no patch .99.",
        ),
        (lambda table: table.assign(sample_index=0), "sample_index", "0 is there twice"),
        (lambda table: table.assign(K=[1, 2, np.nan, 4, 5]), "K", "nan of patch 2"),
        (lambda table: table.assign(Mg=[1, 2, 3, "much", 5]), "Mg", "much of patch 3"),
        (lambda table: table.assign(pH=[7, 71, 7, 7, 7]), "pH", "71.* of patch 1"),
        (lambda table: table.assign(P=[7, 7, -3, 7, 7]), "P", "-3.* of patch 2"),
        (lambda table: table.assign(clay=3), "clay", "targets and groups"),
        (lambda table: table.assign(P2O5=3), "P, P2O5", "same target"),
        (lambda table: table.assign(farm=["a", "b", None, "d", "e"]), "farm", "row 2 is empty"),
        (lambda table: table[:3].drop(columns="sample_index"), "rows", "3, but 5 patches"),
    ],
)
def test_ground_truth_that_does_not_fit_is_named(copy, edit, field, said):
    file = copy / "train_gt.csv"
    edit(pd.read_csv(file)).to_csv(file, index=False)
    with pytest.raises(PatchError, match=said) as error:
        load(copy)
    assert (error.value.file, error.value.field) == (str(file), field)


@pytest.mark.parametrize("option", ["fields", "ids"])
def test_options_of_other_sources_are_not_ignored(made, folder, option):
    sources = [folder, made.to_dataset()] if option == "ids" else [folder, list(made)]
    for source in sources:
        with pytest.raises(PatchError, match="leave") as error:
            load(source, **{option: np.arange(5)})
        assert error.value.field == option and error.value.file == (str(folder) if source is folder else "patches")


def test_columns_and_options_that_do_not_exist_are_named(copy):
    with pytest.raises(PatchError, match="columns are") as error:
        load(copy, targets=["Zn"])
    assert error.value.field == "Zn"
    shutil.copy(copy / "train_data" / "1.npz", copy / "train_data" / "01.npz")
    with pytest.raises(PatchError, match="two patches are named 1") as error:
        load(copy)
    assert error.value.field == "ids"
    with pytest.raises(ValueError, match="'percents'"):
        load(copy, unit="percents")
    with pytest.raises(ValueError, match="'ignore'"):
        load(copy, invalid="ignore")
    with pytest.raises(ValueError, match="'soil'"):
        load(copy, mask_means="soil")
    with pytest.raises(FileNotFoundError, match="copy"):
        load(copy.parent / "coppy")
    with pytest.raises(FileNotFoundError, match="npz"):
        load(shutil.copytree(copy, copy.parent / "empty", ignore=shutil.ignore_patterns("*.npz")))


def test_folders_of_training_and_test_are_told_apart(copy, made):
    shutil.copytree(copy / "train_data", copy / "test_data")
    with pytest.raises(PatchError, match="choose one of"):
        load(copy)
    assert load(copy / "train_data").targets.equals(made.targets)
    test = load(copy / "test_data")
    assert test.targets is None and same(test, made)


def test_errors_survive_other_processes():
    import pickle

    error = pickle.loads(pickle.dumps(PatchError("1.npz", "mask", "it is empty")))
    assert (error.file, error.field, str(error)) == ("1.npz", "mask", "1.npz: mask: it is empty")


def test_a_mistyped_name_is_named_as_a_file_and_as_a_dataset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="nosuch is neither a local file or folder nor"):
        load_patches("nosuch", progress=False)
