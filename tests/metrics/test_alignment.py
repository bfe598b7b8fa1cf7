"""CKNNA against the formula written out, and its batching."""

import math

import numpy as np
import pytest
import torch

from hf_msae.metrics import CknnaAccumulator, alignment, cknna


def direct(a, b, k):
    """The formulas of the docstring with loops and full matrix products."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    m = len(a)
    kernel_a, kernel_b = a @ a.T, b @ b.T

    def neighbors(kernel):
        mask = np.zeros((m, m))
        for i in range(m):
            others = [j for j in range(m) if j != i]
            mask[i, sorted(others, key=lambda j: (-kernel[i, j], j))[:k]] = 1
        return mask

    def hsic(p, q):
        p, q = p - np.diag(np.diag(p)), q - np.diag(np.diag(q))
        ones = np.ones(m)
        value = np.trace(p @ q) + p.sum() * q.sum() / ((m - 1) * (m - 2)) - 2 * ones @ p @ q @ ones / (m - 2)
        return value / (m * (m - 3))

    near_a, near_b = neighbors(kernel_a), neighbors(kernel_b)
    both = near_a * near_b
    own = hsic(near_a * kernel_a, near_a * kernel_a) * hsic(near_b * kernel_b, near_b * kernel_b)
    return hsic(both * kernel_a, both * kernel_b) / (np.sqrt(own) + 1e-6)


def pair(rows, seed=0, offset=0.0):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(rows, 8)) + offset
    b = np.maximum((a - offset) @ rng.normal(size=(8, 30)) - 1, 0)
    return torch.tensor(a, dtype=torch.float32), torch.tensor(b, dtype=torch.float32)


@pytest.mark.parametrize(("rows", "k"), [(60, 10), (101, 3), (40, 1)])
@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_against_the_definition(rows, k, offset):
    a, b = pair(rows, offset=offset)
    assert cknna(a, b, k) == pytest.approx(direct(a, b, k), rel=1e-9, abs=0)


def test_sparse_codes_have_the_same_kernel(monkeypatch):
    codes = torch.relu(torch.randn(70, 400, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 2)
    sparse = alignment.Neighborhood(codes)
    monkeypatch.setattr(alignment, "csr_array", None)  # dense from here on, or this fails
    monkeypatch.setattr(alignment, "_SPARSE_COST", 1e9)
    dense = alignment.Neighborhood(codes)
    torch.testing.assert_close(sparse.kernel, dense.kernel, rtol=1e-12, atol=1e-12)
    assert torch.equal(sparse.kernel, sparse.kernel.T) and torch.equal(sparse.nearest, dense.nearest)


def test_equal_rows_are_ties_however_many_there_are():
    rows = torch.randn(100, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    copied = rows[torch.arange(300) % 100]  # more than one block
    found = alignment.Neighborhood(copied, k=3)
    assert torch.equal(found.kernel, found.kernel[:100, :100].tile(3, 3))
    for row, nearest in enumerate(found.nearest):
        order = (
            found.kernel[row]
            .clone()
            .index_fill_(0, torch.tensor(row), -torch.inf)
            .argsort(descending=True, stable=True)
        )
        assert sorted(order[:3].tolist()) == nearest.nonzero()[:, 0].tolist()


def test_one_for_itself_and_for_rotations_less_for_noise():
    a, b = pair(200)
    rotation = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
    assert cknna(a, a) == pytest.approx(1.0, abs=1e-6)
    assert cknna(a, a.double() @ rotation) == pytest.approx(1.0, abs=1e-6)
    assert 0.2 < cknna(a, b) < 0.99
    assert abs(cknna(a, torch.randn(200, 8, generator=torch.Generator().manual_seed(1)))) < 0.1


def test_ties_go_to_the_lowest_index():
    a, _ = pair(30)
    b = torch.zeros(30, 4)
    b[::3, 0] = 1.0  # ten samples with equal similarities, the others tie at zero
    assert cknna(a, b, 4) == pytest.approx(direct(a, b, 4), rel=1e-9)


def test_codes_that_never_fire_align_with_nothing():
    a, _ = pair(30)
    assert cknna(a, torch.zeros(30, 5)) == 0.0


def test_what_is_refused():
    a, b = pair(30)
    bad = b.clone()
    bad[3, 3] = math.inf
    for wrong, message in (
        ((a, b[:29]), "30 and 29"),
        ((a[:10], b[:10]), "k=10.*11.*got 10"),
        ((a[:3], b[:3], 2), "4.*got 3"),
        ((a, b, 0), "k=0"),
        ((a, bad), "row 3 of b"),
    ):
        with pytest.raises(ValueError, match=message):
            cknna(*wrong)
    with pytest.raises(ValueError, match=r"11.*8"):
        CknnaAccumulator(8)


@pytest.mark.parametrize("sizes", [[130], [1] * 130, [40, 40, 50], [7, 93, 30]])
def test_full_batches_are_averaged_however_they_arrive(sizes):
    a, b = pair(130)
    accumulator = CknnaAccumulator(batch_size=40, k=5)
    for part in zip(a.split(sizes), b.split(sizes), strict=True):
        accumulator.update(*part)
    expected = np.mean([direct(a[i : i + 40], b[i : i + 40], 5) for i in (0, 40, 80)])  # the last 10 are left out
    result = accumulator.compute()
    assert result["cknna"] == pytest.approx(expected, rel=1e-9)
    assert result["cknna_batch_size"] == 40


def test_less_than_one_batch_is_used_whole_and_recorded():
    a, b = pair(33)
    accumulator = CknnaAccumulator(batch_size=40, k=5)
    accumulator.update(a[:20], b[:20])
    accumulator.update(a[20:], b[20:])
    assert accumulator.compute() == {"cknna": pytest.approx(direct(a, b, 5), rel=1e-9), "cknna_batch_size": 33}
    tiny = CknnaAccumulator(batch_size=40, k=5)
    tiny.update(a[:5], b[:5])
    assert tiny.compute() == {"cknna": None, "cknna_batch_size": 5}
    with pytest.raises(ValueError, match="no samples"):
        CknnaAccumulator(batch_size=40).compute()


def test_merging_parts_split_at_batch_borders():
    a, b = pair(130)
    parts = [CknnaAccumulator(batch_size=40, k=5) for _ in range(2)]
    parts[0].update(a[40:80], b[40:80])
    for rows in (slice(0, 40), slice(80, 130)):
        parts[1].update(a[rows], b[rows])
    whole = CknnaAccumulator(batch_size=40, k=5)
    whole.update(a, b)
    parts[0].merge(parts[1])
    assert parts[0].compute()["cknna"] == pytest.approx(whole.compute()["cknna"], rel=1e-14)


def test_a_buffer_may_be_reused():
    a, b = pair(40)
    accumulator = CknnaAccumulator(batch_size=40, k=5)
    buffer_a, buffer_b = torch.empty(20, 8, dtype=torch.float64), torch.empty(20, 30, dtype=torch.float64)
    for start in (0, 20):
        accumulator.update(buffer_a.copy_(a[start : start + 20]), buffer_b.copy_(b[start : start + 20]))
    assert accumulator.compute()["cknna"] == pytest.approx(direct(a, b, 5), rel=1e-9)


def test_a_part_of_a_batch_is_merged_once_and_never_dropped():
    a, b = torch.randn(70, 6, generator=torch.Generator().manual_seed(0)).split([40, 30])
    first, second, empty = (CknnaAccumulator(batch_size=64) for _ in range(3))
    first.update(a, a)
    second.update(b, b)
    empty.merge(second)
    assert empty.compute() == second.compute() and empty.compute()["cknna_batch_size"] == 30
    with pytest.raises(ValueError, match="64"):
        first.merge(second)


class TwoProcesses:
    """This process and another one, which holds `other`; `reduce` and `gather_object` ask in both."""

    num_processes, device = 2, "cpu"

    def __init__(self, patch, other):
        self.other = other
        patch.setattr(alignment, "gather_object", lambda mine: [*mine, [(a.cpu(), b.cpu()) for a, b in other._rest]])

    def reduce(self, packed, reduction):
        return packed + torch.cat([each.reshape(-1) for each in self.other._sums.values()])


def test_processes_share_their_parts_of_a_batch(monkeypatch):
    a, b = pair(130)
    mine, empty, other, part = (CknnaAccumulator(batch_size=40, k=5) for _ in range(4))
    other.update(a[:30], b[:30])
    accelerator = TwoProcesses(monkeypatch, other)
    assert empty.reduce(accelerator).compute() == other.compute()  # all that there is, in both processes
    part.update(a[40:50], b[40:50])
    with pytest.raises(ValueError, match="40"):
        part.reduce(accelerator)
    mine.update(a[:40], b[:40])
    alone = mine.compute()
    assert mine.reduce(accelerator).compute() == alone  # the 30 rows are left out, as in a single process


@pytest.mark.parametrize("rows", [17, 128, 300])
def test_the_kernel_of_blocks_is_that_of_all_rows(rows):
    x = torch.randn(rows, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(alignment.Neighborhood(x).kernel, x @ x.T, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("share", [0.002, 0.5])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_kernels_of_codes_are_float64_whatever_the_codes_are(share, dtype):
    codes = torch.rand(40, 900, generator=torch.Generator().manual_seed(0))
    codes = (codes * (codes < share)).to(dtype)
    kernel = alignment.Neighborhood(codes).kernel
    torch.testing.assert_close(kernel, codes.double() @ codes.double().T, rtol=1e-12, atol=1e-12)
    codes[3, 5] = torch.nan
    with pytest.raises(ValueError, match=r"row 3 .*NaN"):
        alignment.Neighborhood(codes)
