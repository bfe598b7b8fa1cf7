"""EmbeddingWriter: valid Hugging Face folders, resumable, and strict about what it stores."""

import json
import os
import signal

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from hf_msae.embeddings import EmbeddingWriter, load_embeddings

METADATA = {
    "base_model_name_or_path": "some/siglip",
    "base_model_revision": "abc",
    "dataset": "scenes",
    "size": (64, 64),
}


def embeddings(rows, width, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)


def write_all(writer, image, text, batch=7):
    with writer:
        for start in range(writer.rows_written, len(image), batch):
            rows = slice(start, start + batch)
            labels = [f"row {i}" for i in range(*rows.indices(len(image)))]
            writer.write({"image_embeds": image[rows], "text_embeds": text[rows]}, {"label": labels})


def open_writer(folder, **settings):
    settings = {
        "columns": {"image_embeds": 6, "text_embeds": 4},
        "extra_features": datasets.Features({"label": datasets.Value("string")}),
        "rows_per_shard": 20,
        "metadata": METADATA,
        **settings,
    }
    return EmbeddingWriter(folder, **settings)


def test_folder_is_a_hugging_face_data_set_and_an_activation_data_set(tmp_path):
    image, text = embeddings(53, 6), embeddings(53, 4, seed=1)
    write_all(open_writer(tmp_path / "out"), image, text)

    saved = datasets.load_from_disk(str(tmp_path / "out"))
    assert saved.features["image_embeds"] == datasets.List(datasets.Value("float32"), length=6)
    assert saved.column_names == ["image_embeds", "text_embeds", "label"]
    np.testing.assert_array_equal(np.array(saved["text_embeds"], dtype=np.float32), text)
    assert saved["label"][52] == "row 52"
    assert len(list((tmp_path / "out").glob("data-*.arrow"))) == 3

    for column, expected in (("image_embeds", image), ("text_embeds", text)):
        acts = load_embeddings(tmp_path / "out", hook_point=column)
        np.testing.assert_array_equal(acts[:].numpy(), expected)
        assert acts.provenance == {**METADATA, "size": [64, 64], "hook_point": column}
    content = json.loads((tmp_path / "out" / "activations.json").read_text())
    assert content["format_version"] == 1
    assert content["num_rows"] == 53 and content["complete"] is True
    assert content["columns"] == {"image_embeds": 6, "text_embeds": 4} and content["dtype"] == "float32"


def test_every_datasets_feature_can_be_an_extra_column(tmp_path):
    features = datasets.Features(
        {
            "label": datasets.ClassLabel(names=["cat", "dog"]),
            "image": datasets.Image(),
            "tags": datasets.List(datasets.Value("string")),
        }
    )
    from PIL import Image

    image = Image.new("RGB", (3, 2), (255, 0, 0))
    with EmbeddingWriter(tmp_path / "out", {"x": 2}, features) as writer:
        for _ in range(2):
            writer.write({"x": embeddings(2, 2)}, {"label": ["dog", "cat"], "image": [image] * 2, "tags": [["a"], []]})
    saved = datasets.load_from_disk(str(tmp_path / "out"))
    assert saved.features == datasets.Features({"x": datasets.List(datasets.Value("float32"), length=2), **features})
    assert list(saved["label"]) == [1, 0, 1, 0]
    assert saved[3]["image"].size == (3, 2) and saved[2]["tags"] == ["a"]


def test_large_integers_and_nanoseconds_are_kept_as_extra_columns(tmp_path):
    times = [pd.Timestamp("2020-01-01 00:00:00.000000001"), None]
    table = pa.table({"hash": pa.array([2**64 - 1, None], pa.uint64()), "time": pa.array(times, pa.timestamp("ns"))})
    data = datasets.Dataset(table)
    with EmbeddingWriter(tmp_path, {"image_embeds": 2}, data.features) as writer:
        writer.write({"image_embeds": np.eye(2)}, data[:])
    written = datasets.load_from_disk(str(tmp_path)).remove_columns("image_embeds").data
    assert written.combine_chunks().equals(table)
    small = datasets.Features({"small": datasets.Value("int8")})
    misfit = pytest.raises(ValueError, match=r"small does not fit its type, in rows 0 to 1: .*leave the column out")
    with misfit, EmbeddingWriter(tmp_path / "small", {"x": 2}, small) as writer:
        writer.write({"x": np.eye(2)}, {"small": [1, 300]})


def test_float16_is_half_the_size_and_rounds_only_once(tmp_path):
    x = embeddings(64, 32)
    with EmbeddingWriter(tmp_path / "half", {"x": 32}, dtype="float16") as writer:
        writer.write({"x": torch.from_numpy(x)})
    with EmbeddingWriter(tmp_path / "full", {"x": 32}) as writer:
        writer.write({"x": x.astype(np.float64)})
    size = {name: (tmp_path / name / "data-00000.arrow").stat().st_size for name in ("half", "full")}
    assert size["half"] < 0.7 * size["full"]
    acts = load_embeddings(tmp_path / "half")
    assert acts[:].dtype == torch.float32
    np.testing.assert_array_equal(acts[:].numpy(), x.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_buffer_may_be_reused(tmp_path, dtype):
    buffer = torch.zeros(4, 3, dtype=dtype)
    with EmbeddingWriter(tmp_path, {"x": 3}) as writer:
        for value in (1.0, 2.0):
            writer.write({"x": buffer.fill_(value)})
    assert load_embeddings(tmp_path)[:].mean(dim=1).tolist() == [1.0] * 4 + [2.0] * 4


# -- interruption ----------------------------------------------------------------------------------------------------


def killed_run(folder, image, text, rows):
    """A process that writes `rows` rows and is then killed outright, in the middle of the next shard's file."""
    pid = os.fork()
    if pid == 0:
        try:
            writer = open_writer(folder)
            for start in range(0, rows, 7):
                part = slice(start, min(start + 7, rows))
                labels = [f"row {i}" for i in range(part.start, part.stop)]
                writer.write({"image_embeds": image[part], "text_embeds": text[part]}, {"label": labels})
            (folder / f"data-{rows // 20:05d}.arrow.tmp").write_bytes(b"half a shard")
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def test_a_killed_run_continues_after_its_last_complete_shard(tmp_path):
    image, text = embeddings(75, 6), embeddings(75, 4, seed=1)
    killed_run(tmp_path, image, text, rows=50)
    with pytest.raises(ValueError, match=r"unfinished \(40 rows in complete shards\)"):
        load_embeddings(tmp_path)

    writer = open_writer(tmp_path)
    assert writer.rows_written == 40
    assert not list(tmp_path.glob("*.tmp"))
    write_all(writer, image, text)
    np.testing.assert_array_equal(load_embeddings(tmp_path)[:].numpy(), image)
    assert list(datasets.load_from_disk(str(tmp_path))["label"]) == [f"row {i}" for i in range(75)]


@pytest.mark.parametrize("leftovers", [[], [".activations.json.123-456.tmp"]])
def test_a_run_killed_before_its_first_file_is_begun_again(tmp_path, leftovers):
    for name in leftovers:
        (tmp_path / name).write_text("{")
    image, text = embeddings(20, 6), embeddings(20, 4)
    write_all(open_writer(tmp_path), image, text)
    np.testing.assert_array_equal(load_embeddings(tmp_path)[:].numpy(), image)


def test_shards_killed_between_rename_and_count_or_lost_since_are_written_again(tmp_path):
    image, text = embeddings(75, 6), embeddings(75, 4, seed=1)
    killed_run(tmp_path, image, text, rows=70)  # three complete shards
    (tmp_path / "data-00003.arrow").write_bytes(b"renamed, but never counted")
    (tmp_path / "data-00001.arrow").unlink()
    writer = open_writer(tmp_path)
    assert writer.rows_written == 20
    assert sorted(path.name for path in tmp_path.glob("data-*")) == ["data-00000.arrow"]
    write_all(writer, image, text)
    np.testing.assert_array_equal(load_embeddings(tmp_path)[:].numpy(), image)


def test_a_truncated_shard_of_a_finished_folder_is_written_again(tmp_path):
    image, text = embeddings(45, 6), embeddings(45, 4, seed=1)
    write_all(open_writer(tmp_path), image, text)
    shard = tmp_path / "data-00002.arrow"
    shard.write_bytes(shard.read_bytes()[:-40])
    writer = open_writer(tmp_path)
    assert writer.rows_written == 40
    assert not (tmp_path / "state.json").exists()
    write_all(writer, image, text)
    np.testing.assert_array_equal(load_embeddings(tmp_path)[:].numpy(), image)


def test_an_exception_keeps_the_rows_given_so_far(tmp_path):
    image, text = embeddings(33, 6), embeddings(33, 4, seed=1)
    with pytest.raises(KeyboardInterrupt), open_writer(tmp_path) as writer:
        writer.write(
            {"image_embeds": image[:25], "text_embeds": text[:25]}, {"label": [f"row {i}" for i in range(25)]}
        )
        raise KeyboardInterrupt
    with pytest.raises(ValueError, match="unfinished"):
        load_embeddings(tmp_path)
    writer = open_writer(tmp_path)
    assert writer.rows_written == 25
    write_all(writer, image, text)
    np.testing.assert_array_equal(load_embeddings(tmp_path)[:].numpy(), image)


def test_a_finished_folder_is_left_alone_or_appended_to(tmp_path):
    image, text = embeddings(40, 6), embeddings(40, 4, seed=1)
    write_all(open_writer(tmp_path), image[:30], text[:30])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with open_writer(tmp_path) as writer:
        assert writer.rows_written == 30
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    write_all(open_writer(tmp_path), image, text)
    np.testing.assert_array_equal(load_embeddings(tmp_path)[:].numpy(), image)


def test_a_backbone_may_have_moved_before_resuming(tmp_path):
    known = {**METADATA, "base_model_weights_sha256": "1" * 64}
    write_all(open_writer(tmp_path, metadata=known), embeddings(30, 6), embeddings(30, 4))
    open_writer(tmp_path, metadata={**known, "base_model_name_or_path": "/moved/siglip"})
    with pytest.raises(ValueError, match="base_model_weights_sha256"):
        open_writer(tmp_path, metadata={**known, "base_model_weights_sha256": "2" * 64})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metadata": {**METADATA, "base_model_name_or_path": "other/clip"}}, "base_model_name_or_path.*siglip.*clip"),
        ({"metadata": {**METADATA, "base_model_revision": None}}, "provenance.base_model_revision"),
        ({"columns": {"image_embeds": 8, "text_embeds": 4}}, "columns.image_embeds.*6.*8"),
        ({"columns": {"vision.layers.3": 6, "text_embeds": 4}}, "columns.vision.layers.3"),
        ({"dtype": "float16"}, "dtype.*'float32'.*'float16'"),
        ({"token_columns": ["text_embeds"]}, "token_columns.*text_embeds"),
        ({"extra_features": datasets.Features({"label": datasets.Value("int64")})}, "extra_features.label.dtype"),
    ],
)
def test_resuming_with_other_settings_is_refused(tmp_path, change, message):
    write_all(open_writer(tmp_path), embeddings(30, 6), embeddings(30, 4))
    with pytest.raises(ValueError, match=message):
        open_writer(tmp_path, **change)
    assert len(load_embeddings(tmp_path)) == 30  # and nothing was touched


def test_resume_off_overwrite_and_foreign_folders(tmp_path):
    write_all(open_writer(tmp_path / "out"), embeddings(30, 6), embeddings(30, 4))
    with pytest.raises(FileExistsError, match=r"resume=True.*overwrite=True"):
        open_writer(tmp_path / "out", resume=False)
    other = embeddings(5, 6, seed=9)
    write_all(open_writer(tmp_path / "out", overwrite=True, dtype="float16"), other, embeddings(5, 4))
    assert len(load_embeddings(tmp_path / "out")) == 5
    assert len(list((tmp_path / "out").glob("data-*"))) == 1

    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"")
    for settings in ({}, {"overwrite": True}, {"resume": False}):
        with pytest.raises(FileExistsError, match=r"photos .*activations\.json"):
            open_writer(tmp_path / "photos", **settings)
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["cat.jpg"]


def test_damaged_or_newer_metadata_is_named(tmp_path):
    write_all(open_writer(tmp_path), embeddings(5, 6), embeddings(5, 4))
    path = tmp_path / "activations.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "format_version": 2, "compression": "zstd"}))
    with pytest.raises(ValueError, match=r"format_version 2.*install a newer"):
        load_embeddings(tmp_path)
    path.write_text("{")
    with pytest.raises(ValueError, match=r"activations\.json is damaged"):
        open_writer(tmp_path)


# -- bad batches -----------------------------------------------------------------------------------------------------


def bad(x, row, value):
    x = x.copy()
    x[row, 1] = value
    return x


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (lambda x: {"x": bad(x, 2, np.nan)}, "row 12 of x .*NaN"),
        (lambda x: {"x": bad(x, 0, -np.inf)}, "row 10 of x .*infinity"),
        (lambda x: {"x": bad(x, 4, 70000.0)}, 'row 14 of x .*70000.*float16.*dtype="float32"'),
        (lambda x: {"x": x[:, :2]}, r"x .*\(batch, 3\).*\(5, 2\)"),
        (lambda x: {"x": x[0]}, r"x .*\(batch, 3\).*\(3,\)"),
        (lambda x: {"x": x.astype(int)}, "x .*int64"),
        (lambda x: {"y": x}, r"\['x'\].*\['y'\]"),
    ],
)
def test_bad_batches_are_refused_whole(tmp_path, batch, message):
    good = embeddings(10, 3)
    with EmbeddingWriter(tmp_path, {"x": 3}, dtype="float16") as writer:
        writer.write({"x": good})
        with pytest.raises(ValueError, match=message):
            writer.write(batch(embeddings(5, 3)))
    assert len(load_embeddings(tmp_path)) == 10


def test_extra_columns_must_fit(tmp_path):
    writer = open_writer(tmp_path)
    batch = {"image_embeds": embeddings(3, 6), "text_embeds": embeddings(3, 4)}
    with pytest.raises(ValueError, match=r"\['label'\].*\[\]"):
        writer.write(batch)
    with pytest.raises(ValueError, match=r"'label': 2"):
        writer.write(batch, {"label": ["a", "b"]})


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"columns": {}}, ValueError, "columns"),
        ({"columns": {"x": 0}}, ValueError, "'x'.*0"),
        ({"columns": {"label": 3}}, ValueError, "label"),
        ({"dtype": "bfloat16"}, ValueError, "dtype.*float16.*bfloat16"),
        ({"rows_per_shard": 0}, ValueError, "rows_per_shard.*0"),
        ({"metadata": {"model": object()}}, TypeError, "metadata.*JSON"),
    ],
)
def test_bad_settings(tmp_path, settings, error, message):
    with pytest.raises(error, match=message):
        open_writer(tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def test_no_rows_and_writing_after_close(tmp_path):
    with pytest.raises(ValueError, match="no embedding was written"), open_writer(tmp_path / "empty"):
        pass
    with pytest.raises(ValueError, match="unfinished"):
        load_embeddings(tmp_path / "empty")
    writer = EmbeddingWriter(tmp_path / "out", {"x": 2})
    writer.write({"x": embeddings(3, 2)})
    writer.close()
    writer.close()
    with pytest.raises(ValueError, match="is closed"):
        writer.write({"x": embeddings(3, 2)})
