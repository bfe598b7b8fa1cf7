"""Statistics taken while embeddings are written: those of what is in the files, and of nothing else."""

import datasets
import numpy as np
import pytest
import torch

from hf_msae.embeddings import EmbeddingDataset, EmbeddingWriter, load_embeddings, verify_embeddings
from hf_msae.embeddings.metadata import EmbeddingMetadata
from hf_msae.embeddings.stored_statistics import STATISTICS_FILE, load_moments

X = (np.random.default_rng(0).normal(size=(57, 5)) * np.arange(1, 6) + 1000).astype(np.float32)
TOKENS = {"token_columns": ["vision.layers.0"]}


def write(folder, rows=range(57), dtype="float32", **settings):
    columns = {"image_embeds": 5, "vision.layers.0": 5}
    with EmbeddingWriter(folder, columns, dtype=dtype, rows_per_shard=10, **TOKENS, **settings) as writer:
        for row in list(rows)[writer.rows_written :]:
            writer.write({"image_embeds": X[row : row + 1], "vision.layers.0": [X[: row % 3 + 1] * 2]})
    return folder


def check(folder, x, name="image_embeds", monkeypatch=None):
    acts = load_embeddings(folder, name)
    if monkeypatch is not None:
        monkeypatch.setattr(EmbeddingDataset, "batches", None)  # not read again
    found = acts.statistics()
    x = x.astype(np.float64)
    np.testing.assert_allclose(found.mean, x.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(found.variance, x.var(axis=0), rtol=1e-8)
    assert found.num_samples == len(x)
    assert found.mean_squared_distance == pytest.approx(x.var(axis=0).sum(), rel=1e-8)
    assert found.input_scale == pytest.approx(np.sqrt(5 / x.var(axis=0).sum()), rel=1e-8)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_they_are_those_of_the_files_and_spare_reading_them(tmp_path, monkeypatch, dtype):
    write(tmp_path, dtype=dtype)
    check(tmp_path, X.astype(dtype), monkeypatch=monkeypatch)
    tokens = np.concatenate([X[: row % 3 + 1] * 2 for row in range(57)]).astype(dtype)
    check(tmp_path, tokens, "vision.layers.0", monkeypatch)


def test_an_interruption_changes_nothing(tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    with pytest.raises(Killed), EmbeddingWriter(tmp_path, {"image_embeds": 5}, rows_per_shard=10) as writer:
        writer.write({"image_embeds": X[:33]})
        writer._pending_rows = 0
        raise Killed
    assert not (tmp_path / STATISTICS_FILE).exists()
    with EmbeddingWriter(tmp_path, {"image_embeds": 5}, rows_per_shard=10) as writer:
        writer.write({"image_embeds": X[30:]})
    check(tmp_path, X, monkeypatch=monkeypatch)
    with EmbeddingWriter(tmp_path / "whole", {"image_embeds": 5}, rows_per_shard=10) as writer:
        writer.write({"image_embeds": X})
    resumed, whole = (EmbeddingMetadata.load(each) for each in (tmp_path, tmp_path / "whole"))
    assert resumed.statistics_sha256 == whole.statistics_sha256 != ""


def test_rows_appended_later_count_too(tmp_path, monkeypatch):
    write(tmp_path, range(40))
    first = load_moments(tmp_path, EmbeddingMetadata.load(tmp_path))
    assert first["image_embeds"].num_samples == 40
    write(tmp_path)
    check(tmp_path, X, monkeypatch=monkeypatch)


def test_those_of_other_files_are_not_believed(tmp_path):
    write(tmp_path / "a")
    write(tmp_path / "b", range(56, -1, -1))
    (tmp_path / "a" / STATISTICS_FILE).write_bytes((tmp_path / "b" / STATISTICS_FILE).read_bytes())
    assert load_moments(tmp_path / "a", EmbeddingMetadata.load(tmp_path / "a")) is None
    (tmp_path / "b" / STATISTICS_FILE).unlink()
    for each in "ab":
        check(tmp_path / each, X)


def test_a_damaged_file_is_not_believed_and_found(tmp_path, caplog):
    write(tmp_path)
    file = tmp_path / STATISTICS_FILE
    verify_embeddings(tmp_path)
    file.write_bytes(file.read_bytes()[:20])
    with caplog.at_level("WARNING"):
        check(tmp_path, X)
    assert "statistics.safetensors" in caplog.text
    with pytest.raises(ValueError, match=r"statistics\.safetensors"):
        verify_embeddings(tmp_path)


def test_negative_rows_and_masks_are_rows_and_others_are_not(tmp_path):
    acts = load_embeddings(write(tmp_path), "vision.layers.0")
    rows = acts.dataset_rows()
    assert acts.dataset_rows([-1, -5]).tolist() == rows[[-1, -5]].tolist()
    mask = rows % 2 == 0
    assert acts.dataset_rows(mask).tolist() == rows[mask].tolist()
    with pytest.raises(IndexError):
        acts.dataset_rows([len(acts)])


def test_chosen_rows_have_their_own(tmp_path):
    dataset = datasets.load_from_disk(str(write(tmp_path)))
    chosen = load_embeddings(dataset.select(range(20)))
    np.testing.assert_allclose(chosen.statistics().mean, X[:20].astype(np.float64).mean(axis=0), rtol=1e-13)


def test_equal_rows_have_no_scale(tmp_path):
    with EmbeddingWriter(tmp_path, {"x": 3}) as writer:
        writer.write({"x": torch.full((7, 3), 0.1)})
    with pytest.raises(ValueError, match="all 7 embeddings"):
        load_embeddings(tmp_path).statistics()
