"""The fast path of the numeric core against its literal twin."""

from itertools import pairwise

import pytest
import torch

from hf_msae.model import nested_topk
from hf_msae.model.nested_topk import (
    l1_penalty,
    nested_codes,
    nested_codes_reference,
    nested_loss,
    nested_loss_reference,
    rank,
    reconstruction_loss,
    top_activations,
)

N = 24
KS = [1, 3, 4, 9, 16, 24]


def random_code(rows=13, density=0.5, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pre = torch.randn(rows, N, generator=generator, dtype=torch.float64)
    return pre.where(torch.rand(rows, N, generator=generator) < density, -1.0).relu().to(dtype)


def tied_code():
    """Few distinct values, so that every threshold cuts through a tie; also rows of zeros, ones and one positive."""
    generator = torch.Generator().manual_seed(1)
    code = torch.randint(0, 4, (40, N), generator=generator).float() / 7
    code[0] = 0
    code[1] = 1
    code[2] = 0
    code[2, 11] = 0.5
    return code


CODES = {
    "dense": random_code(density=1.0),
    "sparse": random_code(density=0.2),
    "mostly below the smallest k": random_code(density=0.02, seed=3),
    "all zero": torch.zeros(5, N),
    "ties": tied_code(),
    "float64": random_code(dtype=torch.float64),
    "float64 ties": tied_code().double(),
    "bfloat16": random_code(density=1.0, dtype=torch.bfloat16),
    "float16": random_code(density=1.0, dtype=torch.float16),
    "huge and tiny": random_code(density=1.0) * torch.logspace(-40, 38, N),
    "single row": random_code()[0],
    "batch of batches": random_code(rows=12).reshape(3, 4, N),
    "no rows": torch.zeros(0, N),
}


@pytest.mark.parametrize("name", CODES)
def test_codes_equal_the_reference(name):
    code = CODES[name]
    for soft_cap in (None, 0.7):
        fast, reference = nested_codes(code, KS, soft_cap), nested_codes_reference(code, KS, soft_cap)
        assert len(fast) == len(KS)
        for k, actual, expected in zip(KS, fast, reference, strict=True):
            assert actual.dtype == code.dtype
            assert torch.equal(actual, expected), f"k={k}, soft_cap={soft_cap}"
            assert ((actual > 0).sum(-1) == (code > 0).sum(-1).clamp_max(k)).all()


def test_ties_keep_the_lowest_index():
    code = torch.tensor([[2.0, 1.0, 3.0, 1.0, 1.0, 0.0]])
    assert nested_codes(code, [3])[0].tolist() == [[2.0, 1.0, 3.0, 0.0, 0.0, 0.0]]
    assert rank(code, 5).tolist() == [[2, 0, 1, 3, 4]]
    assert rank(torch.zeros(1, 4), 3).tolist() == [[0, 1, 2]]


@pytest.mark.parametrize("name", CODES)
def test_rank_is_a_stable_sort(name):
    order = CODES[name].argsort(dim=-1, descending=True, stable=True)
    for k in (1, 5, N):
        assert torch.equal(rank(CODES[name], k), order[..., :k]), k


def test_nearest_neighbours_in_float32_are_told_apart():
    code = torch.full((1, 8), 1.0)
    code[0, 6] = torch.nextafter(torch.tensor(1.0), torch.tensor(2.0))
    code[0, 3] = torch.nextafter(torch.tensor(1.0), torch.tensor(0.0))
    assert rank(code, 8).tolist() == [[6, 0, 1, 2, 4, 5, 7, 3]]


def test_levels_nest():
    codes = nested_codes(tied_code(), KS)
    for small, large in pairwise(codes):
        assert torch.equal(large[small > 0], small[small > 0])


def test_levels_that_drop_nothing_are_the_full_code_and_cost_no_ranking(monkeypatch):
    code = random_code(density=0.3)
    most_active = int((code > 0).sum(-1).max())
    assert 4 < most_active < 16
    codes = nested_codes(code, KS)
    assert [level is code for level in codes] == [k >= most_active for k in KS]

    ranked = []
    monkeypatch.setattr(nested_topk, "rank", lambda code, k: ranked.append(k) or rank(code, k))
    nested_codes(code, KS)
    assert ranked == [max(k for k in KS if k < most_active)], "one ranking, of the largest level that drops anything"
    nested_codes(code, [16, 24])
    assert len(ranked) == 1


def test_top_activations():
    code = tied_code()
    values, indices = top_activations(code, 9)
    assert torch.equal(values, code.gather(-1, indices))
    assert (values[:, 1:] <= values[:, :-1]).all()
    same = values[:, 1:] == values[:, :-1]
    assert (indices[:, 1:] > indices[:, :-1])[same].all()
    assert torch.equal(torch.zeros_like(code).scatter(-1, indices, values), nested_codes(code, [9])[0])
    capped, _ = top_activations(code, 9, soft_cap=0.3)
    assert torch.allclose(capped, 0.3 * torch.tanh(values / 0.3))


def problem(dtype, rows=7, d=5, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    return {
        "pre_activations": normal(rows, N) - 0.3,
        "target": normal(rows, d),
        "decoder": normal(N, d),
        "pre_bias": normal(d),
    }


def fast_loss(pre_activations, target, decoder, pre_bias, ks, weights, kind, soft_cap):
    codes = nested_codes(pre_activations.relu(), ks, soft_cap)
    decoded = {id(code): code @ decoder + pre_bias for code in codes}
    return nested_loss([decoded[id(code)] for code in codes], target, weights, kind)


@pytest.mark.parametrize("soft_cap", [None, 1.3])
@pytest.mark.parametrize("kind", ["mse", "nmse", "cosine"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_loss_and_gradients_equal_the_reference(dtype, kind, soft_cap, relative_error):
    tensors = problem(dtype)
    tensors["target"][2] = 0  # divides by the epsilon
    tensors["pre_activations"][3] = -1  # nothing active
    tensors["pre_activations"][4] = tensors["pre_activations"][4].round()  # ties
    weights = [3.0, 1.0, 0.5, 2.0, 1.0, 4.0]
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5

    results = []
    for compute in (fast_loss, nested_loss_reference):
        leaves = {name: tensor.clone().requires_grad_() for name, tensor in tensors.items()}
        loss, level_losses = compute(**leaves, ks=KS, weights=weights, kind=kind, soft_cap=soft_cap)
        loss.backward()
        results.append((loss, level_losses, {name: leaf.grad for name, leaf in leaves.items()}))
    (loss, level_losses, grads), (expected_loss, expected_level_losses, expected_grads) = results
    assert relative_error(loss, expected_loss) < tolerance
    assert relative_error(level_losses, expected_level_losses) < tolerance
    for name, grad in grads.items():
        assert relative_error(grad, expected_grads[name]) < tolerance, name


@pytest.mark.parametrize(("kind", "soft_cap"), [("mse", 1.3), ("nmse", None), ("cosine", 1.3)])
def test_gradcheck(kind, soft_cap):
    tensors = problem(torch.float64, rows=3, d=3)
    active = tensors["pre_activations"].abs().flatten().sort().values
    assert active[0] > 1e-4 and active.diff().min() > 1e-5, "finite differences must not cross a kink or a tie"
    leaves = [tensor.requires_grad_() for tensor in tensors.values()]

    def loss(*leaves):
        named = dict(zip(tensors, leaves, strict=True))
        return fast_loss(**named, ks=KS, weights=[6, 5, 4, 3, 2, 1], kind=kind, soft_cap=soft_cap)[0]

    assert torch.autograd.gradcheck(loss, leaves)


def test_loss_formulas():
    target = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    residual = torch.tensor([[1.0, 2.0], [0.0, 1e-3]])
    assert reconstruction_loss(residual, target, "mse").item() == pytest.approx((1 + 4 + 1e-6) / 4)
    assert reconstruction_loss(residual, target, "nmse").item() == pytest.approx((5 / 25 + 1e-6 / 1e-8) / 2)
    code = torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 0.0]])
    assert l1_penalty(code, target).item() == pytest.approx(3 / 5 / 2)
    # The reconstructions are (2, 2) and (0, -0.001); a target of 0 has no direction.
    assert reconstruction_loss(residual, target, "cosine").item() == pytest.approx(((1 - 14 / 8**0.5 / 5) + 1) / 2)
    with pytest.raises(ValueError, match="huber"):
        reconstruction_loss(residual, target, "huber")


def test_weights_are_divided_by_their_sum():
    target = torch.zeros(1, 2)
    loss, levels = nested_loss([torch.full((1, 2), 1.0), torch.full((1, 2), 2.0)], target, [3, 1])
    assert levels.tolist() == [1, 4]
    assert loss.item() == pytest.approx((3 * 1 + 1 * 4) / 4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_losses_accumulate_in_float32(dtype):
    """70,000 squares of 0.01: their sum is 7, which neither the range nor the steps of half precision would give."""
    residual, target = torch.full((70, 1000), 0.1, dtype=dtype), torch.full((70, 1000), 10.0, dtype=dtype)
    square = residual[0, 0].item() ** 2
    for kind, expected in (("mse", square), ("nmse", square / 100)):
        loss = reconstruction_loss(residual, target, kind)
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(expected, rel=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, levels = nested_loss([residual.float(), target.float()], target.float(), [1.0, 3.0])
    assert loss.dtype == levels.dtype == torch.float32
    assert loss.item() == pytest.approx((10 - residual[0, 0].item()) ** 2 / 4, rel=1e-5)
