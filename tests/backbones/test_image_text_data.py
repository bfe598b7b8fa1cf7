"""Folders of pictures are read whole, whatever their files are called."""

import csv
import glob
from pathlib import Path

import pytest
from datasets import Dataset
from datasets.data_files import DataFilesList
from PIL import Image

from hf_msae.backbones.image_text_data import _files_below, open_dataset
from hf_msae.backbones.pictures import remarks


def draw(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", (8, 8)).save(folder / name)


@pytest.mark.parametrize("place", ["train", "a[1]/pictures"])
def test_names_of_files_are_no_splits(tmp_path, place):
    names = ["my_test_1.png", "other.png", "train_0.png"]
    draw(tmp_path / place, *names)
    assert len(open_dataset(str(tmp_path / place))) == 3
    with open(tmp_path / place / "metadata.csv", "w") as file:
        csv.writer(file).writerows([["file_name", "caption", "flag"], *([name, name[:4], 1] for name in names)])
    found = open_dataset(str(tmp_path / place))
    assert (found["caption"], found["flag"]) == (["my_t", "othe", "trai"], [1, 1, 1])
    with pytest.raises(ValueError, match="test"):
        open_dataset(str(tmp_path / place), "test")


def test_the_files_are_those_that_datasets_finds(tmp_path):
    folder, other = tmp_path / "a[1]" / ".hidden" / "__pictures", tmp_path / "other"
    for place in (folder, folder / "cat", folder / "cat-2" / "small", folder / ".git", folder / "__pycache__", other):
        draw(place, "b.png", "a.png", ".c.png", "a b.png", "B.png")
    for name in ("cat/README.md", "cat/config.json", "cat/notes.txt", "metadata.csv"):
        (folder / name).write_text("")
    for name, target in (("link.png", other / "a.png"), ("broken.png", other / "none.png"), ("linked", other)):
        (folder / name).symlink_to(target)
    expected = DataFilesList.from_patterns([f"{glob.escape(str(folder))}/**"])
    found = _files_below(folder)
    assert list(found) == list(expected) and len(found) == 4 * 3 + 3
    assert found.origin_metadata == expected.origin_metadata


def test_folders_are_classes_unless_they_are_splits(tmp_path):
    draw(tmp_path / "classes" / "cat", "test_0.png", "1.png")
    draw(tmp_path / "classes" / "dog", "test_1.png")
    found = open_dataset(str(tmp_path / "classes"))
    assert found["label"] == [0, 0, 1] and found.features["label"].names == ["cat", "dog"]
    draw(tmp_path / "splits" / "train", "0.png", "1.png")
    draw(tmp_path / "splits" / "test", "2.png")
    assert [len(open_dataset(str(tmp_path / "splits"), split)) for split in ("train", "test")] == [2, 1]
    assert "label" not in open_dataset(str(tmp_path / "splits"), "train").column_names
    for split in ("train", "test"):
        draw(tmp_path / "both" / split / "cat", "0.png")
        draw(tmp_path / "both" / split / "dog", "1.png")
    assert open_dataset(str(tmp_path / "both"), "test").features["label"].names == ["cat", "dog"]


@pytest.mark.parametrize(
    "folders",
    [
        ["bus", "car", "train"],  # classes of COCO
        ["beaker", "test tube"],
        ["cats/pug", "dogs/test persian"],
    ],
)
def test_classes_may_be_named_like_splits(tmp_path, folders):
    for folder in folders:
        draw(tmp_path / folder, "test_1.png", "train_station.png", "b.png")
    (tmp_path / "README.md").write_text("# Pictures\nThese are mine.\n")
    found = open_dataset(str(tmp_path))
    assert found.features["label"].names == [Path(folder).name for folder in folders]
    assert len(found) == 3 * len(folders) and remarks(str(tmp_path), found.column_names) == []


@pytest.mark.parametrize(
    ("folders", "split"),
    [
        (["images/train2017/a", "images/val2017/a"], "validation"),  # as COCO's
        (["my-train", "my-test"], "test"),
        (["train", "test", "bus"], "test"),
    ],
)
def test_splits_are_found_at_any_depth(tmp_path, folders, split):
    for folder in folders:
        draw(tmp_path / folder, "0.png", "1.png")
    found = open_dataset(str(tmp_path), split)
    assert len(found) == 2
    left_out = " ".join(remarks(str(tmp_path), found.column_names))
    assert ("bus/" in left_out and "2 of its pictures" in left_out) == ("bus" in folders)


def test_links_to_folders_are_named(tmp_path):
    draw(tmp_path / "pictures" / "cat", "0.png")
    draw(tmp_path / "elsewhere", "1.png")
    (tmp_path / "pictures" / "dog").symlink_to(tmp_path / "elsewhere")
    found = open_dataset(str(tmp_path / "pictures"))
    assert len(found) == 1
    (said,) = remarks(str(tmp_path / "pictures"), found.column_names)
    assert "(dog)" in said


def test_the_front_matter_of_a_readme_makes_splits(tmp_path):
    draw(tmp_path / "a", "0.png")
    draw(tmp_path / "b", "1.png", "2.png")
    files = "".join(f"  - split: {split}\n    path: {folder}/*\n" for split, folder in (("train", "a"), ("test", "b")))
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}---\n")
    assert len(open_dataset(str(tmp_path), "test")) == 2


def test_captions_that_do_not_say_of_which_picture_they_are_are_refused(tmp_path):
    draw(tmp_path, "0.png")
    (tmp_path / "metadata.csv").write_text("filename,caption\n0.png,x")
    with pytest.raises(ValueError, match=rf"{tmp_path}.*`file_name`.*metadata"):
        open_dataset(str(tmp_path))


def test_a_test_split_is_drawn_without_writing_to_the_data(tmp_path):
    data = Dataset.from_dict({"row": range(10)})
    data.save_to_disk(tmp_path / "data")
    files = sorted((tmp_path / "data").iterdir())
    parts = {
        split: open_dataset(str(tmp_path / "data"), split, test_size=0.2)["row"][:] for split in ("train", "test")
    }
    assert sorted((tmp_path / "data").iterdir()) == files  # it may be read-only
    expected = data.train_test_split(0.2, seed=0)
    assert parts == {split: each["row"][:] for split, each in expected.items()}
