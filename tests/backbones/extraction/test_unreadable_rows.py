"""Rows that cannot be read, left out and noted; and checksums of what was written."""

import json
import os
import signal
from functools import partial

import datasets
import numpy as np
import pytest
import torch

from hf_msae.backbones import Backbone
from hf_msae.backbones.extraction import extract_activations
from hf_msae.embeddings import EmbeddingWriter, load_embeddings, verify_embeddings
from hf_msae.embeddings.metadata import EmbeddingMetadata
from tests.backbones.extraction.test_extraction import (
    ACCELERATE,
    TORCHRUN,
    TRAINING,
    encoded,
    launch,
    picture,
    script_main,
)

BAD = [0, 5, 6, 7, 8, 9, 23, 41, 44]  # the first, a whole batch of five, two at the end, the last


@pytest.fixture(scope="module")
def backbone(folders):
    return Backbone.from_pretrained(folders["SiglipModel"])


def damaged(rows=45, bad=BAD):
    """Pictures of which some are no pictures, one file is cut off, and one is missing; with ids."""
    files = [{"bytes": encoded(row), "path": None} for row in range(rows)]
    for row in bad:
        files[row] = {"bytes": b"no picture", "path": f"photos/{row}.jpg"}
    if 23 in bad:
        files[23] = {"bytes": encoded(23)[:100], "path": None}
        files[41] = None
    features = datasets.Features({"image": datasets.Image(), "id": datasets.Value("int64")})
    return datasets.Dataset.from_dict({"image": files, "id": list(range(rows))}, features=features)


def check(folder, backbone, rows=45, bad=BAD):
    good = [row for row in range(rows) if row not in bad]
    assert datasets.load_from_disk(str(folder))["id"][:] == good
    assert EmbeddingMetadata.load(folder).skipped == bad
    expected = backbone.image_embeds([picture(row) for row in good])
    np.testing.assert_allclose(load_embeddings(folder)[:].numpy(), expected.numpy(), rtol=1e-4, atol=1e-5)


SETTINGS = {"batch_size": 5, "rows_per_shard": 10, "progress": False, "on_unreadable": "skip"}


@pytest.mark.parametrize("num_workers", [0, 1])
def test_unreadable_rows_are_left_out_and_noted(backbone, tmp_path, caplog, num_workers):
    extract_activations(backbone, damaged(), tmp_path, num_workers=num_workers, **SETTINGS)
    check(tmp_path, backbone)
    shards = EmbeddingMetadata.load(tmp_path).shards
    assert [shard.num_rows + len(shard.skipped) for shard in shards] == [10, 10, 10, 10, 5]
    assert [shard.skipped for shard in shards] == [BAD[:6], [], [23], [], [41, 44]]
    messages = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert len(messages) == len(BAD)
    assert "row 5 of column 'image' (photos/5.jpg) cannot be decoded" in messages[1]
    assert "row 41 of column 'image' is missing" in messages[7]
    assert verify_embeddings(tmp_path) == 5


def test_by_default_the_first_one_stops(backbone, tmp_path):
    with pytest.raises(ValueError, match=r"row 0 of column 'image' \(photos/0.jpg\) cannot be decoded"):
        extract_activations(backbone, damaged(), tmp_path, progress=False)
    with pytest.raises(ValueError, match="on_unreadable is 'ignore'; choose raise or skip"):
        extract_activations(backbone, damaged(), tmp_path, on_unreadable="ignore")


def test_captions_that_are_missing_are_left_out(backbone, tmp_path):
    data = datasets.Dataset.from_dict({"caption": ["red", None, "blue", "a circle"], "id": [0, 1, 2, 3]})
    extract_activations(backbone, data, tmp_path, text_column="caption", hook_points="text_embeds", **SETTINGS)
    assert EmbeddingMetadata.load(tmp_path).skipped == [1]
    assert datasets.load_from_disk(str(tmp_path))["caption"][:] == ["red", "blue", "a circle"]


def test_a_folder_of_nothing_readable_is_an_error(backbone, tmp_path):
    with pytest.raises(ValueError, match=r"no embedding was written to .*: all 12 rows were left out"):
        extract_activations(backbone, damaged(12, list(range(12))), tmp_path, **SETTINGS)


class Killed(Backbone):
    batches = 0

    def embed_pixels(self, inputs):
        self.batches += 1
        if self.batches == self.last:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().embed_pixels(inputs)


@pytest.mark.parametrize("last", [1, 2, 4, 7])
def test_a_killed_run_goes_on_where_it_was(folders, tmp_path, request, last):
    request.addfinalizer(partial(torch.set_num_threads, torch.get_num_threads()))
    torch.set_num_threads(1)  # the threads of this process are not in its fork
    pid = os.fork()
    if pid == 0:
        try:
            killed = Killed.from_pretrained(folders["SiglipModel"])
            killed.last = last
            extract_activations(killed, damaged(), tmp_path / "killed", **SETTINGS)
        finally:
            os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    rest = Backbone.from_pretrained(folders["SiglipModel"])
    extract_activations(rest, damaged(), tmp_path / "killed", **SETTINGS)
    check(tmp_path / "killed", rest)
    extract_activations(rest, damaged(), tmp_path / "whole", **SETTINGS)
    cut = [
        [(shard.num_rows, shard.skipped) for shard in EmbeddingMetadata.load(tmp_path / name).shards]
        for name in ("killed", "whole")
    ]
    assert cut[0] == cut[1]


def test_the_writer_counts_rows_left_out(tmp_path):
    values = np.arange(24, dtype=np.float32).reshape(12, 2)
    with EmbeddingWriter(tmp_path, {"x": 2}, rows_per_shard=4) as writer:
        writer.write({"x": values[:3]}, skipped=[3])
        assert (writer.rows_written, writer.rows_consumed) == (3, 4)
        writer.skip([4, 5, 6, 7, 8])
        assert writer.rows_consumed == 4  # nothing to put into a file
        writer.write({"x": values[3:4]})
        assert (writer.rows_written, writer.rows_consumed) == (4, 10)
        writer.write({"x": values[4:9]})
        writer.skip([15])
    shards = EmbeddingMetadata.load(tmp_path).shards
    assert [(s.num_rows, s.skipped) for s in shards] == [(3, [3]), (1, [4, 5, 6, 7, 8]), (4, []), (1, [15])]
    assert load_embeddings(tmp_path)[:].tolist() == values[:9].tolist()


def test_rows_left_out_behind_the_last_shard_are_kept_in_mind(tmp_path):
    values = np.ones((4, 2), dtype=np.float32)
    with EmbeddingWriter(tmp_path, {"x": 2}, rows_per_shard=4) as writer:
        writer.write({"x": values})
        writer.skip([4, 5])
    assert EmbeddingMetadata.load(tmp_path).skipped_after == [4, 5]
    with EmbeddingWriter(tmp_path, {"x": 2}, rows_per_shard=4) as writer:
        assert writer.rows_consumed == 6
        writer.write({"x": values})
    assert [shard.skipped for shard in EmbeddingMetadata.load(tmp_path).shards] == [[], [4, 5]]
    assert EmbeddingMetadata.load(tmp_path).skipped == [4, 5]


def test_a_batch_that_is_refused_leaves_nothing_behind(tmp_path):
    features = datasets.Features({"id": datasets.Value("int64")})
    values = np.ones((4, 2), dtype=np.float32)
    writer = EmbeddingWriter(tmp_path, {"x": 2}, features, rows_per_shard=8)
    writer.write({"x": values}, {"id": [0, 1, 2, 3]})
    with pytest.raises((ValueError, TypeError)):
        writer.write({"x": values[:2]}, {"id": ["six", "seven"]}, skipped=[4, 5])
    writer.close()
    assert (writer.rows_written, writer.rows_consumed) == (4, 4)


def test_messages_have_the_numbers_of_the_data(tmp_path):
    values = np.ones((3, 2), dtype=np.float32)
    writer = EmbeddingWriter(tmp_path, {"x": 2}, rows_per_shard=4)
    writer.write({"x": values}, skipped=[1])
    writer.write({"x": values}, skipped=[4])
    values[1, 0] = np.nan
    with pytest.raises(ValueError, match="row 10 of x holds NaN"):  # rows 8 and 11 were left out; 9, 10, 12 are these
        writer.write({"x": values}, skipped=[8, 11])


def test_the_log_does_not_name_thousands_of_rows(backbone, tmp_path, caplog):
    bad = [row for row in range(60) if row % 2]
    extract_activations(backbone, damaged(60, bad), tmp_path, **SETTINGS)
    messages = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert sum("left out" in message for message in messages) == 20
    assert "10 more" in messages[-1] and "activations.json" in messages[-1]
    assert not any("BytesIO" in message for message in messages)
    assert EmbeddingMetadata.load(tmp_path).skipped == bad


def test_changed_files_are_found(tmp_path):
    with EmbeddingWriter(tmp_path, {"x": 2}, rows_per_shard=4) as writer:
        writer.write({"x": np.ones((10, 2), dtype=np.float32)})
    assert verify_embeddings(tmp_path) == 3
    content = bytearray((tmp_path / "data-00001.arrow").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "data-00001.arrow").write_bytes(content)
    with pytest.raises(ValueError, match=r"data-00001\.arrow has changed since it was written"):
        verify_embeddings(tmp_path)
    (tmp_path / "data-00001.arrow").unlink()
    with pytest.raises(ValueError, match=r"data-00001\.arrow.*size"):
        verify_embeddings(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"holds no activations\.json"):
        verify_embeddings(tmp_path / "nothing")


def test_folders_without_checksums_are_still_read(tmp_path):
    with EmbeddingWriter(tmp_path, {"x": 2}) as writer:
        writer.write({"x": np.ones((10, 2), dtype=np.float32)})
    content = json.loads((tmp_path / "activations.json").read_text())
    for shard in content["shards"]:
        del shard["sha256"], shard["skipped"]
    (tmp_path / "activations.json").write_text(json.dumps(content))
    assert len(load_embeddings(tmp_path)) == 10 and verify_embeddings(tmp_path) == 0


def test_the_script_says_what_it_left_out(folders, tmp_path, capsys):
    damaged().save_to_disk(str(tmp_path / "data"))
    flags = ["--backbone", folders["SiglipModel"], "--dataset", tmp_path / "data", "--output_dir", tmp_path / "out"]
    script_main()([*map(str, flags), "--on_unreadable", "skip", "--batch_size", "5", "--disable_tqdm", "--use_cpu"])
    assert "9 unreadable rows (0, 5, 6, 7, 8, 9, 23, 41, ...)" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [TORCHRUN, ACCELERATE], ids=["torchrun", "accelerate"])
def test_two_processes_leave_out_what_one_does(backbone, folders, tmp_path, launcher):
    damaged().save_to_disk(str(tmp_path / "data"))
    flags = ["--backbone", folders["SiglipModel"], "--dataset", tmp_path / "data", "--output_dir", tmp_path / "out"]
    flags += ["--on_unreadable", "skip", "--batch_size", "5", "--rows_per_shard", "10"]
    done = launch(launcher, TRAINING / "extract_activations.py", *flags)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("on 2 x cpu") == 1
    check(tmp_path / "out", backbone)


@pytest.mark.slow
@pytest.mark.parametrize("bad", [range(10), range(10, 20)], ids=["first", "second"])
def test_a_part_of_which_nothing_is_readable_does_not_stop_the_others(backbone, folders, tmp_path, bad):
    damaged(20, list(bad)).save_to_disk(str(tmp_path / "data"))
    flags = ["--backbone", folders["SiglipModel"], "--dataset", tmp_path / "data", "--output_dir", tmp_path / "out"]
    flags += ["--on_unreadable", "skip", "--batch_size", "5"]
    done = launch(TORCHRUN, TRAINING / "extract_activations.py", *flags)
    assert done.returncode == 0, done.stderr
    check(tmp_path / "out", backbone, 20, list(bad))
