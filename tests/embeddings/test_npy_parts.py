"""Numbered .npy files in a folder, as clip-retrieval writes them, are one matrix with its metadata."""

import pickle
import shutil

import numpy as np
import pandas as pd
import pytest

from hf_msae.embeddings import load_embeddings, npy

SIZES = {0: 3, 1: 2, 2: 4, 10: 5}  # 10 comes after 2, unlike in the order of names
X = np.random.default_rng(0).normal(size=(sum(SIZES.values()), 4)).astype(np.float16)
CAPTIONS = [f"caption {row}" for row in range(len(X))]


@pytest.fixture
def folder(tmp_path):
    for name, sign in (("img_emb", 1), ("text_emb", -1)):
        (tmp_path / name).mkdir()
        start = 0
        for number, rows in SIZES.items():
            np.save(tmp_path / name / f"{name}_{number}.npy", sign * X[start : start + rows])
            start += rows
    (tmp_path / "metadata").mkdir()
    start = 0
    for number, rows in SIZES.items():
        frame = pd.DataFrame({"caption": CAPTIONS[start : start + rows]})
        frame.to_parquet(tmp_path / "metadata" / f"metadata_{number}.parquet")
        start += rows
    return tmp_path


@pytest.mark.parametrize(
    ("inside", "hook_point", "sign"),
    [
        ("", "image_embeds", 1),
        ("", "text_embeds", -1),
        ("img_emb", "image_embeds", 1),
        ("text_emb", "image_embeds", -1),
    ],
)
def test_parts_come_in_numeric_order_with_their_metadata(folder, inside, hook_point, sign):
    opened = load_embeddings(folder / inside, hook_point=hook_point)
    np.testing.assert_array_equal(opened[:].numpy(), sign * X.astype(np.float32))
    assert opened.dataset["caption"][:] == CAPTIONS
    assert opened.location(9) == f" (in {folder / (inside or 'img_emb')}/{inside or 'img_emb'}_10.npy)"
    np.testing.assert_allclose(opened.statistics().mean, sign * X.astype(np.float64).mean(axis=0), rtol=1e-3)


def test_another_process_maps_the_files_again(folder):
    opened = load_embeddings(folder)
    content = pickle.dumps(opened)
    assert len(content) < 5000 and X[:2].tobytes() not in content
    again = pickle.loads(content)
    np.testing.assert_array_equal(again[:], opened[:])
    assert again.dataset["caption"][:] == CAPTIONS


def test_the_files_are_not_copied(folder, monkeypatch):
    mapped, open_npy = [], npy.open_npy
    monkeypatch.setattr(npy, "open_npy", lambda path: mapped.append(open_npy(path)) or mapped[-1])
    views = load_embeddings(folder)._views
    assert [np.shares_memory(*pair) for pair in zip(views, mapped[:4], strict=True)] == [True] * 4


def test_without_metadata(folder):
    shutil.rmtree(folder / "metadata")
    assert load_embeddings(folder).dataset.column_names == ["image_embeds", "text_embeds"]
    assert load_embeddings(folder / "img_emb").column == "image_embeds"


def test_a_folder_of_any_name_and_one_file(tmp_path):
    (tmp_path / "mine").mkdir()
    np.save(tmp_path / "mine" / "vectors.npy", X)
    opened = load_embeddings(tmp_path / "mine")
    assert opened.column == "mine"
    np.testing.assert_array_equal(opened[:], X.astype(np.float32))


PART, METADATA = "img_emb/img_emb_1.npy", "metadata/metadata_2.parquet"


def copied_as(name):
    return lambda folder: shutil.copy(folder / PART, folder / "img_emb" / name)


def with_a_column_of_its_own(folder):
    for number, rows in SIZES.items():
        pd.DataFrame({"text_embeds": [1] * rows}).to_parquet(folder / f"metadata/metadata_{number}.parquet")


DAMAGES = {
    "rows": (
        lambda folder: np.save(folder / PART, X[:3]),
        r"img_emb_1\.npy has 3 rows|text_emb_1\.npy has 2 rows, but .*img_emb_1\.npy has 3",
    ),
    "width": (lambda folder: np.save(folder / PART, X[:2, :3]), r"img_emb_1\.npy has width 3"),
    "dtype": (lambda folder: np.save(folder / PART, X[:2].astype(np.float32)), r"img_emb_1\.npy .*float32.*float16"),
    "truncated": (
        lambda folder: (folder / PART).write_bytes((folder / PART).read_bytes()[:-4]),
        r"img_emb_1\.npy cannot be read",
    ),
    "twice": (copied_as("img_emb_01.npy"), r"img_emb_01\.npy.*same number"),
    "no number": (copied_as("mean.npy"), r"mean\.npy has no number"),
    "mixed": (copied_as("other_7.npy"), r"img_emb_0\.npy and other_7\.npy"),
    "one column": (lambda folder: (folder / PART).unlink(), "part 1 of only one of image_embeds and text_embeds"),
    "metadata missing": (lambda folder: (folder / METADATA).unlink(), "metadata has no part 2"),
    "metadata rows": (
        lambda folder: pd.DataFrame({"caption": ["one"]}).to_parquet(folder / METADATA),
        r"metadata_2\.parquet has 1 rows, but .*img_emb_2\.npy has 4",
    ),
    "metadata name": (with_a_column_of_its_own, "metadata has a column 'text_embeds'"),
}


@pytest.mark.parametrize(("damage", "named"), DAMAGES.values(), ids=DAMAGES)
def test_parts_that_do_not_fit_are_refused_by_name(folder, damage, named):
    damage(folder)
    with pytest.raises(ValueError, match=named):
        load_embeddings(folder)


def test_a_missing_part_is_reported(folder, caplog):
    load_embeddings(folder / "img_emb")
    assert "img_emb has no part 3" in caplog.text
