"""Patches and groupings of one's own: ids to use or to leave out, and labels from another table."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge

from hf_msae.hyperspectral import PatchError, load_patches, make_patches
from hf_msae.hyperspectral.subject import make_subject


@pytest.fixture(scope="module")
def made():
    return make_patches(6, seed=3, edges=(11, 12), wavelengths=np.linspace(500, 900, 9))


@pytest.fixture(scope="module")
def folder(made, tmp_path_factory):
    path = tmp_path_factory.mktemp("chosen")
    made.save(path)
    file = path / "train_gt.csv"
    pd.read_csv(file).assign(operator=list("abcabc"), height=np.arange(6) + 0.5, plot=[7, 7, 8, 8, 9, 9]).to_csv(
        file, index=False
    )
    return path


def load(folder, **options):
    return load_patches(folder, progress=False, **options)


def test_columns_of_the_ground_truth_are_groupings(folder, made):
    found = load(folder, groups=["operator", "height", "plot"])
    assert found.groups["operator"].tolist() == list("abcabc") and found.groups["plot"].tolist() == list("778899")
    assert found.groups["height"].dtype == float, "a measurement is no name"
    assert found.targets.equals(made.targets) and "farm" not in found.groups
    with pytest.raises(PatchError, match="no such column") as error:
        load(folder, groups=["drone"])
    assert error.value.field == "drone"
    again = load(found.to_dataset(), groups=["operator", "height"])
    assert again.groups["height"].tolist() == found.groups["height"].tolist()


@pytest.mark.parametrize("column", ["patch", " ID ", "field"])
def test_rows_belong_to_the_patch_that_any_column_names(folder, made, column):
    table = pd.read_csv(folder / "train_gt.csv").rename(columns={"sample_index": column})[::-1]
    options = {"targets": ["P"], "groups": ["operator", "field"] if column == "field" else ["operator"]}
    found = load(folder, ground_truth=table, **options)
    assert found.targets["P"].tolist() == made.targets["P"].tolist()
    assert found.groups["operator"].tolist() == list("abcabc") and list(found.groups) == options["groups"]
    some = load(folder, ground_truth=table[:2], only=["4", "5"], **options)
    assert some.targets["P"].tolist() == made.targets["P"].tolist()[4:]


def test_rows_belong_to_the_patch_that_the_index_names(folder, made):
    table = pd.read_csv(folder / "train_gt.csv")[::-1]
    for named in (table.set_index("sample_index"), table, table.drop(columns="sample_index")):
        found = load(folder, ground_truth=named, targets=["P"], groups=["operator"])
        assert found.targets["P"].tolist() == made.targets["P"].tolist()
        assert found.groups["operator"].tolist() == list("abcabc")


def test_rows_that_go_by_order_are_warned_of(folder, made):
    table = pd.read_csv(folder / "train_gt.csv").rename(columns={"sample_index": "Feld"})
    table["Feld"] += 1
    with pytest.warns(UserWarning, match="Feld"):
        found = load(folder, ground_truth=table, targets=["P"], groups=["operator", "height", "plot"])
    assert found.targets["P"].tolist() == made.targets["P"].tolist()
    named = {"ids": list("abcdef"), "wavelengths": made.wavelengths}
    with pytest.warns(UserWarning, match="a, b, c"):
        load(list(made), ground_truth=made.targets, **named)


def test_tables_of_spreadsheets_are_read(folder, made, tmp_path):
    table, file = pd.read_csv(folder / "train_gt.csv"), tmp_path / "gt.csv"
    for options in ({"sep": ";"}, {"sep": "\t"}, {"sep": ";", "decimal": ","}):
        table.to_csv(file, index=False, **options)
        found = load(folder, ground_truth=file, groups=["operator", "height"])
        assert found.targets.equals(made.targets) and found.groups["height"].tolist() == (np.arange(6) + 0.5).tolist()
    for content, field in (("sample_index,P\n0,Düne\n".encode("latin-1"), "encoding"), (b"", "file")):
        file.write_bytes(content)
        with pytest.raises(PatchError) as error:
            load(folder, ground_truth=file)
        assert (error.value.file, error.value.field) == (str(file), field)


def test_rows_of_a_dataset_without_ids_are_those_of_its_patches(made):
    rows = made.to_dataset().rename_column("sample_index", "rank").select(range(5, -1, -1))
    assert load(rows, targets=["P"], groups=["farm"]).targets["P"].tolist() == made.targets["P"].tolist()[::-1]


def test_groupings_of_another_table_come_beside(folder, tmp_path):
    table = pd.DataFrame({"id": ["5", "0", "1", "2", "3", "4", "99"], "drone": [1, 2, 2, 2, 1, 1, 3]})
    table.to_csv(tmp_path / "groups.csv", index=False)
    known = load(folder, groups=["farm", "drone"], group_table=tmp_path / "groups.csv")
    assert list(known.groups) == ["farm", "drone"] and known.groups["drone"].tolist() == list("222111")
    targets = list(known.targets)
    every = load(folder, targets=targets, group_table=table)
    assert set(every.groups) == {"farm", "date", "instrument", "drone"}
    for wrong, field in [(table.drop(columns="id"), "sample_index"), (table[1:], "id")]:
        with pytest.raises(PatchError) as error:
            load(folder, targets=targets, group_table=wrong)
        assert (error.value.file, error.value.field) == ("ground truth", field)
    with pytest.raises(PatchError, match="ground truth") as error:
        load(folder, targets=targets, group_table=table.rename(columns={"drone": "farm"}))
    assert error.value.field == "farm"


def test_patches_are_chosen_by_name(folder, made, tmp_path):
    targets = list(made.targets)
    (tmp_path / "ids.txt").write_text("4\n 1\n")
    pd.DataFrame({"sample_index": [4, 1]}).to_csv(tmp_path / "ids.csv", index=False)
    for only in ([1, "4"], tmp_path / "ids.txt", tmp_path / "ids.csv"):
        found = load(folder, targets=targets, only=only)
        assert found.ids == ["1", "4"] and found.targets["K"].tolist() == made.targets["K"].iloc[[1, 4]].tolist()
        assert np.array_equal(found[1][0], made[4][0]) and found.truth["strength"].shape == (2, 4)
    assert load(folder, targets=targets, leave_out=["0", "5"]).ids == list("1234")
    assert load(folder, targets=targets, only=[0, 1], leave_out=["0"]).ids == ["1"]
    with pytest.raises(PatchError, match="no patch 17") as error:
        load(folder, targets=targets, only=[1, 17])
    assert error.value.field == "only"
    with pytest.raises(PatchError, match="no patch is left"):
        load(folder, targets=targets, only=[1], leave_out=[1])


def test_patches_that_are_left_out_are_not_checked(made):
    broken = [(np.full_like(data, np.nan) if row == 2 else data, mask) for row, (data, mask) in enumerate(made)]
    with pytest.raises(PatchError, match="not finite"):
        load(broken, wavelengths=made.wavelengths)
    assert load(broken, wavelengths=made.wavelengths, leave_out=[2]).ids == list("01345")


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (np.arange(60) // 2, {str(i) for i in range(30)}),
        ((np.arange(60) // 2).astype(float), {str(i) for i in range(30)}),
        (np.array([10**6 + i // 2 for i in range(60)], dtype=np.uint32), {str(10**6 + i) for i in range(30)}),
        (np.tile([0.5, 1.5], 30), {"0.5", "1.5"}),
    ],
    ids=["integers", "integral floats", "ids", "few fractions"],
)
def test_numbers_of_groups_are_names(labels, names):
    subject = make_subject(Ridge(), np.eye(60), np.arange(60.0), {"plot": labels})
    assert set(subject.groups["plot"]) == names and subject.remarks == ()


def test_measurements_are_cut_and_the_report_says_so():
    subject = make_subject(Ridge(), np.eye(60), np.arange(60.0), {"height": np.linspace(0, 1, 60)})
    assert len(set(subject.groups["height"])) == 5
    (remark,) = subject.remarks
    assert "height" in remark and "60" in remark and "5 quantiles" in remark
