"""Products in half precision are computed in float32 on a processor that is slow in it, and only there."""

import pytest
import torch

from hf_msae.model import products
from hf_msae.model.fused_nested_loss import nested_loss_implementation
from hf_msae.model.products import multiplies_slowly, product
from tests.model.small_models import N, embeddings, make_model

CPU = torch.device("cpu")


@pytest.fixture
def slow(monkeypatch):
    """Take this processor for one without instructions for half precision, whatever it is."""
    monkeypatch.setattr(products, "_SLOW_DTYPES", frozenset({torch.bfloat16, torch.float16}))


def gradients(model, x, autocast, **settings):
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        output = model(x, return_loss=True, **settings)
    output.loss.backward()
    return [output.loss.detach(), *(parameter.grad for parameter in model.parameters())]


@pytest.mark.parametrize("implementation", ["auto", "eager"])
@pytest.mark.parametrize(
    ("config", "settings"),
    [
        ({}, {}),
        ({}, {"dead_latents": torch.arange(N) % 2 == 0, "auxiliary_k": 5}),
        ({"nesting": "prefix", "nesting_ks": None, "nesting_widths": [5, 20, N]}, {}),
        ({"activation": "batch_topk", "nesting": "none", "nesting_ks": None, "k": 8}, {}),
    ],
)
def test_autocast_changes_nothing(slow, implementation, config, settings):
    model, x = make_model(**config), embeddings(9)
    with nested_loss_implementation(implementation):
        exact, found = (gradients(model, x, autocast, **settings) for autocast in (False, True))
    assert all(torch.equal(got, want) for got, want in zip(found, exact, strict=True))


def test_without_autocast_nothing_is_widened(slow):
    left, right = torch.randn(3, 4, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(product(left, right), left @ right)
    assert torch.equal(product(left.float(), right.float()), left.float() @ right.float())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_in_half_precision_rounds_its_results_alone(slow, dtype):
    left, right = torch.randn(3, 64).to(dtype), torch.randn(64, 5).to(dtype).requires_grad_()
    found = product(left, right)
    assert found.dtype == dtype and torch.equal(found, (left.float() @ right.float()).to(dtype))
    found.sum().backward()
    assert right.grad.dtype == dtype and right.grad.abs().sum() > 0


def test_elsewhere_products_keep_their_precision(monkeypatch):
    monkeypatch.setattr(products, "_SLOW_DTYPES", frozenset({torch.float16}))
    left, right = torch.randn(3, 64), torch.randn(64, 5)
    with torch.autocast("cpu", torch.bfloat16):
        assert product(left, right).dtype == torch.bfloat16
    assert multiplies_slowly(torch.float16, CPU) and not multiplies_slowly(torch.bfloat16, CPU)
    assert not multiplies_slowly(torch.float16, torch.device("cuda")) and not multiplies_slowly(None, CPU)


@pytest.mark.parametrize(
    ("available", "machine", "supported", "expected"),
    [
        (True, "x86_64", False, {torch.bfloat16, torch.float16}),
        (True, "AMD64", False, {torch.bfloat16, torch.float16}),
        (True, "x86_64", True, set()),
        (True, "arm64", False, set()),
        (False, "x86_64", False, set()),
    ],
)
def test_which_dtypes_are_slow(monkeypatch, available, machine, supported, expected):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: available)
    monkeypatch.setattr(products.platform, "machine", lambda: machine)
    for name in ("bf16", "fp16"):
        monkeypatch.setattr(torch.ops.mkldnn, f"_is_mkldnn_{name}_supported", lambda: supported)
    assert products._slow_dtypes() == expected
