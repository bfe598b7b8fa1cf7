"""L0, sparsity and dead latents."""

import numpy as np
import pytest
import torch

from hf_msae.metrics import SparsityAccumulator, dead_fraction, dead_latents, l0, sparsity


def codes(rows=101, n=40):
    rng = np.random.default_rng(0)
    z = np.maximum(rng.normal(size=(rows, n)) - 1, 0).astype(np.float32)
    z[:, [3, 17]] = 0
    z[:, 5] = 0
    z[77, 5] = 1e-30  # fires once, hardly
    z[5, 6] = -1.0  # a negative activation fires too
    return torch.from_numpy(z)


def direct(z):
    z = np.asarray(z)
    counts = [sum(value != 0 for value in row) for row in z]
    dead = [j for j in range(z.shape[1]) if all(z[:, j] == 0)]
    n = z.shape[1]
    return {
        "l0": np.mean(counts),
        "sparsity": np.mean([1 - count / n for count in counts]),
        "dead_latents": len(dead),
        "dead_fraction": len(dead) / n,
    }


def test_against_the_definition():
    z = codes()
    found = {metric.__name__: metric(z) for metric in (l0, sparsity, dead_latents, dead_fraction)}
    assert found == pytest.approx(direct(z), rel=1e-12, abs=0)
    assert found["dead_latents"] == 2 and isinstance(found["dead_latents"], int)


@pytest.mark.parametrize("sizes", [[101], [1] * 101, [64, 37], [33, 1, 67]])
def test_streamed_and_merged(sizes):
    z = codes()
    streamed, merged = SparsityAccumulator(40), SparsityAccumulator(40)
    for part in z.split(sizes):
        streamed.update(part)
        single = SparsityAccumulator(40)
        single.update(part)
        merged.merge(single)
    assert streamed.compute() == merged.compute() == pytest.approx(direct(z), rel=1e-12, abs=0)
    assert torch.equal(streamed.firings, (z != 0).sum(dim=0))


def test_what_is_refused():
    accumulator = SparsityAccumulator(40)
    with pytest.raises(ValueError, match="no samples"):
        accumulator.compute()
    with pytest.raises(ValueError, match=r"40.*\(101, 39\)"):
        accumulator.update(codes()[:, 1:])
    with pytest.raises(ValueError, match=r"\(0, 40\)"):
        accumulator.update(codes()[:0])
    accumulator.update(codes())
    bad = codes()
    bad[9, 9] = float("nan")
    with pytest.raises(ValueError, match="row 110 of latents"):
        accumulator.update(bad)
    with pytest.raises(ValueError, match="row 9 of latents"):
        l0(bad)
    half = torch.full((3, 40), 60000.0, dtype=torch.float16)  # finite, but its sum overflows half precision
    accumulator.update(half)
