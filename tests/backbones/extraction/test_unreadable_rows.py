"""Rows that cannot be read are left out and noted."""

import io
import signal
import struct

import datasets
import numpy as np
import pytest
from PIL import Image

from hf_msae.backbones.extraction import extract_activations
from hf_msae.embeddings import load_embeddings, verify_embeddings
from hf_msae.embeddings.metadata import EmbeddingMetadata
from tests.backbones.extraction.data import (
    column,
    encoded,
    exit_code,
    fork,
    ids,
    in_one_process,
    in_two_processes,
    numbered,
    picture,
)

BAD = [0, 5, 6, 7, 8, 9, 23, 41, 44]  # the first, a whole batch of five, two at the end, the last
SETTINGS = {"batch_size": 5, "rows_per_shard": 10, "progress": False, "on_unreadable": "skip"}


def damaged():
    """Images some of which are not images, one is cut off, and one is missing."""
    rows = numbered(45, BAD).cast_column("image", datasets.Image(decode=False)).to_dict()
    rows["image"][23] = {"bytes": encoded(23)[:100], "path": None}
    rows["image"][41] = None
    return datasets.Dataset.from_dict(rows, features=numbered(1).features)


def check(folder, backbone, rows=45, bad=BAD):
    good = [row for row in range(rows) if row not in bad]
    assert ids(folder) == good
    assert EmbeddingMetadata.load(folder).skipped == bad
    expected = backbone.image_embeds([picture(row) for row in good])
    np.testing.assert_allclose(load_embeddings(folder)[:].numpy(), expected.numpy(), rtol=1e-4, atol=1e-5)


def cuts(folder):
    return [(shard.num_rows, shard.skipped) for shard in EmbeddingMetadata.load(folder).shards]


@pytest.fixture(scope="module")
def whole(backbone, tmp_path_factory):
    """How an uninterrupted run cuts its shards."""
    return cuts(extract_activations(backbone, damaged(), tmp_path_factory.mktemp("whole"), **SETTINGS))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_unreadable_rows_are_left_out_and_noted(backbone, tmp_path, caplog, num_workers):
    extract_activations(backbone, damaged(), tmp_path, num_workers=num_workers, **SETTINGS)
    check(tmp_path, backbone)
    shards = EmbeddingMetadata.load(tmp_path).shards
    assert [shard.num_rows + len(shard.skipped) for shard in shards] == [10, 10, 10, 10, 5]
    assert [shard.skipped for shard in shards] == [BAD[:6], [], [23], [], [41, 44]]
    messages = [record.getMessage() for record in caplog.records if "row " in record.getMessage()]
    assert len(messages) == len(BAD)
    assert "row 5 of column 'image' (photos/5.png)" in messages[1] and "row 41 of column 'image'" in messages[7]
    assert verify_embeddings(tmp_path) == 5


def test_a_picture_that_does_not_exist_is_not_called_damaged(backbone, tmp_path):
    gone = str(tmp_path / "gone.png")
    rows = datasets.Dataset.from_dict(
        {"image": [{"bytes": None, "path": gone}]}, features=numbered(1).select_columns(["image"]).features
    )
    with pytest.raises(ValueError, match=r"row 0 of column 'image' \(.*gone\.png\) does not exist"):
        extract_activations(backbone, rows, tmp_path / "out", progress=False)


def test_a_picture_with_odd_exif_is_readable(backbone, tmp_path, caplog):
    """One has an orientation next to a width that Pillow cannot write, the other an orientation it cannot read."""
    exif = (
        b"Exif\0\0II*\0"
        + struct.pack("<IH", 8, 2)
        + struct.pack("<HHIHHHHIhhI", 0x112, 3, 1, 6, 0, 256, 8, 1, -5, 0, 0)
    )
    buffer, unread = io.BytesIO(), io.BytesIO()
    picture(0).save(buffer, "png", exif=exif)
    picture(1).save(unread, "png", exif=b"Exif\0\0no tiff")
    picture(2).save(tmp_path / "file.png", exif=exif)
    images = [{"bytes": buffer.getvalue(), "path": None}, {"bytes": unread.getvalue(), "path": None},
              {"bytes": None, "path": str(tmp_path / "file.png")}]  # fmt: skip
    data = datasets.Dataset.from_dict({"image": images}, features=datasets.Features({"image": datasets.Image()}))
    extract_activations(backbone, data, tmp_path / "out", progress=False)
    expected = [
        picture(0).transpose(Image.Transpose.ROTATE_270),
        picture(1),
        picture(2).transpose(Image.Transpose.ROTATE_270),
    ]
    np.testing.assert_allclose(column(tmp_path / "out"), backbone.image_embeds(expected).numpy(), rtol=1e-4, atol=1e-5)
    assert "row 1 of column 'image'" in caplog.text and "row 0" not in caplog.text


def test_by_default_the_first_one_stops_and_none_is_an_error(backbone, tmp_path):
    with pytest.raises(ValueError, match=r"row 0 of column 'image' \(photos/0.png\).*--on_unreadable skip"):
        extract_activations(backbone, damaged(), tmp_path / "stopped", progress=False)
    with pytest.raises(ValueError, match="all 12 rows"):
        extract_activations(backbone, numbered(12, range(12)), tmp_path / "none", **SETTINGS)


def test_missing_captions_are_left_out(backbone, tmp_path):
    data = datasets.Dataset.from_dict({"caption": ["red", None, "blue", "a circle"], "id": [0, 1, 2, 3]})
    extract_activations(backbone, data, tmp_path, text_column="caption", hook_points="text_embeds", **SETTINGS)
    assert EmbeddingMetadata.load(tmp_path).skipped == [1] and ids(tmp_path) == [0, 2, 3]


@pytest.mark.parametrize("last", [2, 7])
def test_a_killed_run_continues_where_it_was(folders, backbone, whole, tmp_path, one_thread, last):
    process = fork(in_one_process, folders["SiglipModel"], damaged(), tmp_path, last=last, **SETTINGS)
    assert exit_code(process) == -signal.SIGKILL
    extract_activations(backbone, damaged(), tmp_path, **SETTINGS)
    check(tmp_path, backbone)
    assert cuts(tmp_path) == whole


def test_the_log_does_not_name_thousands_of_rows(backbone, tmp_path, caplog):
    extract_activations(backbone, numbered(60, range(1, 60, 2)), tmp_path, **SETTINGS)
    messages = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert sum("of column 'image'" in message for message in messages) == 20
    assert "10 more" in messages[-1] and "activations.json" in messages[-1]
    assert not any("BytesIO" in message for message in messages)


@pytest.mark.slow
@pytest.mark.parametrize("bad", [BAD, range(20), range(20, 45)], ids=["both", "first part", "second part"])
def test_two_processes_leave_out_what_one_does(backbone, folders, tmp_path, one_thread, bad):
    data = damaged() if bad is BAD else numbered(45, bad)
    in_two_processes(folders["SiglipModel"], data, tmp_path / "out", **SETTINGS)
    check(tmp_path / "out", backbone, bad=list(bad))
