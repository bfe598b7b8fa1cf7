"""The name of a file or folder is a name, not a pattern."""

import tarfile

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from hf_msae.backbones.image_text_data import open_dataset
from hf_msae.embeddings import load_embeddings


def _write(folder, kind, value):
    """Write one row whose value tells this folder from the other."""
    folder.mkdir()
    Image.new("RGB", (4, 4), (value, 0, 0)).save(folder / "a.png")
    if kind == "images":
        return folder
    if kind == "tar":
        with tarfile.open(folder / "a.tar", "w") as tar:
            tar.add(folder / "a.png", "a.png")
        (folder / "a.png").unlink()
        return folder / "a.tar"
    (folder / "a.png").unlink()
    table = pa.table({"image_embeds": pa.FixedSizeListArray.from_arrays(np.float32([value, value + 1]), 2)})
    if kind == "saved":
        datasets.Dataset(table).save_to_disk(folder)
        return folder
    pq.write_table(table, folder / "e.parquet")
    return folder if kind == "folder" else folder / "e.parquet"


NAMES = ("run[1]", "run*", "run?", "[ab")
"""Odd names, which all but the last fit "run1" if they are taken for patterns."""


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["parquet", "folder", "saved"])
def test_embeddings_of_an_odd_folder(tmp_path, kind, name):
    _write(tmp_path / "run1", kind, 1)
    odd = load_embeddings(_write(tmp_path / name, kind, 7))
    assert odd[:].tolist() == [[7.0, 8.0]] and odd.source.startswith(str(tmp_path / name))


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("kind", "name"),
    [*(("folder", name) for name in NAMES), *((kind, "run[1]") for kind in ("images", "tar", "parquet"))],
)
def test_data_of_an_odd_folder(tmp_path, kind, name, streaming):
    _write(tmp_path / "run1", kind, 1)
    rows = list(open_dataset(str(_write(tmp_path / name, kind, 7)), streaming=streaming))
    assert len(rows) == 1
    first = rows[0].get("image_embeds") or rows[0].get("image", rows[0].get("png")).getpixel((0, 0))
    assert first[0] == 7


README = """---
configs:
- config_name: first
  data_files: [{split: train, path: e.parquet}]
- config_name: other
  data_files: [{split: test, path: "o*.parquet"}]
---
"""


@pytest.mark.parametrize("name", ["plain", "run[1]"])
def test_the_data_files_of_a_readme(tmp_path, name):
    folder = _write(tmp_path / name, "folder", 7)
    (folder / "e.parquet").rename(folder / "other.parquet")
    pq.write_table(pa.table({"image_embeds": [[1.0, 2.0]]}), folder / "e.parquet")
    (folder / "README.md").write_text(README)
    with pytest.raises(ValueError, match=r"README\.md.*first, other"):
        load_embeddings(folder)
    assert open_dataset(str(folder), config_name="other")["image_embeds"][:] == [[7.0, 8.0]]
    assert open_dataset(str(folder), config_name="first")["image_embeds"][:] == [[1.0, 2.0]]
    (folder / "README.md").write_text(README.replace("config_name: other", "config_name: default"))
    assert load_embeddings(folder, split="test")[:].tolist() == [[7.0, 8.0]]
    (folder / "README.md").write_text("---\nconfigs: [\n---\n")
    with pytest.raises(ValueError, match=r"README\.md"):
        load_embeddings(folder)


@pytest.mark.parametrize("kind", ["file", "folder", "images", "tar"])
def test_data_are_read_where_the_cache_of_datasets_cannot_be_written_to(tmp_path, monkeypatch, kind):
    source = str(_write(tmp_path / "run", kind, 7))
    (tmp_path / "home").touch()  # a folder of it cannot be made, not even by the superuser
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "home" / "datasets")
    monkeypatch.setenv("HF_MSAE_CACHE", str(tmp_path / "cache"))
    if kind in ("images", "tar"):
        assert len(open_dataset(source)) == 1
    else:
        assert load_embeddings(source)[:].tolist() == [[7.0, 8.0]]
    assert any((tmp_path / "cache" / "datasets").iterdir())


def test_a_pattern_is_one_where_it_is_documented(tmp_path):
    for number in (1, 2):
        _write(tmp_path / f"run[{number}]", "tar", number)
        (tmp_path / f"run[{number}]" / "a.tar").rename(tmp_path / f"{number}.tar")
    assert len(open_dataset(str(tmp_path / "*.tar"))) == 2
