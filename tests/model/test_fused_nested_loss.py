"""The loss and gradients computed in one pass against the literal twin, and where that pass is not taken."""

import math
from functools import cache, partial

import pytest
import torch
from torch.autograd import forward_ad

from hf_msae import MSAEConfig, MSAEModel
from hf_msae.model import fused_nested_loss, products
from hf_msae.model.fused import compiler, nested_pass, torch_entries
from hf_msae.model.fused_nested_loss import NestedLoss, can_fuse, eager_nested_loss, nested_loss_implementation
from hf_msae.model.nested_topk import l1_penalty, nested_loss_reference

D, N = 70, 96  # 70: more than one slice of columns, the last one narrower
KS = (3, 4, 8, 20, 40, 60, N)
WEIGHTS = (7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0)


@pytest.fixture(autouse=True, params=["compiled", "torch"])
def entries(request, monkeypatch):
    """Run every test with the C functions, if there is a compiler, and without them."""
    if request.param == "torch":
        monkeypatch.setattr(nested_pass, "compiled_library", lambda: None)
    elif compiler.compiled_library() is None:
        pytest.skip("there is no C compiler")


def problem(positive=0.5, ties=False, dtype=torch.float32, rows=13, tied=False):
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    u = normal(rows, D)
    u[min(2, rows - 1)] = 0  # divides by the epsilon
    encoder, decoder = normal(D, N) / math.sqrt(D), normal(N, D) / math.sqrt(D)
    shift = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(1 - positive)).item()
    latent_bias, pre_bias = normal(N) * 0.1 - shift, normal(D) * 0.1
    if ties:  # of numbers whose products and sums are exact, in whatever order and chunks they are added
        u, pre_bias, encoder = (u * 8).round() / 8, (pre_bias * 8).round() / 8, (encoder * 64).round() / 64
        encoder[:, ::3], latent_bias[::3] = encoder[:, 1::3], latent_bias[1::3]
    return u, [pre_bias, encoder, latent_bias, *([] if tied else [decoder])]


def outcome(function, loss, u, parameters):
    leaves = [parameter.clone().requires_grad_() for parameter in parameters]
    outputs = function(loss, u, *leaves, *[None] * (4 - len(leaves)))
    outputs[0].backward()
    return [*outputs, *[leaf.grad for leaf in leaves]]


def reference(loss, u, pre_bias, encoder, latent_bias, decoder):
    dictionary = encoder.T if decoder is None else decoder
    pre = (u - pre_bias) @ encoder + latent_bias
    value, levels = nested_loss_reference(
        pre, u, dictionary, pre_bias, loss.ks, loss.weights, loss.kind, loss.soft_cap
    )
    code = pre.relu()
    value = value + loss.sparsity_coefficient * l1_penalty(code, u)
    latents = code if loss.soft_cap is None else loss.soft_cap * torch.tanh(code / loss.soft_cap)
    return value, levels, latents, latents @ dictionary + pre_bias


@cache  # they are the same with the C functions and without
def wanted(dtype, kind, positive, ties):
    """(tied, soft cap, coefficient of the L1 term) -> the outcome by the formula, and that of the eager twin."""
    found = {}
    for settings in ((False, None, 0.0), (True, None, 0.3), (False, 1.3, 0.3)):
        given = problem(positive, ties, dtype, tied=settings[0])
        loss = NestedLoss(KS, WEIGHTS, kind, *settings[1:])
        found[settings] = outcome(reference, loss, *given), outcome(eager_nested_loss, loss, *given)
    return found


@pytest.mark.parametrize(("chunk", "ties"), [(2**22, False), (5 * N, True)], ids=["one chunk", "5 rows, with ties"])
@pytest.mark.parametrize("kind", ["mse", "nmse", "cosine"])
@pytest.mark.parametrize(
    ("dtype", "positive"), [*((torch.float32, each) for each in (0.02, 0.2, 0.5, 0.95)), (torch.float64, 0.95)]
)
def test_loss_and_gradients_equal_the_reference(dtype, kind, positive, ties, chunk, monkeypatch, relative_error):
    monkeypatch.setattr(nested_pass, "_CHUNK_ELEMENTS", chunk)
    monkeypatch.setattr(torch_entries, "_CACHE_ELEMENTS", chunk // 2)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-11
    for (tied, soft_cap, coefficient), (expected, eager) in wanted(dtype, kind, positive, ties).items():
        u, parameters = problem(positive, ties, dtype, tied=tied)
        loss = NestedLoss(KS, WEIGHTS, kind, soft_cap, coefficient)
        fused = outcome(fused_nested_loss.fused_nested_loss, loss, u, parameters)
        for place, want in enumerate(expected):
            assert relative_error(fused[place], want) < tolerance, (tied, soft_cap, place)
            assert relative_error(eager[place], want) < tolerance, (tied, soft_cap, place)
        only = outcome(partial(fused_nested_loss.fused_nested_loss, loss_only=True), loss, u, parameters)
        assert only[2] is only[3] is None, "neither code nor reconstruction"
        for place, want in enumerate(expected):  # and what was returned before is as it was
            assert place in (2, 3) or relative_error(only[place], want) < tolerance, (tied, soft_cap, place)
            assert relative_error(fused[place], want) < tolerance, (tied, soft_cap, place)


def test_every_kind_of_level_is_met(monkeypatch):
    met = [set() for _ in range(4)]
    original = nested_pass.NestedPass._sort_levels

    def watch(self):
        kinds = original(self)
        for seen, levels in zip(met, kinds, strict=True):
            seen.update(levels)
        return kinds

    monkeypatch.setattr(nested_pass.NestedPass, "_sort_levels", watch)
    u, parameters = problem(0.95)
    ks = (3, 4, 8, 20, 50, 84, N)
    outcome(fused_nested_loss.fused_nested_loss, NestedLoss(ks, WEIGHTS, "mse"), u, parameters)
    assert all(met), "sparse, short, dense and complete levels"
    assert sorted(level for levels in met for level in levels) == list(range(len(ks)))


@pytest.mark.parametrize("ks", [(1,), (N,), (5, 9), (1, 2, 3, 95)])
@pytest.mark.parametrize("rows", [1, 6])
def test_any_levels_and_rows(ks, rows, relative_error):
    u, parameters = problem(rows=rows, dtype=torch.float64)
    loss = NestedLoss(ks, (1.0,) * len(ks), "mse")
    fused = outcome(fused_nested_loss.fused_nested_loss, loss, u + 1, parameters)
    for got, want in zip(fused, outcome(reference, loss, u + 1, parameters), strict=True):
        assert relative_error(got, want) < 1e-11


@pytest.mark.parametrize("kind", ["mse", "cosine"])
@pytest.mark.parametrize("ks", [(88, 89, 90), (3, 88, 89, 90), (50, 88, 89, 90)])
def test_several_levels_that_lack_few_entries(ks, kind, monkeypatch, relative_error):
    kinds, original = [], nested_pass.NestedPass._sort_levels
    monkeypatch.setattr(nested_pass.NestedPass, "_sort_levels", lambda self: kinds.append(original(self)) or kinds[-1])
    u, parameters = problem(0.99, dtype=torch.float64)
    parameters[2] += 1
    loss = NestedLoss(ks, (3.0, 2.0, 1.0, 4.0)[: len(ks)], kind)
    fused = outcome(fused_nested_loss.fused_nested_loss, loss, u, parameters)
    assert len(kinds[0][1]) > 1, "several short levels"
    for got, want in zip(fused, outcome(reference, loss, u, parameters), strict=True):
        assert relative_error(got, want) < 1e-11


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("ks", [(3,), (40, 45), (70, 75, 80)])
def test_latents_in_no_level_have_no_gradient(ks, dtype, monkeypatch):
    """Rounding errors would count them as firing, and Adam would enlarge them."""
    monkeypatch.setattr(products, "_SLOW_DTYPES", frozenset())
    u, parameters = problem(0.99)
    parameters[2] += 2  # nearly all are active
    parameters[2][:8] -= 3  # but some not as strongly as others
    code = ((u - parameters[0]) @ parameters[1] + parameters[2]).relu()
    ranks = code.argsort(1, descending=True).argsort(1)
    outside = ((code > 0).any(0) & ((ranks >= ks[-1] + 2) | (code == 0)).all(0)).nonzero()[:, 0]
    assert len(outside)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        found = outcome(fused_nested_loss.fused_nested_loss, NestedLoss(ks, (1.0,) * len(ks), "mse"), u, parameters)
    *_, of_encoder, of_bias, of_decoder = found
    assert not of_encoder[:, outside].any() and not of_bias[outside].any() and not of_decoder[outside].any()
    assert of_bias.any()


def test_nothing_active():
    u, parameters = problem()
    parameters[2] -= 100
    outputs = outcome(fused_nested_loss.fused_nested_loss, NestedLoss(KS, WEIGHTS, "mse"), u, parameters)
    expected = outcome(reference, NestedLoss(KS, WEIGHTS, "mse"), u, parameters)
    for got, want in zip(outputs, expected, strict=True):
        assert torch.allclose(got, want, rtol=1e-5, atol=0)


def test_gradcheck():
    u, parameters = problem(rows=3, dtype=torch.float64)
    u = u + 1  # no row is 0: nmse would blow it up
    loss = NestedLoss(KS, WEIGHTS, "nmse", 1.3, 0.1)
    parameters = [parameter.requires_grad_() for parameter in parameters]

    def value(*leaves):
        return fused_nested_loss.fused_nested_loss(loss, u, *leaves)[0]

    assert torch.autograd.gradcheck(value, parameters, fast_mode=True, nondet_tol=1e-12)


@pytest.mark.parametrize("what", ["scaled", "twice", "other outputs", "one parameter", "second derivative"])
def test_unusual_backward_passes_equal_autograd(what, relative_error):
    u, parameters = problem()
    loss = NestedLoss(KS, WEIGHTS, "mse")
    found = []
    for function in (fused_nested_loss.fused_nested_loss, eager_nested_loss):
        leaves = [parameter.clone().requires_grad_() for parameter in parameters]
        if what == "one parameter":
            for leaf in leaves[:3]:
                leaf.requires_grad_(False)
        value, levels, code, decoded = function(loss, u, *leaves)
        if what == "scaled":
            (3 * value).backward()
        elif what == "twice":
            value.backward(retain_graph=True)
            value.backward()
        elif what == "other outputs":
            (value + levels[2] + code.square().mean() + decoded.mean()).backward()
        elif what == "second derivative":
            first = torch.autograd.grad(value, leaves, create_graph=True)
            (value + 10 * sum(each.square().sum() for each in first)).backward()
        else:
            value.backward()
        found.append([leaf.grad for leaf in leaves])
    for got, want in zip(*found, strict=True):
        assert (got is None) == (want is None)
        assert got is None or relative_error(got, want) < 1e-5


def model_and_batch(**changes):
    torch.manual_seed(0)
    config = MSAEConfig(d_in=D, num_latents=N, nesting_ks=list(KS), sparsity_coefficient=0.01, **changes)
    return MSAEModel(config), torch.randn(4, 3, D)


@pytest.mark.parametrize("changes", [{}, {"k": 8}, {"tied": True}, {"reconstruction_loss": "cosine"}])
def test_a_model_gives_the_same_either_way(changes, relative_error):
    model, x = model_and_batch(**changes)
    found = []
    for name in ("auto", "eager"):
        with nested_loss_implementation(name):
            full, only = model(x, return_loss=True), model(x, return_loss=True, loss_only=True)
        assert only.latents is None and only.reconstruction is None
        model.zero_grad()
        only.loss.backward()
        grads = [parameter.grad for parameter in model.parameters()]
        found.append([full.loss, full.latents, full.reconstruction, full.nested_losses, only.loss, *grads])
        assert full.latents.shape == (4, 3, N) and full.reconstruction.shape == x.shape
    for got, want in zip(*found, strict=True):
        assert relative_error(got, want) < 1e-5


def test_the_code_is_kept_only_if_something_needs_it(monkeypatch, relative_error):
    model, x = model_and_batch()
    dead = torch.arange(N) % 5 == 0
    kept, original = [], nested_pass.NestedPass.run
    monkeypatch.setattr(
        nested_pass.NestedPass, "run", lambda self: kept.append(self.latents is not None) or original(self)
    )
    model(x, return_loss=True, loss_only=True)
    model(x, return_loss=True)
    got = model(x, return_loss=True, loss_only=True, dead_latents=dead)
    assert kept == [False, True, True]
    with nested_loss_implementation("eager"):
        want = model(x, return_loss=True, loss_only=True, dead_latents=dead)
    assert got.latents is got.reconstruction is None
    assert relative_error(got.auxiliary_loss, want.auxiliary_loss) < 1e-5


def test_where_it_is_taken(monkeypatch):
    model, x = model_and_batch()
    parameters = list(model.parameters())
    assert can_fuse(x, *parameters)
    assert not can_fuse(x.clone().requires_grad_(), *parameters)
    assert not can_fuse(x.double(), *parameters)
    assert not can_fuse(x.bfloat16(), *(parameter.bfloat16() for parameter in parameters))
    assert not can_fuse(x.to("meta"), *parameters)
    with torch.autocast("cpu", torch.float16):
        assert not can_fuse(x, *parameters)
    with torch.autocast("cpu", torch.bfloat16):
        assert can_fuse(x, *parameters)
    with nested_loss_implementation("eager"):
        assert not can_fuse(x, *parameters)
    monkeypatch.setenv("HF_MSAE_NESTED_LOSS", "eager")
    assert not can_fuse(x, *parameters)
    with nested_loss_implementation("auto"):
        assert can_fuse(x, *parameters)
    with pytest.raises(ValueError, match="quick"), nested_loss_implementation("quick"):
        pass


@pytest.mark.parametrize("chunk", [2**22, 5 * N])
@pytest.mark.parametrize("positive", [0.2, 0.5, 0.95])
def test_autocast_rounds_factors_of_products_alone(positive, chunk, relative_error, monkeypatch):
    monkeypatch.setattr(nested_pass, "_CHUNK_ELEMENTS", chunk)
    monkeypatch.setattr(products, "_SLOW_DTYPES", frozenset())
    u, parameters = problem(positive)
    loss = NestedLoss(KS, WEIGHTS, "mse", None, 0.1)
    exact = outcome(fused_nested_loss.fused_nested_loss, loss, u, parameters)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = outcome(fused_nested_loss.fused_nested_loss, loss, u, parameters)
    for got, want in zip(rounded, exact, strict=True):
        assert got.dtype == torch.float32
        assert relative_error(got, want) < 2e-2
    assert relative_error(rounded[2], exact[2]) > 1e-5, "the code came out of a product in bfloat16"


@pytest.mark.parametrize("positive", [0.2, 0.95])
def test_compiled_lookups_under_autocast_round_the_dictionary(positive, monkeypatch):
    if nested_pass.compiled_library() is None:
        pytest.skip("without C functions, entries are looked up in float32")
    monkeypatch.setattr(products, "_SLOW_DTYPES", frozenset())
    u, parameters = problem(positive)
    found = []
    for decoder in (parameters[3], parameters[3].bfloat16().float()):
        with torch.autocast("cpu", torch.bfloat16):
            given = [*parameters[:3], decoder]
            found.append(outcome(fused_nested_loss.fused_nested_loss, NestedLoss(KS, WEIGHTS, "mse"), u, given))
    for got, want in zip(*found, strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize("kind", ["mse", "cosine"])
def test_embeddings_may_lie_in_memory_in_any_order(kind, monkeypatch, relative_error):
    monkeypatch.setattr(products, "_SLOW_DTYPES", frozenset())
    u, parameters = problem(0.95)
    loss = NestedLoss((3, 40, 84, 87, N), (3.0, 2.0, 1.0, 4.0, 2.0), kind)
    for low in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            want, got = (
                outcome(fused_nested_loss.fused_nested_loss, loss, each, parameters)
                for each in (u, u.T.contiguous().T)
            )
        for place in range(len(want)):
            assert relative_error(got[place], want[place]) < (1e-3 if low else 1e-5), (low, place)


@pytest.mark.parametrize("low", [False, True])
def test_another_step_leaves_what_was_returned_as_it_was(low, monkeypatch):
    monkeypatch.setattr(products, "_SLOW_DTYPES", frozenset())
    u, parameters = problem(0.95)
    with torch.autocast("cpu", torch.bfloat16, enabled=low):
        loss = NestedLoss(KS, WEIGHTS, "mse", 1.3)
        first = outcome(fused_nested_loss.fused_nested_loss, loss, u, parameters)
        before = [each.detach().clone() for each in first]
        outcome(fused_nested_loss.fused_nested_loss, loss, 2 * u, parameters)
    assert all(map(torch.equal, first, before))


def test_embeddings_get_their_gradient():
    model, x = model_and_batch()
    x.requires_grad_()
    model(x, return_loss=True).loss.backward()
    assert x.grad.abs().sum() > 0


def test_torch_func_takes_the_eager_way():
    model, x = model_and_batch()
    parameters = dict(model.named_parameters())

    def loss(parameters):
        return torch.func.functional_call(model, parameters, (x,), {"return_loss": True}).loss

    grads = torch.func.grad(loss)(parameters)
    model(x, return_loss=True).loss.backward()
    for name, parameter in parameters.items():
        assert torch.allclose(grads[name], parameter.grad, rtol=1e-4, atol=1e-8), name


@pytest.mark.parametrize("name", ["auto", "eager"])
@pytest.mark.parametrize("broken", [math.nan, -math.nan, math.inf])
def test_broken_weights_give_a_broken_loss(broken, name):
    """Infinite weights make NaN whose sign bit is set, which as an integer is below everything."""
    torch.manual_seed(0)
    for ks in ([1, 4], [1, N], [N]):
        model, x = MSAEModel(MSAEConfig(d_in=D, num_latents=N, nesting_ks=ks)), torch.randn(5, D)
        with torch.no_grad():
            model.encoder[:, 3] = broken
        with nested_loss_implementation(name):
            assert not math.isfinite(model(x, return_loss=True, loss_only=True).loss.item()), ks


def test_forward_mode_differentiation_takes_the_eager_way():
    model, x = model_and_batch()
    with forward_ad.dual_level():
        assert not can_fuse(x, *model.parameters())
    assert can_fuse(x, *model.parameters())
