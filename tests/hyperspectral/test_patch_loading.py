"""Patches come from every kind of source alike."""

import shutil
from dataclasses import replace
from datetime import datetime

import datasets
import numpy as np
import pandas as pd
import pytest

from hf_msae.hyperspectral import HYPERVIEW2_TARGETS, PatchError, load_patches
from tests.hyperspectral.patch_files import load, of, same


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


@pytest.mark.parametrize("odd", ["a/1", ""])
def test_ids_that_are_no_names_of_files_are_refused_before_anything_is_written(made, tmp_path, odd):
    with pytest.raises(ValueError, match=f"'{odd}'"):
        replace(made, ids=["1", "2", "3", "4", odd]).save(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


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
    days = [datetime(2021, 5, 1 + row % 2) for row in range(len(made))]
    dated = load(dataset.remove_columns("date").add_column("date", days)).groups["date"]
    assert dated.tolist() == [f"2021-05-0{1 + row % 2}" for row in range(len(made))]
    farms = datasets.ClassLabel(names=sorted(set(dataset["farm"])))
    assert load(dataset.cast_column("farm", farms)).groups["farm"].tolist() == made.groups["farm"].tolist()
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
    masked = [np.ma.MaskedArray(data, np.broadcast_to(mask, data.shape)) for data, mask in made]
    assert same(load(masked, wavelengths=made.wavelengths), made)
    corner = np.zeros_like(masked[0].mask[0])
    corner[0, 0] = True
    both = load([(masked[0], corner)], wavelengths=made.wavelengths, mask_means="outside")
    assert np.array_equal(both[0][1], made[0][1] | corner)
    cubes = np.stack([data[:, :9, :9] for data, _ in made])
    assert load(cubes, wavelengths=made.wavelengths, ids=list("abcde")).ids == list("abcde")


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
    unsigned = {**header, "data ignore value": -9999}  # which no pixel can have
    envi.save_image(tmp_path / "zeros" / "2.hdr", cube.astype(np.uint16), metadata=unsigned, force=True)
    with pytest.raises(PatchError, match="0 in all bands"):
        load(tmp_path / "zeros")
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
    parcels = load(tmp_path / "scene.hdr", fields=np.where(fields == 7, 3 * 10**11, fields - 1))
    assert parcels.ids == ["3", "300000000000"] and np.allclose(parcels.mean_spectra, found.mean_spectra)
    with pytest.raises(PatchError, match="labels of its fields"):
        load(tmp_path / "scene.hdr")
    with pytest.raises(PatchError, match="shape") as error:
        load(tmp_path / "scene.hdr", fields=fields[1:])
    assert error.value.field == "fields"


@pytest.mark.parametrize("ignored", [-9999, np.nan])
def test_ignored_values_are_outside_fields_and_cubes(made, tmp_path, ignored):
    envi = pytest.importorskip("spectral.io.envi", reason="needs the extra hyperspectral")
    data, mask = made[0]
    header = {"wavelength": list(made.wavelengths), "data ignore value": ignored}
    envi.save_image(tmp_path / "0.hdr", np.moveaxis(np.where(mask, ignored, data), 0, -1), metadata=header)
    for found in (load(tmp_path), load(tmp_path / "0.hdr", fields=np.ones_like(mask))):
        assert np.array_equal(found[0][1], mask)
        assert np.allclose(found.mean_spectra, made.mean_spectra[:1])


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


def test_a_folder_of_any_name_keeps_its_ground_truth(made, tmp_path):
    made.save(tmp_path / "test_run")
    assert load(tmp_path / "test_run").targets.equals(made.targets)


def test_folders_of_training_and_test_are_told_apart(copy, made):
    shutil.copytree(copy / "train_data", copy / "test_data")
    with pytest.raises(PatchError, match="choose one of"):
        load(copy)
    assert load(copy / "train_data").targets.equals(made.targets)
    test = load(copy / "test_data")
    assert test.targets is None and same(test, made)


def test_a_mistyped_name_is_named_as_a_file_and_as_a_dataset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="'nosuch' is neither a file or folder nor"):
        load_patches("nosuch", progress=False)
