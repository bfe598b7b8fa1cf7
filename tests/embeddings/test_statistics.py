"""Statistics: exact, stable, checked row by row, and computed once."""

import math

import datasets
import numpy as np
import pytest
import torch

from hf_msae.embeddings import EmbeddingWriter, RunningMoments, load_embeddings, statistics

RNG = np.random.default_rng(0)


def direct(x):
    x = x.astype(np.float64)
    mean = x.mean(axis=0)
    return mean, ((x - mean) ** 2).sum(axis=1).mean()


@pytest.mark.parametrize("offset", [0.0, 1e3])
@pytest.mark.parametrize("block_entries", [7 * 11, 2**22])
def test_against_a_direct_computation(monkeypatch, offset, block_entries):
    monkeypatch.setattr(statistics, "BLOCK_ENTRIES", block_entries)
    x = (RNG.normal(size=(1001, 7)) * [1, 2, 3, 4, 5, 6, 7] + offset).astype(np.float32)
    stats = load_embeddings(x).statistics()
    mean, squared = direct(x)
    assert stats.num_samples == 1001
    assert stats.mean.dtype == torch.float64 and stats.mean.shape == (7,)
    np.testing.assert_allclose(stats.mean.numpy(), mean, rtol=1e-13, atol=1e-14)
    assert stats.mean_squared_distance == pytest.approx(squared, rel=1e-12)
    assert stats.input_scale == pytest.approx(math.sqrt(7) / math.sqrt(squared), rel=1e-12)


def test_a_mean_a_million_times_the_spread():
    # Quarters are exact in float32 up to 2**22: the spread is in the data, and a naive E[x^2] - E[x]^2 would lose it.
    x = (1e6 + RNG.integers(-4, 5, size=(5000, 4)) / 4).astype(np.float32)
    stats = load_embeddings(x).statistics()
    assert stats.mean_squared_distance == pytest.approx(direct(x - np.float32(1e6))[1], rel=1e-12)


def test_float16_data_counts_as_what_the_model_will_see(tmp_path):
    x = RNG.normal(size=(300, 4)).astype(np.float16)
    with EmbeddingWriter(tmp_path, {"x": 4}, dtype="float16", rows_per_shard=64) as writer:
        writer.write({"x": x})
    mean, squared = direct(x)
    stats = load_embeddings(tmp_path).statistics()
    np.testing.assert_allclose(stats.mean.numpy(), mean, rtol=1e-12)
    assert stats.mean_squared_distance == pytest.approx(squared, rel=1e-12)


def test_moments_merge_like_one_pass():
    x = torch.from_numpy(RNG.normal(size=(101, 3)) + 50)
    whole, parts = RunningMoments(), RunningMoments()
    whole.update(x)
    for part in (x[:0], x[:1], x[1:64], x[64:]):
        moments = RunningMoments()
        moments.update(part)
        parts.merge(moments)
    assert parts.num_samples == 101
    torch.testing.assert_close(parts.mean, whole.mean, rtol=1e-14, atol=0)
    assert parts.sum_squared_distance == pytest.approx(whole.sum_squared_distance, rel=1e-13)


def test_computed_once(monkeypatch):
    acts = load_embeddings(RNG.normal(size=(10, 3)))
    first = acts.statistics()
    monkeypatch.setattr(acts, "batches", None)
    assert acts.statistics() is first


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("row", [0, 30, 49])
def test_non_finite_rows_are_named_with_their_file(tmp_path, monkeypatch, value, row):
    monkeypatch.setattr(statistics, "BLOCK_ENTRIES", 3 * 8)
    x = RNG.normal(size=(50, 3)).astype(np.float32)
    x[row, 1] = value
    data = datasets.Dataset.from_dict({"image_embeds": x.tolist()})
    data.save_to_disk(tmp_path / "saved", num_shards=2)
    with pytest.raises(ValueError, match=rf"row {row} of .*saved .*data-0000{row // 25}-of"):
        load_embeddings(tmp_path / "saved").statistics()
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(ValueError, match=rf"row {row} of .*x\.npy"):
        load_embeddings(tmp_path / "x.npy").statistics()
    kept = data.select([i for i in range(50) if i != row])
    assert load_embeddings(kept).statistics().num_samples == 49


def test_float64_beyond_float32_is_not_finite_for_the_model():
    x = RNG.normal(size=(9, 3))
    x[4, 0] = 1e300
    with pytest.raises(ValueError, match="row 4 of "):
        load_embeddings(x).statistics()


def test_large_finite_values_are_fine():
    x = np.array([[3e38, -3e38], [-3e38, 3e38]], dtype=np.float32)
    assert load_embeddings(x).statistics().mean_squared_distance == pytest.approx(2 * float(np.float32(3e38)) ** 2)


@pytest.mark.parametrize("rows", [1, 1000])
def test_equal_rows_have_no_scale(rows):
    x = np.tile(np.array([[0.1, 1e4, -3.3]], dtype=np.float32), (rows, 1))
    with pytest.raises(ValueError, match=f"all {rows} "):
        load_embeddings(x).statistics()


def test_progress_bar_on_request(capsys):
    load_embeddings(RNG.normal(size=(10, 3))).statistics()
    assert capsys.readouterr().err == ""
    load_embeddings(RNG.normal(size=(10, 3))).statistics(progress=True)
    assert "statistics" in capsys.readouterr().err
