"""Rows of many matrices picked at once, wherever those lie in memory."""

import numpy as np
import pytest

from hf_msae.embeddings.spread_rows import SpreadRows


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_rows_are_those_of_their_matrices(dtype):
    rng = np.random.default_rng(0)
    table = rng.normal(size=(40, 10)).astype(dtype)
    # In descending order in memory, overlapping, with gaps between rows, and somewhere else altogether.
    views = [table[30:, 2:7], table[3:9, :5], table[::4, 5:], rng.normal(size=(7, 5)).astype(dtype)]
    spread = SpreadRows.over(views)
    chunks = rng.integers(0, 4, size=200)
    rows = np.array([rng.integers(0, len(views[chunk])) for chunk in chunks])
    expected = np.stack([views[chunk][row] for chunk, row in zip(chunks, rows, strict=True)])
    picked = spread.rows(chunks, rows)
    assert np.array_equal(picked, expected)
    picked[:] = 0  # a copy
    assert np.array_equal(spread.rows(chunks, rows), expected)


def test_matrices_that_do_not_go_together_are_left_alone():
    one = np.zeros((4, 3), np.float32)
    assert SpreadRows.over([one]) is None
    assert SpreadRows.over([one, one.astype(np.float16)]) is None
    assert SpreadRows.over([one, np.zeros((3, 4), np.float32).T]) is None
    assert SpreadRows.over([one.astype(np.float64), one.astype(np.float64)]) is None
    assert SpreadRows.over([one, np.zeros((0, 3), np.float32)]) is None
    misaligned = np.frombuffer(bytes(4 * 12 + 1), np.uint8)[1:].view(np.float32).reshape(4, 3)
    assert SpreadRows.over([one, misaligned]) is None
