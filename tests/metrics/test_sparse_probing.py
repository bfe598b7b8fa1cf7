"""Sparse probing: finds the latents that tell, and never by a look at the test part."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from hf_msae.metrics import sparse_probing


def data(seed, rows=400, n=60):
    rng = np.random.default_rng(seed)
    codes = np.maximum(rng.normal(size=(rows, n)), 0).astype(np.float32)
    first, second = rng.uniform(size=(2, rows)) < 0.3
    codes[:, 7] = first * rng.uniform(0.5, 1, rows)  # latent 7 is the first concept
    codes[:, 11] += 2 * second  # 11 and 12 together tell the second
    codes[:, 12] -= np.minimum(codes[:, 12], 2 * second)
    return codes, np.stack([first, second, np.zeros(rows, dtype=bool)], axis=1)


def test_it_finds_the_latents_that_tell():
    (train, truth), (test, test_truth) = data(0), data(1)
    found = sparse_probing(train, truth, test, test_truth, (1, 2, 1000), ["first", "second", "never"], progress=False)
    frame = found.to_pandas().set_index(["concept", "k"])
    assert set(frame.index) == {(name, k) for name in ("first", "second") for k in (1, 2)}
    assert frame.loc[("first", 1), "latents"] == [7] and frame.loc[("second", 2), "latents"] == [11, 12]
    assert frame.loc[("first", 1), "auroc"] == 1.0 and frame.loc[("first", 1), "accuracy"] > 0.98
    assert 0.8 < frame.loc[("second", 1), "auroc"] < frame.loc[("second", 2), "auroc"]
    assert frame.loc[("first", 1), "prevalence"] == test_truth[:, 0].mean()
    assert found.summary().loc[1, "auroc"] == frame.xs(1, level="k")["auroc"].mean()
    assert "2 concepts" in str(found)
    assert "1 concepts" not in str(sparse_probing(train, truth[:, 0], test, test_truth[:, 0], (1,), progress=False))


@pytest.mark.parametrize("other", [lambda x: x.astype(x.dtype.newbyteorder()), lambda x: x[::-1].copy()[::-1]])
def test_arrays_that_torch_does_not_take_are_read(other):
    (train, truth), (test, test_truth) = data(0), data(1)
    expected = sparse_probing(train, truth, test, test_truth, (1,), progress=False)
    assert sparse_probing(other(train), truth, other(test), test_truth, (1,), progress=False) == expected


def test_figures_are_those_of_the_chosen_latent():
    (train, truth), (test, test_truth) = data(0), data(1)
    record = sparse_probing(train, truth[:, 1], test, test_truth[:, 1], (1,), progress=False).records[0]
    score, true = test[:, 11], test_truth[:, 1]
    pairs = (score[true][:, None] > score[~true]).mean()
    assert record["auroc"] == pytest.approx(pairs, abs=1e-9)
    assert record["balanced_accuracy"] <= max(
        ((score > t)[true].mean() + (score <= t)[~true].mean()) / 2 for t in score
    )


def test_nothing_leaks_from_the_test_part():
    # 5,000 latents of noise: chosen with the test part in view, some would tell there.
    rng = np.random.default_rng(0)
    train, test = rng.uniform(size=(2, 80, 5000)).astype(np.float32)
    truth, test_truth = rng.uniform(size=(2, 80)) < 0.5
    found = sparse_probing(train, truth, test, test_truth, (20,), progress=False).records[0]
    assert 0.3 < found["auroc"] < 0.7
    changed = sparse_probing(train, truth, 1 - test, ~test_truth, (20,), progress=False).records[0]
    assert changed["latents"] == found["latents"]
    both, both_truth = np.concatenate([train, test]), np.concatenate([truth, test_truth])
    peeked = sparse_probing(both, both_truth, test.copy(), test_truth, (20,), progress=False).records[0]
    assert peeked["auroc"] > 0.9  # what a leak would look like


def test_neither_scale_nor_offset_of_a_latent_counts():
    (train, truth), (test, test_truth) = data(0), data(1)
    expected = sparse_probing(train, truth[:, :2], test, test_truth[:, :2], (2,), progress=False).records
    # Scales and offsets of all latents alike keep the choice of latents.
    for scale, offset in ((1e-3, 0), (1e3, 0), (1, 300)):
        moved = sparse_probing(
            train.astype(np.float64) * scale + offset, truth[:, :2],
            test.astype(np.float64) * scale + offset, test_truth[:, :2], (2,), progress=False,
        ).records  # fmt: skip
        for one, other in zip(moved, expected, strict=True):
            assert one["latents"] == other["latents"]
            assert one["balanced_accuracy"] == pytest.approx(other["balanced_accuracy"], abs=1e-9)


def test_figures_are_those_of_scikit_learn():
    (train, truth), (test, test_truth) = data(0), data(1)
    record = sparse_probing(train, truth[:, 1], test, test_truth[:, 1], (2,), progress=False).records[0]
    mean, spread = (getattr(np, name)(train[:, [11, 12]].astype(np.float64), axis=0) for name in ("mean", "std"))
    regression = LogisticRegression(class_weight="balanced").fit((train[:, [11, 12]] - mean) / spread, truth[:, 1])
    guess, true = regression.predict((test[:, [11, 12]] - mean) / spread), test_truth[:, 1]
    assert record["accuracy"] == (guess == true).mean()
    hits = (guess & true).sum()
    assert record["f1"] == pytest.approx(2 * hits / (guess.sum() + true.sum()))
    assert record["balanced_accuracy"] == pytest.approx(
        (hits / true.sum() + (~guess & ~true).sum() / (~true).sum()) / 2
    )


def test_alternate_rows_of_one_array_are_two_parts():
    codes, truth = data(0)
    both = sparse_probing(codes[::2], truth[::2, 0], codes[1::2], truth[1::2, 0], (1,), progress=False)
    assert both.records[0]["auroc"] == 1.0


@pytest.mark.parametrize("convert", [lambda x: x.astype(np.float16), lambda x: torch.from_numpy(x).bfloat16()])
def test_half_precision_does_not_overflow(convert):
    (train, truth), (test, test_truth) = data(0), data(1)
    large = [convert(each / train.max() * np.float32(4e4)) for each in (train, test)]
    found = sparse_probing(large[0], truth[:, 0], large[1], test_truth[:, 0], (1,), progress=False)
    assert found.records[0]["auroc"] == 1.0


def test_what_is_refused():
    (train, truth), (test, test_truth) = data(0), data(1)
    bad = train.copy()
    bad[3, 3] = np.nan
    for wrong, message in (
        ((train, truth, train[200:], truth[200:]), "memory"),
        ((train, truth, test, test_truth[1:]), "test labels.*400.*399"),
        ((train, truth, test[:, 1:], test_truth), "60 and 59.*3 and 3"),
        ((train, truth * 2, test, test_truth), "booleans"),
        ((train, truth, test, test_truth, (1,), ["a", "b"]), "2.*3 concepts"),
        ((train, truth, test, test_truth, (0,)), "ks.*1 to 60"),
        ((train, truth[:, 2], test, test_truth[:, 2]), "no concept"),
        ((bad, truth, test, test_truth), "NaN"),
    ):
        with pytest.raises(ValueError, match=message):
            sparse_probing(*wrong, progress=False)
