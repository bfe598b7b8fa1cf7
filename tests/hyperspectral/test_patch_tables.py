"""Ground truth, wavelengths and options that do not fit the patches are named."""

import shutil

import numpy as np
import pandas as pd
import pytest

from hf_msae.hyperspectral import HYPERVIEW2_TARGETS, HYPERVIEW_WAVELENGTHS, PatchError
from hf_msae.hyperspectral.ground_truth import read_table
from tests.hyperspectral.patch_files import load


def test_names_of_the_challenges_are_targets(copy, made):
    table = pd.read_csv(copy / "train_gt.csv")
    table.rename(columns={"P": "P2O5"}).iloc[::-1].to_csv(copy / "train_gt.csv", index=False)
    assert load(copy).targets.equals(made.targets)
    micro = pd.DataFrame({"sample_index": [f"{row:04}" for row in range(5)]})
    micro = micro.assign(**{name: np.arange(5.0) + place for place, name in enumerate(HYPERVIEW2_TARGETS)})
    assert load(copy, ground_truth=micro).targets.columns.tolist() == list(HYPERVIEW2_TARGETS)
    chosen = load(copy, ground_truth=micro.assign(clay=1.5, farm="x"), targets=["clay", "Fe"], groups=["S"])
    assert list(chosen.targets) == ["clay", "Fe"] and list(chosen.groups) == ["S"]


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
        (lambda table: table.assign(Mg=[1, 2, 3, "much", 5]), "Mg", "much of patch 3 .*0, 1"),
        (lambda table: table.assign(pH=[7, 71, 7, 7, 7]), "pH", "71.* of patch 1"),
        (lambda table: table.assign(P=[7, 7, -3, 7, 7]), "P", "-3.* of patch 2"),
        (lambda table: table.assign(clay=3), "clay", r"targets \(P, K, Mg, pH\) and groups \(farm, "),
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


@pytest.mark.parametrize("option", ["fields", "ids"])
def test_options_of_other_sources_are_not_ignored(made, folder, option):
    sources = [folder, made.to_dataset()] if option == "ids" else [folder, list(made)]
    for source in sources:
        with pytest.raises(PatchError, match="leave") as error:
            load(source, **{option: np.arange(5)})
        assert error.value.field == option and error.value.file == (str(folder) if source is folder else "patches")


def test_a_column_with_the_names_of_most_patches_is_that_of_ids(made):
    patches = {"source": list(made), "wavelengths": made.wavelengths, "ids": [f"plot {i}" for i in range(5)]}
    table = made.targets.assign(plot=[f"plot {i}" for i in (4, 3, 2, 1, 7)])
    with pytest.raises(PatchError, match=r"plot 0.*leave_out.*plot 7.*drop") as error:
        load(**patches, ground_truth=table)
    assert error.value.field == "plot"
    with pytest.warns(UserWarning, match="plot 7"):
        found = load(**patches, ground_truth=table, leave_out=["plot 0"], invalid="drop")
    assert found.targets["K"].tolist() == made.targets["K"][:4][::-1].tolist()
    numbers = {**patches, "ids": range(5)}
    measured = made.targets.assign(depth=[4, 3, 2, 1, 7])
    with pytest.warns(UserWarning, match="order"):
        assert load(**numbers, ground_truth=measured, targets=["K"], groups=[]).targets["K"].equals(made.targets["K"])


def test_two_columns_of_one_name_are_refused(tmp_path):
    table = pd.DataFrame([[row, row, row + 1] for row in range(12)], columns=["sample_index", "K", "K"])
    table.to_csv(tmp_path / "twice.csv", index=False)
    for source, name in ((table, "ground truth"), (tmp_path / "twice.csv", r"twice\.csv")):
        with pytest.raises(PatchError, match=f"{name}: K: two columns have this name"):
            read_table(source)
