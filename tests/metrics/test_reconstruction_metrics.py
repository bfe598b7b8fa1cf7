"""Reconstruction metrics against direct float64 computations, streamed and at once."""

import numpy as np
import pandas as pd
import pytest
import torch

from hf_msae.metrics import (
    ReconstructionAccumulator,
    cosine_similarity,
    cosine_similarity_centered,
    fvu,
    fvu_per_sample,
    normalized_mae,
    relative_reconstruction_bias,
)

FUNCTIONS = {
    "fvu": fvu,
    "fvu_per_sample": fvu_per_sample,
    "cosine_similarity": cosine_similarity,
    "cosine_similarity_centered": cosine_similarity_centered,
    "normalized_mae": normalized_mae,
    "relative_reconstruction_bias": relative_reconstruction_bias,
    "relative_reconstruction_bias_centered": lambda x, y: relative_reconstruction_bias(x, y, x.double().mean(dim=0)),
}


def direct(x, y):
    """The definitions, one sample at a time."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    m = x.mean(axis=0)

    def cosine(a, b):
        return a @ b / np.sqrt((a @ a) * (b @ b))

    rows = list(zip(x, y, strict=True))
    return {
        "fvu": sum((a - b) @ (a - b) for a, b in rows) / sum((a - m) @ (a - m) for a in x),
        "fvu_per_sample": np.mean([np.var(a - b) / np.var(a) for a, b in rows]),
        "cosine_similarity": np.mean([cosine(a, b) for a, b in rows]),
        "cosine_similarity_centered": np.mean([cosine(a - m, b - m) for a, b in rows]),
        "normalized_mae": np.mean([np.abs(a - b).sum() / np.abs(a).sum() for a, b in rows]),
        "relative_reconstruction_bias": sum(b @ b for _, b in rows) / sum(a @ b for a, b in rows),
        "relative_reconstruction_bias_centered": sum((b - m) @ (b - m) for _, b in rows)
        / sum((a - m) @ (b - m) for a, b in rows),
    }


def data(offset=0.0, rows=61, width=12):
    rng = np.random.default_rng(4)
    x = rng.normal(size=(rows, width)) * np.linspace(0.5, 3, width) + offset
    y = x + 0.3 * rng.normal(size=x.shape) + 0.1
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)


@pytest.mark.parametrize("offset", [0.0, 1e3])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_against_the_definition(name, offset):
    x, y = data(offset)
    assert FUNCTIONS[name](x, y) == pytest.approx(direct(x, y)[name], rel=1e-11, abs=0)


@pytest.mark.parametrize("offset", [0.0, 1e3])
@pytest.mark.parametrize("sizes", [[61], [1] * 61, [30, 1, 16, 14], [7] * 8 + [5]])
def test_streamed_and_merged(sizes, offset):
    x, y = data(offset)
    streamed, merged = (ReconstructionAccumulator(x.double().mean(dim=0)) for _ in range(2))
    for a, b in zip(x.split(sizes), y.split(sizes), strict=True):
        part = ReconstructionAccumulator(x.double().mean(dim=0))
        part.update(a, b)
        merged.merge(part)
        streamed.update(a, b)
    for accumulator in (streamed, merged):
        assert accumulator.compute() == pytest.approx(direct(x, y), rel=1e-11, abs=0)


def test_the_bias_is_the_factor_by_which_a_reconstruction_has_shrunk():
    x, _ = data(offset=5.0)
    mean = x.double().mean(dim=0)
    shrunk = mean + 0.8 * (x.double() - mean)
    assert relative_reconstruction_bias(x, shrunk, mean) == pytest.approx(0.8, rel=1e-9)
    assert 0.9 < relative_reconstruction_bias(x, shrunk) < 1  # the mean hides it
    assert relative_reconstruction_bias(x, torch.zeros_like(x)) is None
    accumulator = ReconstructionAccumulator(mean)
    accumulator.update(x, mean.expand_as(x))
    assert accumulator.compute()["relative_reconstruction_bias_centered"] is None


def test_a_given_mean_is_used():
    x, y = data()
    mean = torch.full((12,), 0.7)
    expected = ((x - y).double().square().sum() / (x.double() - 0.7).square().sum()).item()
    assert fvu(x, y, mean) == pytest.approx(expected, rel=1e-6)
    assert cosine_similarity_centered(x, y, mean) == pytest.approx(
        cosine_similarity(x.double() - mean.double(), y.double() - mean.double()), rel=1e-12
    )


def test_perfect_and_mean_predictions():
    x, _ = data(offset=5.0)
    assert fvu(x, x) == fvu_per_sample(x, x) == normalized_mae(x, x) == 0.0
    assert cosine_similarity(x, x) == pytest.approx(1.0) == cosine_similarity_centered(x, x)
    mean = x.double().mean(dim=0).expand(len(x), -1)
    assert fvu(x, mean) == pytest.approx(1.0, rel=1e-14)
    assert cosine_similarity_centered(x, mean) == 0.0  # no direction at all
    assert cosine_similarity(x, mean) > 0.9  # although the raw cosine looks good


def test_a_constant_offset_is_an_error_to_fvu_but_not_per_sample():
    x, _ = data()
    assert fvu(x, x + 1.0) > 0.1
    assert fvu_per_sample(x, x + 1.0) == pytest.approx(0.0, abs=1e-12)


def test_half_precision_input_is_summed_in_float64():
    x, y = data(offset=50.0, rows=600)
    x, y = x.bfloat16(), y.bfloat16()
    assert fvu(x, y) == pytest.approx(direct(x.double(), y.double())["fvu"], rel=1e-11)


@pytest.mark.parametrize("metric", [fvu, cosine_similarity_centered])
def test_tables_of_pandas_are_matrices(metric):
    x, y = data(rows=9)
    table = metric(pd.DataFrame(x.numpy()), pd.DataFrame(y.numpy()[:, ::-1]))
    assert table == pytest.approx(metric(x, y.flip(1)), rel=1e-12)


@pytest.mark.parametrize("metric", FUNCTIONS.values())
def test_what_is_refused(metric):
    x, y = data(rows=9)
    bad, worse = y.clone(), y.clone()
    bad[7, 3], worse[7, 3] = float("nan"), float("inf")
    for wrong, message in (
        ((x, y[:, 1:]), r"\(9, 12\).*\(9, 11\)"),
        ((x[0], y[0]), r"\(12,\)"),
        ((x[:0], y[:0]), "embeddings.*empty"),
        ((x, bad), "row 7 of reconstruction"),
        ((x, worse), "row 7 of reconstruction"),
    ):
        with pytest.raises(ValueError, match=message):
            metric(*wrong)


def test_rows_without_a_value_are_named():
    x, y = data(rows=9)
    x[4] = 2.0
    with pytest.raises(ValueError, match=r"fvu_per_sample.*row 4"):
        fvu_per_sample(x, y)
    x[4] = 0.0
    with pytest.raises(ValueError, match=r"normalized_mae.*row 4"):
        normalized_mae(x, y)
    same = x[:1].expand(5, -1)
    with pytest.raises(ValueError, match=r"fvu.*all embeddings are equal"):
        fvu(same, same)
    with pytest.raises(ValueError, match="no samples"):
        ReconstructionAccumulator(torch.zeros(3)).compute()


def test_rows_are_counted_over_batches():
    x, y = data(rows=20)
    accumulator = ReconstructionAccumulator(x.mean(dim=0))
    accumulator.update(x, y)
    y[2, 0] = float("nan")
    with pytest.raises(ValueError, match="row 22 of reconstruction"):
        accumulator.update(x, y)
    with pytest.raises(ValueError, match=r"11.*12"):
        accumulator.update(x[:, 1:], x[:, 1:])
