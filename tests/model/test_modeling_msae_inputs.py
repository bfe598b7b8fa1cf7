"""MSAEModel: the dtypes of results, and the inputs that it refuses."""

import re

import numpy as np
import pytest
import torch

from hf_msae.model import products
from hf_msae.model.fused_nested_loss import nested_loss_implementation
from tests.model.small_models import D, N, by_hand, embeddings, make_model


@pytest.mark.parametrize("parameter_dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("input_dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_results_have_the_promoted_dtype(input_dtype, parameter_dtype, relative_error):
    model, x = make_model(), embeddings(6).to(input_dtype)
    expected = make_model()(x.float(), return_loss=True)
    model = model.to(parameter_dtype)
    dtype = torch.promote_types(input_dtype, parameter_dtype)
    output = model(x, return_loss=True, output_nested=True)
    values, _ = model.encode_topk(x, 3)
    assert {model.encode(x).dtype, values.dtype, model.decode(output.latents).dtype} == {dtype}
    assert {output.latents.dtype, output.reconstruction.dtype, output.nested_reconstructions[0].dtype} == {dtype}
    assert output.loss.dtype == (torch.float64 if torch.float64 in (input_dtype, parameter_dtype) else torch.float32)
    assert relative_error(output.reconstruction, expected.reconstruction) < 0.02
    assert relative_error(output.loss, expected.loss) < 0.05


def test_float64_is_float64_throughout(relative_error):
    model, x = make_model().double(), embeddings(6).double()
    latents, reconstruction = by_hand(model, x, 5)
    assert relative_error(model.encode(x, k=5), latents) < 1e-14
    assert relative_error(model(x, k=5).reconstruction, reconstruction) < 1e-14


def test_float64_embeddings_are_normalized_and_restored_in_float64(relative_error):
    """Only the two products have the parameters' dtype: what is far from zero and small is not lost beside it."""
    model = make_model()
    mean = torch.full((D,), 1e6)
    model.set_input_statistics(mean, 1e3)
    x = mean.double() + 1e-3 * torch.randn(20, D, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    expected = by_hand(model, x, N)[1] - mean.double()
    assert relative_error(model(x).reconstruction - mean.double(), expected) < 1e-5
    levels = model(x, output_nested=True).nested_reconstructions
    assert relative_error(levels[-1] - mean.double(), expected) < 1e-5


def test_statistics_are_not_rounded(relative_error):
    """Embeddings far from zero: a mean kept in half precision would swamp what is left after subtracting it."""
    torch.manual_seed(0)
    model = make_model()
    mean = 100 + torch.rand(D)
    model.set_input_statistics(mean, 0.1234567)
    x = mean + embeddings(50)
    expected = model(x).reconstruction - mean
    for dtype in (torch.float16, torch.bfloat16):
        for narrow in (make_model().to(dtype), make_model().half().to(dtype), make_model().bfloat16().to(dtype)):
            narrow.set_input_statistics(mean, 0.1234567)
            again = narrow.to(dtype).to("cpu")
            assert again.encoder.dtype == dtype
            assert torch.equal(again.input_mean, mean) and again.input_scale == torch.tensor(0.1234567)
            assert relative_error(again(x).reconstruction - mean, expected) < 0.02


def test_losses_are_float32_under_autocast(relative_error, monkeypatch):
    monkeypatch.setattr(products, "_SLOW_DTYPES", frozenset())
    model, x = make_model(), embeddings(64)
    exact = model(x, return_loss=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(x, return_loss=True)
    assert output.loss.dtype == output.nested_losses.dtype == torch.float32
    assert output.reconstruction.dtype == torch.float32
    assert 0 < relative_error(output.reconstruction, exact.reconstruction) < 0.02, "the products are bfloat16"
    output.loss.backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in model.parameters())


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (torch.zeros(3, 512), ValueError, "512.* 12 .*some/clip, image_embeds"),
        (torch.tensor(1.0), ValueError, r"\(\.\.\., 12\)"),
        (torch.zeros(3, D, dtype=torch.int64), TypeError, r"torch\.int64"),
        (torch.zeros(3, D, dtype=torch.complex64), TypeError, r"torch\.complex64"),
        ([[0.0] * D], TypeError, "list"),
    ],
)
def test_invalid_embeddings_are_refused(bad, error, message):
    model = make_model(base_model_name_or_path="some/clip")
    for call in (model, model.encode, lambda x: model.encode_topk(x, 3)):
        with pytest.raises(error, match=f"embeddings.*{message}"):
            call(bad)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    ("shape", "place", "where"), [((5,), (3, 7), "row 3"), ((2, 3), (1, 2, 0), "row (1, 2)"), ((), (4,), "NaN")]
)
def test_embeddings_that_are_not_finite_are_refused(model, value, shape, place, where):
    x = embeddings(*shape)
    x[place] = value
    for call in (model, model.encode, lambda x: model.encode_topk(x, 3)):
        with pytest.raises(ValueError, match=re.escape(where)):
            call(x)


@pytest.mark.parametrize("name", ["auto", "eager"])
def test_a_training_batch_is_not_searched_but_its_loss_tells(name):
    """Reading from a GPU at every step would stall it."""
    model, x = make_model(), embeddings(5)
    x[3, 2] = torch.nan
    with nested_loss_implementation(name):
        assert model.train()(x, return_loss=True, loss_only=True).loss.isnan()
        with pytest.raises(ValueError, match="row 3"):
            model.eval()(x, return_loss=True)


def test_large_but_finite_embeddings_pass(model):
    """Their sum overflows; they do not."""
    x = torch.full((40, D), 6e4, dtype=torch.float16)
    assert torch.isinf(x.sum())
    assert model.encode(x).shape == (40, N)


def test_invalid_latents_are_refused(model):
    with pytest.raises(ValueError, match=r"latents.* 39 .* 40 "):
        model.decode(torch.zeros(2, 39))
    with pytest.raises(TypeError, match=r"latents.*torch\.int32"):
        model.decode(torch.zeros(2, N, dtype=torch.int32))
    with pytest.raises(ValueError, match=r"latents.*row 1"):
        model.decode(torch.tensor([[0.0] * N, [float("nan")] * N]))


@pytest.mark.parametrize(
    ("k", "error"),
    [(0, ValueError), (-1, ValueError), (41, ValueError), (2.0, TypeError), ("3", TypeError), (True, TypeError)],
)
def test_invalid_k_is_refused(model, k, error):
    for call in (model, model.encode, model.encode_topk):
        with pytest.raises(error, match=f"k .*{k!r}"):
            call(embeddings(2), k=k)


def test_k_may_be_any_integer(model):
    x = embeddings(2)
    assert torch.equal(model.encode(x, k=np.int32(3)), model.encode(x, k=3))
    with pytest.raises(TypeError, match=r"k .*None"):
        model.encode_topk(x, None)


def test_a_loss_needs_embeddings(model):
    with pytest.raises(ValueError, match=r"at least one embedding.*0"):
        model(embeddings(0), return_loss=True)


def test_input_statistics(model):
    model = make_model()
    model.set_input_statistics(np.arange(D, dtype=np.float64), torch.tensor(0.5, dtype=torch.float64))
    assert model.input_mean.tolist() == list(range(D)) and model.input_scale == 0.5
    assert model.input_mean.dtype == model.input_scale.dtype == torch.float32
    for mean, scale, message in (
        (torch.zeros(D + 1), 1.0, r"shape \(13,\), expected \(12,\)"),
        (torch.full((D,), torch.nan), 1.0, "mean.*NaN"),
        (torch.zeros(D), 0.0, "scale.* 0.0"),
        (torch.zeros(D), -1.0, "scale.* -1.0"),
        (torch.zeros(D), float("inf"), "scale.* inf"),
        (torch.zeros(D), torch.ones(2), r"scale.*\[1.0, 1.0\]"),
    ):
        with pytest.raises(ValueError, match=message):
            model.set_input_statistics(mean, scale)
    assert model.input_mean.tolist() == list(range(D)) and model.input_scale == 0.5, "a refused call changes nothing"
