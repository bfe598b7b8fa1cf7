"""Decoder orthogonality against the n x n definition."""

import numpy as np
import pytest
import torch

from hf_msae.metrics import decoder_orthogonality


def direct(rows, unit_rows, count_diagonal):
    rows = np.asarray(rows, np.float64)
    if unit_rows:
        rows = np.array([row / np.linalg.norm(row) if np.linalg.norm(row) else row for row in rows])
    n = len(rows)
    total = sum((rows[i] @ rows[j]) ** 2 for i in range(n) for j in range(n) if i != j)
    return total / (n * n if count_diagonal else n * (n - 1))


@pytest.mark.parametrize("shape", [(50, 8), (6, 20), (2, 3)])
@pytest.mark.parametrize("unit_rows", [True, False])
@pytest.mark.parametrize("count_diagonal", [True, False])
def test_against_the_definition(shape, unit_rows, count_diagonal):
    rows = np.random.default_rng(0).normal(size=shape)
    rows[0] *= 30
    expected = direct(rows, unit_rows, count_diagonal)
    value = decoder_orthogonality(torch.from_numpy(rows).float(), unit_rows, count_diagonal)
    assert value == pytest.approx(expected, rel=1e-5)


def test_known_dictionaries():
    assert decoder_orthogonality(torch.eye(5) * 3) == pytest.approx(0.0, abs=1e-15)
    assert decoder_orthogonality(torch.ones(5, 4)) == pytest.approx(1.0)
    with_zero_row = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    assert decoder_orthogonality(with_zero_row) == pytest.approx(2 / 6)
    random = torch.randn(4000, 64, generator=torch.Generator().manual_seed(0))
    assert decoder_orthogonality(random) == pytest.approx(1 / 64, rel=0.01)


def test_what_is_refused():
    with pytest.raises(ValueError, match="at least two rows, got 1"):
        decoder_orthogonality(torch.ones(1, 4))
    with pytest.raises(ValueError, match="row 1 of dictionary holds NaN"):
        decoder_orthogonality(torch.tensor([[1.0], [float("nan")]]))
    with pytest.raises(ValueError, match="shape"):
        decoder_orthogonality(torch.ones(4))
