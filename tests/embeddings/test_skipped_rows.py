"""Rows that are left out are counted, and checksums tell whether files have changed."""

import json

import datasets
import numpy as np
import pytest

from hf_msae.embeddings import EmbeddingWriter, load_embeddings, verify_embeddings
from hf_msae.embeddings.metadata import EmbeddingMetadata

X = np.arange(24, dtype=np.float32).reshape(12, 2)


def open_writer(folder, **settings):
    return EmbeddingWriter(folder, {"x": 2}, rows_per_shard=4, **settings)


def test_the_writer_counts_rows_left_out(tmp_path):
    with open_writer(tmp_path) as writer:
        writer.write({"x": X[:3]}, skipped=[3])
        assert (writer.rows_written, writer.rows_consumed) == (3, 4)
        writer.skip([4, 5, 6, 7, 8])
        assert writer.rows_consumed == 4  # nothing to put into a file
        writer.write({"x": X[3:4]})
        assert (writer.rows_written, writer.rows_consumed) == (4, 10)
        writer.write({"x": X[4:9]})
        writer.skip([15])
    shards = EmbeddingMetadata.load(tmp_path).shards
    assert [(s.num_rows, s.skipped) for s in shards] == [(3, [3]), (1, [4, 5, 6, 7, 8]), (4, []), (1, [15])]
    np.testing.assert_array_equal(load_embeddings(tmp_path)[:], X[:9])


def test_rows_left_out_after_the_last_shard_are_remembered(tmp_path):
    with open_writer(tmp_path) as writer:
        writer.write({"x": X[:4]})
        writer.skip([4, 5])
    assert EmbeddingMetadata.load(tmp_path).skipped_after == [4, 5]
    with open_writer(tmp_path) as writer:
        assert writer.rows_consumed == 6
        writer.write({"x": X[:4]})
    assert [shard.skipped for shard in EmbeddingMetadata.load(tmp_path).shards] == [[], [4, 5]]
    assert EmbeddingMetadata.load(tmp_path).skipped == [4, 5]


def test_a_batch_that_is_refused_leaves_nothing_behind(tmp_path):
    writer = open_writer(tmp_path, extra_features=datasets.Features({"id": datasets.Value("int64")}))
    writer.write({"x": X[:2]}, {"id": [0, 1]})
    with pytest.raises((ValueError, TypeError)):
        writer.write({"x": X[:2]}, {"id": ["six", "seven"]}, skipped=[4, 5])
    writer.close()
    assert (writer.rows_written, writer.rows_consumed) == (2, 2)


def test_messages_have_the_row_numbers_of_the_data(tmp_path):
    writer, bad = open_writer(tmp_path), X[:3].copy()
    bad[1, 0] = np.nan
    writer.write({"x": X[:3]}, skipped=[1])
    writer.write({"x": X[:3]}, skipped=[4])
    with pytest.raises(ValueError, match="row 10 of x"):  # 8 and 11 are left out, so these are 9, 10 and 12
        writer.write({"x": bad}, skipped=[8, 11])


def test_changed_files_are_found(tmp_path):
    with open_writer(tmp_path) as writer:
        writer.write({"x": X})
    assert verify_embeddings(tmp_path) == 3
    content = bytearray((tmp_path / "data-00001.arrow").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "data-00001.arrow").write_bytes(content)
    with pytest.raises(ValueError, match=r"data-00001\.arrow.*checksum"):
        verify_embeddings(tmp_path)
    (tmp_path / "data-00001.arrow").unlink()
    with pytest.raises(ValueError, match=r"data-00001\.arrow.*size"):
        verify_embeddings(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"activations\.json"):
        verify_embeddings(tmp_path / "nothing")


def test_folders_without_checksums_are_still_read(tmp_path):
    with open_writer(tmp_path) as writer:
        writer.write({"x": X})
    content = json.loads((tmp_path / "activations.json").read_text())
    for shard in content["shards"]:
        del shard["sha256"], shard["skipped"]
    (tmp_path / "activations.json").write_text(json.dumps(content))
    assert len(load_embeddings(tmp_path)) == 12 and verify_embeddings(tmp_path) == 0
