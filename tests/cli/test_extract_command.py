"""`hf-msae extract`: what it says at the end."""

import csv
import re

import pytest
from datasets import DatasetDict

from hf_msae.backbones.image_text_data import open_dataset
from hf_msae.backbones.pictures import remarks
from hf_msae.cli.extract import ExtractionArguments, main, next_flags
from hf_msae.cli.opening import ImageArguments
from hf_msae.embeddings import load_embeddings


@pytest.mark.parametrize(
    ("dataset", "split", "folder", "flag"),
    [
        ("scenes:train:20", None, "e/a", "--train_data"),
        ("scenes:test:20:3", None, "e/a", "--eval_data"),
        ("clipart:validation", None, "e/a", "--eval_data"),
        ("user/photos", "validation[:100]", "e/a", "--eval_data"),
        ("user/photos", "train", "e/latest", "--train_data"),
        ("photos/test", None, "e/a", "--eval_data"),
        ("photos", None, "e/celeba-test", "--eval_data"),
        ("contest/photos", None, "e/a", "--train_data"),
    ],
)
def test_a_test_split_is_suggested_for_evaluation(dataset, split, folder, flag):
    arguments = ExtractionArguments(backbone="scenes", dataset=dataset, split=split, output_dir=folder)
    assert f"{flag} {folder}" in next_flags(arguments)
    arguments.test_size = 0.2
    assert {"--train_data", "--eval_data"} <= set(next_flags(arguments).split())


def test_the_end_names_the_backbone_and_the_next_command(tmp_path, capsys):
    folder = tmp_path / "out"
    main(["--backbone", "scenes", "--dataset", "scenes:test:8", "--output_dir", str(folder), "--use_cpu",
          "--disable_tqdm"])  # fmt: skip
    printed = capsys.readouterr().out
    assert "Backbone(" not in printed and "hf_msae/scenes-siglip (SiglipModel)" in printed
    assert printed.rstrip().splitlines()[-1].startswith("Next: hf-msae train --train_data ")
    assert f"--eval_data {folder}" in printed


@pytest.mark.parametrize("number", [3, 1000])
def test_a_trial_embeds_rows_spread_over_the_dataset(place, tmp_path, number):
    flags = ["--backbone", "scenes", "--dataset", "scenes:test:8:3", "--max_rows", str(number)]
    main([*flags, "--output_dir", str(tmp_path / "trial"), "--disable_tqdm", "--use_cpu"])
    embeddings, rows = load_embeddings(tmp_path / "trial"), [0, 2, 5] if number == 3 else range(8)
    scenes = place.scenes["test"].select(rows)
    assert embeddings.dataset["caption"][:] == scenes["caption"][:]
    images = ImageArguments().open_images(embeddings)
    assert images["caption"][:] == scenes["caption"][:]


def extract(dataset, output, *flags):
    main(["--backbone", "scenes", "--dataset", str(dataset), *flags, "--output_dir", str(output), "--disable_tqdm",
          "--use_cpu"])  # fmt: skip
    return load_embeddings(output)


@pytest.fixture
def pictures(place, tmp_path):
    """Ten scenes in folders of different depths, two of which have the same name."""
    paths = [
        f"pictures/{folder}/{name}"
        for folder in ("a/x", "b")
        for name in ("0.png", "1.png", "2.png", "3.png", "4.png")
    ]
    for path, scene in zip(paths, place.scenes["test"], strict=False):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        scene["image"].save(tmp_path / path)
    return tmp_path / "pictures"


def test_the_name_of_a_file_says_which_folder_it_is_in(pictures, tmp_path, recwarn):
    names = extract(pictures, tmp_path / "out").dataset["file_name"][:]
    assert sorted(names) == sorted(str(file.relative_to(pictures)) for file in pictures.rglob("*.png"))
    with open(pictures / "metadata.csv", "w") as file:
        csv.writer(file).writerows([["file_name", "number"], *([name, place] for place, name in enumerate(names))])
    found = extract(pictures, tmp_path / "described").dataset
    assert dict(zip(found["file_name"], found["number"], strict=True)) == dict(zip(names, range(10), strict=True))


def test_what_is_left_out_of_a_folder_is_said(pictures, tmp_path):
    for name in ("a/logo.svg", "b/logo.SVG", "IMG_1.HEIC", "notes.txt"):
        (pictures / name).write_text("not a picture that can be read")
    with pytest.warns(UserWarning) as warned:
        assert len(extract(pictures, tmp_path / "out")) == 10
    said = " ".join(str(each.message) for each in warned)
    assert "2 .svg, 1 .heic" in said and "in 1 to 2 folders" in said and "metadata.csv" in said
    for file in (pictures / "b").iterdir():  # now the folders that hold pictures have one name
        (pictures / "b" / "x").mkdir(exist_ok=True)
        if file.suffix == ".png":
            file.rename(pictures / "b" / "x" / file.name)
    (said,) = (each for each in remarks(str(pictures), ["image"]) if "labels" in each)
    assert "all called x" in said and "metadata.csv" in said
    for file in (pictures / "b" / "x").iterdir():
        file.rename(pictures / "b" / file.name)
    for file in (pictures / "a" / "x").iterdir():  # now every folder is a label
        file.rename(pictures / "a" / file.name)
    for file in (*pictures.rglob("*.[sS][vV][gG]"), pictures / "IMG_1.HEIC"):
        file.unlink()
    found = open_dataset(str(pictures))
    assert found.features["label"].names == ["a", "b"] and remarks(str(pictures), found.column_names) == []


def test_a_test_split_is_set_aside_and_its_pictures_are_found_again(pictures, tmp_path):
    flags = ["--test_size", "0.3", "--split"]
    found = {split: extract(pictures, tmp_path / split, *flags, split) for split in ("train", "test")}
    names = {split: each.dataset["file_name"][:] for split, each in found.items()}
    assert (len(names["train"]), len(names["test"])) == (7, 3)
    assert len({*names["train"], *names["test"]}) == 10
    for split, each in found.items():
        assert each.provenance["dataset_split"] == split
        files = [row["image"]["path"] for row in ImageArguments().open_images(each)]
        assert [file.removeprefix(f"{pictures}/") for file in files] == names[split]


def test_the_rows_of_a_configuration_and_of_a_stream_are_found_again(place, tmp_path):
    folder, shown = tmp_path / "data", place.scenes["test"].select_columns(["image", "caption"])
    configs = "".join(f"- config_name: {name}\n  data_files: {name}.parquet\n" for name in ("one", "two"))
    folder.mkdir()
    (folder / "README.md").write_text(f"---\nconfigs:\n{configs}  default: true\n---\n")
    for name, start in (("one", 0), ("two", 8)):
        shown.select(range(start, start + 8)).to_parquet(folder / f"{name}.parquet")
    found = extract(folder, tmp_path / "out", "--dataset_config_name", "one", "--streaming", "--max_rows", "4")
    assert found.dataset["caption"][:] == shown["caption"][:4]
    assert ImageArguments().open_images(found)["caption"][:] == shown["caption"][:4]


def test_pictures_are_those_of_the_split_whatever_split_they_were_of_before(place, tmp_path):
    """`datasets` goes on to say of both splits that they are "test"."""
    parts = place.scenes["test"].select_columns(["image", "caption"]).select(range(8)).train_test_split(0.5, seed=0)
    DatasetDict(a=parts["train"], b=parts["test"]).save_to_disk(tmp_path / "saved")
    DatasetDict(only=parts["test"]).save_to_disk(tmp_path / "one")
    for folder, name, flags in (
        ("saved", "a", ["--split", "a"]),
        ("saved", "b", ["--split", "b"]),
        ("one", "only", []),
    ):
        found = extract(tmp_path / folder, tmp_path / name, *flags)
        assert found.provenance["dataset_split"] == name
        assert ImageArguments().open_images(found)["caption"][:] == found.dataset["caption"][:]
    assert found.dataset["caption"][:] == parts["test"]["caption"][:]


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--split", "train[:80%]"], r"pictures has no split 'train\[:80%\]'.*--test_size"),
        (["--split", "test"], "pictures has no split 'test'.*--test_size"),
        (["--test_size", "0.2"], "train, test: choose one"),
        (["--test_size", "0.2", "--split", "validation"], "'validation'.*train, test"),
        (["--test_size", "1.5", "--split", "test"], "test_size.*1.5"),
        (["--test_size", "0.2", "--split", "test", "--streaming"], "stream.*test_size"),
    ],
)
def test_splits_that_cannot_be_made_are_refused(pictures, tmp_path, capsys, flags, named):
    with pytest.raises(SystemExit):
        extract(pictures, tmp_path / "out", *flags)
    assert re.search(named, capsys.readouterr().err)


def test_a_dataset_with_splits_keeps_them(pictures):
    (pictures / "a").rename(pictures / "train")
    (pictures / "b").rename(pictures / "test")
    with pytest.raises(ValueError, match=r"train.*test_size"):
        open_dataset(str(pictures), "test", test_size=0.2)
    with pytest.raises(ValueError, match=r"scenes:test:9.*test_size"):
        open_dataset("scenes:test:9", test_size=0.2)
