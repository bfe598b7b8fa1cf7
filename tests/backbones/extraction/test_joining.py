"""Joining the parts of several processes: in order, whole or not at all, and only what belongs together."""

import errno
import os

import numpy as np
import pytest

from hf_msae.backbones.extraction import parts as parts_module
from hf_msae.backbones.extraction.parts import Part, join_parts, only_run
from hf_msae.embeddings import EmbeddingWriter, load_embeddings, writing
from hf_msae.embeddings.metadata import EmbeddingMetadata

X = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
SETTINGS = {"columns": {"image_embeds": 3}, "rows_per_shard": 6, "metadata": {"dataset": "d"}}


def write(folder, rows, close=True, **settings):
    """Rows of X; those that are negative are left out."""
    writer = EmbeddingWriter(folder, **{**SETTINGS, **settings})
    for place, row in enumerate(rows):
        if row < 0:
            writer.skip([place])
        else:
            writer.write({"image_embeds": X[row : row + 1]})
    if close:
        writer.close(allow_empty=True)
    else:
        writer._flush()


@pytest.fixture
def stream_parts(tmp_path):
    """Two parts of a stream: of 11 rows the third left out, and of 9 the first and the last."""
    found = [Part(None, index, 2) for index in range(2)]
    EmbeddingWriter(tmp_path, **SETTINGS)
    write(found[0].folder(tmp_path), [0, 1, -1, *range(3, 11)])
    write(found[1].folder(tmp_path), [-1, *range(12, 19), -1])
    return found


EXPECTED = [0, 1, *range(3, 11), *range(12, 19)]


def check(folder):
    np.testing.assert_array_equal(load_embeddings(folder)[:], X[EXPECTED])
    metadata = EmbeddingMetadata.load(folder)
    assert metadata.skipped == [2, 11, 19] and metadata.rows_consumed == 20
    mean = load_embeddings(folder).statistics().mean
    np.testing.assert_allclose(mean, X[EXPECTED].astype(np.float64).mean(axis=0), rtol=1e-12)
    assert not list(folder.glob("part-*"))


def test_parts_of_a_stream_are_joined_in_order_with_their_rows_left_out(stream_parts, tmp_path):
    join_parts(tmp_path, SETTINGS, stream_parts)
    check(tmp_path)


@pytest.mark.parametrize("moment", ["save_moments", "write_json", "link"])
def test_an_interrupted_join_begins_again(stream_parts, tmp_path, monkeypatch, moment):
    def full(*_):
        raise OSError(errno.ENOSPC, "no space left on device")

    if moment == "link":
        linked = []

        def second_fails(source, target):
            linked.append(target)
            if len(linked) == 3:
                full()
            os.link(source, target)

        monkeypatch.setattr(parts_module, "_link", second_fails)
    else:
        monkeypatch.setattr(writing, moment, full)
    with pytest.raises(OSError, match="no space left"):
        join_parts(tmp_path, SETTINGS, stream_parts)
    assert all(part.folder(tmp_path).is_dir() for part in stream_parts)
    with pytest.raises(ValueError, match="unfinished"):
        load_embeddings(tmp_path)
    monkeypatch.undo()
    join_parts(tmp_path, SETTINGS, stream_parts)
    check(tmp_path)


def test_rows_of_a_data_set_keep_their_numbers(tmp_path):
    write(tmp_path, range(6), close=False)  # by one process, before
    pieces = [Part(range(6, 13)), Part(range(13, 20))]
    for piece in pieces:
        with EmbeddingWriter(piece.folder(tmp_path), **SETTINGS) as writer:
            writer.write({"image_embeds": X[piece.rows.start + 1 : piece.rows.stop]}, skipped=[piece.rows.start])
    join_parts(tmp_path, SETTINGS, pieces)
    assert EmbeddingMetadata.load(tmp_path).skipped == [6, 13]
    np.testing.assert_array_equal(load_embeddings(tmp_path)[:], X[[*range(6), *range(7, 13), *range(14, 20)]])


def test_parts_that_are_unfinished_or_of_something_else_are_refused(stream_parts, tmp_path):
    second = stream_parts[1].folder(tmp_path)
    content = (second / "activations.json").read_text()
    (second / "activations.json").write_text(content.replace('"complete": true', '"complete": false'))
    with pytest.raises(ValueError, match="part-00001-of-00002 is not complete"):
        join_parts(tmp_path, SETTINGS, stream_parts)
    (second / "activations.json").write_text(content.replace('"dataset": "d"', '"dataset": "e"'))
    with pytest.raises(ValueError, match="do not embed the same data in the same way"):
        join_parts(tmp_path, SETTINGS, stream_parts)
    (second / "activations.json").write_text(content)
    short = [Part(range(11)), Part(range(11, 22))]
    for part, folder in zip(short, stream_parts, strict=True):
        os.rename(folder.folder(tmp_path), part.folder(tmp_path))
    with pytest.raises(ValueError, match="part-000000011-000000022 is not complete"):
        join_parts(tmp_path, SETTINGS, short)


def test_one_run_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(parts_module, "_LOCK_SECONDS", 0.3)
    with only_run(tmp_path / "out"):
        with pytest.raises(ValueError, match=r"another run.*out"), only_run(tmp_path / "out"):
            pass
    monkeypatch.setattr(parts_module, "fcntl", None)  # as on Windows, which cannot open folders either
    monkeypatch.setattr(os, "open", None)
    with only_run(tmp_path / "other"):
        assert (tmp_path / "other").is_dir()


def test_a_finished_folder_is_not_opened_before_its_metadata_say_so(tmp_path, monkeypatch):
    writer = EmbeddingWriter(tmp_path, **SETTINGS)
    writer.write({"image_embeds": X[:10]})
    order = []
    monkeypatch.setattr(EmbeddingMetadata, "save", lambda self, folder: order.append(("metadata", self.complete)))
    original = writing.write_json
    monkeypatch.setattr(
        writing, "write_json", lambda path, content: (order.append(path.name), original(path, content))
    )
    writer.close()
    assert order[-2:] == ["state.json", ("metadata", True)] and ("metadata", True) not in order[:-1]


def test_a_folder_that_is_appended_to_is_unfinished_meanwhile(tmp_path):
    write(tmp_path, range(10))
    writer = EmbeddingWriter(tmp_path, **SETTINGS)
    assert (tmp_path / "state.json").exists()
    writer.write({"image_embeds": X[10:20]})
    assert not (tmp_path / "state.json").exists()


def test_shards_are_cut_where_they_are_large(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "_SHARD_BYTES", 8 * 12)
    with EmbeddingWriter(tmp_path, **{**SETTINGS, "rows_per_shard": 1000}) as writer:
        for row in range(20):
            writer.write({"image_embeds": X[row : row + 1]})
    assert [shard.num_rows for shard in EmbeddingMetadata.load(tmp_path).shards] == [8, 8, 4]


def test_rows_left_out_behind_lost_shards_are_read_again(tmp_path):
    write(tmp_path, [*range(12), -1])
    lost = EmbeddingMetadata.load(tmp_path).shards[1]
    (tmp_path / lost.file).unlink()
    writer = EmbeddingWriter(tmp_path, **SETTINGS)
    assert writer.rows_consumed == 6 and writer._metadata.skipped == []
