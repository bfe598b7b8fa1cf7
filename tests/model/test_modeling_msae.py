"""MSAEModel: encoding, decoding, losses, what it refuses, and the two steps that keep unit rows in training."""

import pickle
import re

import numpy as np
import pytest
import torch
from transformers.utils import ModelOutput

from hf_msae import MSAEConfig, MSAEModel, MSAEOutput
from hf_msae.model import modeling_msae
from hf_msae.model.fused_nested_loss import nested_loss_implementation
from hf_msae.model.nested_topk import l1_penalty, nested_codes_reference

D, N = 12, 40
KS = [2, 5, 20, 40]


def make_model(seed=0, **settings):
    """A model that is not at its initialization: nothing is zero, unit norm or tied by accident."""
    torch.manual_seed(seed)
    settings = {"d_in": D, "num_latents": N, "nesting_ks": KS, **settings}
    model = MSAEModel(MSAEConfig(**settings))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    model.set_input_statistics(torch.randn(D), 0.7)
    return model


def embeddings(*shape, seed=1):
    return 2 * torch.randn(*shape, D, generator=torch.Generator().manual_seed(seed)) + 1


@pytest.fixture(scope="module")
def model():
    return make_model()


def by_hand(model, x, k):
    """Code and raw reconstruction, from the equations and in float64."""
    p = {name: tensor.detach().double() for name, tensor in model.state_dict().items()}
    u = (x.double() - p["input_mean"]) * p["input_scale"]
    a = ((u - p["pre_bias"]) @ p["encoder"] + p["latent_bias"]).relu()
    z = nested_codes_reference(a, [k], model.config.soft_cap)[0]
    decoder = p["decoder"] if "decoder" in p else p["encoder"].T
    return z, (z @ decoder + p["pre_bias"]) / p["input_scale"] + p["input_mean"]


# -- initialization --------------------------------------------------------------------------------------------------


def test_a_new_model():
    torch.manual_seed(0)
    model = MSAEModel(MSAEConfig(d_in=D, num_latents=N, nesting_ks=KS))
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    assert shapes == {"pre_bias": (D,), "encoder": (D, N), "latent_bias": (N,), "decoder": (N, D)}
    assert {name: tuple(buffer.shape) for name, buffer in model.named_buffers()} == {
        "input_mean": (D,),
        "input_scale": (),
    }
    assert torch.allclose(model.decoder.norm(dim=1), torch.ones(N), rtol=1e-6)
    d, n = model.encoder.shape
    assert torch.allclose(model.encoder, model.decoder.T * min(1.0, 2 * d / n))
    assert model.encoder.data_ptr() != model.decoder.data_ptr()
    assert not model.pre_bias.any() and not model.latent_bias.any() and not model.input_mean.any()
    assert model.input_scale == 1
    assert (model.decoder @ model.decoder.T - torch.eye(N)).abs().max() < 0.99, "rows differ"
    torch.manual_seed(1)
    assert not torch.equal(MSAEModel(model.config).decoder, model.decoder)


def test_a_new_tied_model():
    model = MSAEModel(MSAEConfig(d_in=D, num_latents=N, nesting_ks=KS, tied=True))
    assert [name for name, _ in model.named_parameters()] == ["pre_bias", "encoder", "latent_bias"]
    assert model.decoder is None
    assert torch.allclose(model.encoder.norm(dim=0), torch.ones(N), rtol=1e-6)
    assert torch.equal(model.dictionary, model.encoder.T)


def test_repr_names_sizes_and_source():
    text = repr(make_model(base_model_name_or_path="some/backbone"))
    assert "d_in=12, num_latents=40, 4 levels: k=[2, 5, 20, 40], some/backbone, image_embeds" in text


# -- encode, decode --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"tied": True}, {"soft_cap": 1.5}, {"nesting": "none", "nesting_ks": None}])
@pytest.mark.parametrize("k", [1, 7, 40])
def test_encode_and_decode_follow_the_equations(settings, k, relative_error):
    model, x = make_model(**settings), embeddings(9)
    code, reconstruction = by_hand(model, x, k)
    latents = model.encode(x, k=k)
    assert latents.shape == (9, N)
    assert (latents >= 0).all() and ((latents > 0).sum(-1) <= k).all()
    assert relative_error(latents, code) < 1e-5
    assert relative_error(model.decode(latents), reconstruction) < 1e-5
    output = model(x, k=k)
    assert torch.equal(output.latents, latents)
    assert relative_error(output.reconstruction, reconstruction) < 1e-5


def test_which_k_counts():
    """A call's k beats config.k, which beats the k of the largest level; N of N is the full code."""
    x = embeddings(9)

    def most_active(model, **kwargs):
        return int((model.encode(x, **kwargs) > 0).sum(-1).max())

    assert most_active(make_model()) > 20
    assert torch.equal(make_model().encode(x), make_model().encode(x, k=N))
    assert most_active(make_model(nesting_ks=[2, 5])) == 5
    assert most_active(make_model(nesting_ks=[2, 5], k=3)) == 3
    assert most_active(make_model(nesting_ks=[2, 5], k=3), k=8) == 8
    assert most_active(make_model(nesting="none", nesting_ks=None, k=4)) == 4


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3,), (2, 3), (2, 0, 4), (2, 1, 3, 2)])
def test_any_leading_shape(model, shape):
    x = embeddings(*shape)
    latents = model.encode(x)
    values, indices = model.encode_topk(x, 3)
    output = model(x, output_nested=True)
    assert latents.shape == output.latents.shape == (*shape, N)
    assert values.shape == indices.shape == (*shape, 3)
    assert model.decode(latents).shape == output.reconstruction.shape == (*shape, D)
    assert [tuple(level.shape) for level in output.nested_reconstructions] == [(*shape, D)] * len(KS)
    rows = model.encode(x.reshape(-1, D))
    assert torch.allclose(latents.reshape(-1, N), rows, rtol=1e-5, atol=1e-6)


def test_rows_do_not_depend_on_their_batch(model, relative_error):
    x = embeddings(8)
    alone = torch.stack([model.encode(row, k=5) for row in x])
    assert relative_error(alone, model.encode(x, k=5)) < 1e-6


# -- encode_topk -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"soft_cap": 1.5}])
@pytest.mark.parametrize("k", [1, 5, 20, 40])
def test_encode_topk_is_the_sparse_encode(settings, k):
    model, x = make_model(**settings), embeddings(4, 7)
    values, indices = model.encode_topk(x, k)
    dense = model.encode(x, k=k)
    assert indices.dtype == torch.int64
    assert (values.diff(dim=-1) <= 0).all()
    assert torch.equal(torch.zeros_like(dense).scatter(-1, indices, values), dense)
    assert all(len(set(row)) == k for row in indices.flatten(0, 1).tolist()), "indices are distinct, zeros included"


def test_encode_topk_orders_ties_by_index_and_fills_with_zeros():
    model = MSAEModel(MSAEConfig(d_in=2, num_latents=6, nesting_ks=[6]))
    with torch.no_grad():
        model.encoder.copy_(torch.tensor([[1.0, -1.0, 1.0, 2.0, 1.0, 2.0], [0.0] * 6]))
    values, indices = model.encode_topk(torch.tensor([[1.0, 0.0], [-1.0, 5.0]]), 6)
    assert values.tolist() == [[2, 2, 1, 1, 1, 0], [1, 0, 0, 0, 0, 0]]
    assert indices.tolist() == [[3, 5, 0, 2, 4, 1], [1, 0, 2, 3, 4, 5]]


def test_encode_topk_is_dense_in_one_chunk_only(model, monkeypatch):
    x = embeddings(3, 11)
    expected = model.encode_topk(x, 5)
    chunks = []
    full_code = model.full_code
    monkeypatch.setattr(model, "full_code", lambda x: chunks.append(len(x)) or full_code(x))
    monkeypatch.setattr(modeling_msae, "_CHUNK_ELEMENTS", 4 * N + 3)
    values, indices = model.encode_topk(x, 5)
    assert chunks == [4] * 8 + [1]
    assert torch.allclose(values, expected[0], rtol=1e-6)
    assert torch.equal(indices, expected[1])


# -- forward ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mse", "nmse"])
@pytest.mark.parametrize("weights", ["uniform", "reverse", [1.0, 5.0, 2.0, 0.5]])
def test_loss_follows_the_equations(kind, weights, relative_error):
    model, x = (
        make_model(reconstruction_loss=kind, nesting_weights=weights, sparsity_coefficient=0.3),
        embeddings(3, 5),
    )
    scale, mean = model.input_scale.double(), model.input_mean.double()
    u = (x.double() - mean) * scale
    losses = []
    for k in KS:
        residual = u - (by_hand(model, x, k)[1] - mean) * scale
        ratio = residual.square().sum(-1) / u.square().sum(-1)
        losses.append(residual.square().mean() if kind == "mse" else ratio.mean())
    losses = torch.stack(losses)
    w = torch.tensor(model.config.level_weights, dtype=torch.float64)
    l1 = by_hand(model, x, N)[0].abs().sum(-1) / u.norm(dim=-1)
    expected = (w * losses).sum() / w.sum() + 0.3 * l1.mean()

    output = model(x, return_loss=True)
    assert output.loss.shape == ()
    assert relative_error(output.nested_losses, losses) < 1e-5
    assert relative_error(output.loss, expected) < 1e-5


def test_soft_cap_leaves_the_l1_term_alone():
    x = embeddings(5)
    capped, plain = (
        make_model(sparsity_coefficient=coefficient, soft_cap=0.5)(x, return_loss=True).loss for coefficient in (1, 0)
    )
    model = make_model()
    u = model.normalize(x)
    assert (capped - plain).item() == pytest.approx(l1_penalty(model._pre_activations(u).relu(), u).item(), rel=1e-5)


def test_k_changes_the_code_but_never_the_loss(relative_error):
    model, x = make_model(k=5), embeddings(9)
    default, small, odd = (model(x, k=k, return_loss=True, output_nested=True) for k in (None, 2, 11))
    assert (small.latents > 0).sum(-1).max() == 2 and (default.latents > 0).sum(-1).max() == 5
    assert not torch.equal(small.reconstruction, odd.reconstruction)
    assert torch.equal(default.loss, small.loss) and torch.equal(default.loss, odd.loss)
    assert torch.equal(default.nested_losses, odd.nested_losses)
    for output in (default, small, odd):
        for k, level in zip(KS, output.nested_reconstructions, strict=True):
            assert relative_error(level, by_hand(model, x, k)[1]) < 1e-5
    assert torch.equal(default.reconstruction, default.nested_reconstructions[1])


def test_what_forward_returns(model):
    x = embeddings(4)
    plain = model(x)
    assert isinstance(plain, MSAEOutput) and isinstance(plain, ModelOutput)
    assert list(plain) == ["reconstruction", "latents"]
    assert list(model(x, return_loss=True)) == ["loss", "reconstruction", "latents", "nested_losses"]
    nested = model(embeddings=x, output_nested=True)
    assert list(nested) == ["reconstruction", "latents", "nested_reconstructions", "nested_losses"]
    assert nested.nested_losses.shape == (4,)

    everything = model(x, None, True, True, return_dict=False)
    assert isinstance(everything, tuple) and len(everything) == 5
    assert everything[0].shape == () and everything[1].shape == (4, D) and everything[2].shape == (4, N)
    model.config.return_dict = False
    try:
        assert isinstance(model(x), tuple)
    finally:
        model.config.return_dict = True


def test_no_level_is_decoded_twice(model, monkeypatch):
    """One decode for each level that drops something, one for all that do not; k=None adds none."""
    x = embeddings(9)
    decoded = []
    reconstruct = model._reconstruct
    monkeypatch.setattr(model, "_reconstruct", lambda code, wide: decoded.append(code) or reconstruct(code, wide))
    most_active = int((model.encode(x) > 0).sum(-1).max())
    assert 20 < most_active < 40
    model(x, output_nested=True)
    assert len(decoded) == 4
    decoded.clear()
    model(x - 100 * model.encoder.detach().sum(1), output_nested=True)  # hardly anything is active
    assert len(decoded) < 4


# -- dtypes ----------------------------------------------------------------------------------------------------------


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


def test_losses_are_float32_under_autocast(relative_error):
    model, x = make_model(), embeddings(64)
    exact = model(x, return_loss=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(x, return_loss=True)
    assert output.loss.dtype == output.nested_losses.dtype == torch.float32
    assert output.reconstruction.dtype == torch.float32
    assert 0 < relative_error(output.reconstruction, exact.reconstruction) < 0.02, "the products are bfloat16"
    output.loss.backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in model.parameters())


# -- bad input -------------------------------------------------------------------------------------------------------


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
    ("shape", "place", "where"),
    [((5,), (3, 7), "row 3"), ((2, 3), (1, 2, 0), "row (1, 2)"), ((), (4,), "NaN")],
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


# -- training --------------------------------------------------------------------------------------------------------


def test_the_gradient_loses_its_component_along_each_row(relative_error):
    model = make_model(nesting_weights="reverse")
    assert not torch.allclose(model.decoder.norm(dim=1), torch.ones(N)), "rows need not be unit for this"
    model.remove_parallel_decoder_gradient_()  # no gradient yet: nothing to do
    model(embeddings(64), return_loss=True).loss.backward()
    before = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    rows = torch.nn.functional.normalize(model.decoder.detach().double(), dim=1)
    parallel = (before["decoder"].double() * rows).sum(1, keepdim=True) * rows
    assert relative_error(parallel, before["decoder"]) < 2 and parallel.norm() > 0.1 * before["decoder"].norm()

    model.remove_parallel_decoder_gradient_()
    along = (model.decoder.grad.double() * rows).sum(1)
    assert along.norm() < 1e-6 * before["decoder"].norm()
    assert relative_error(model.decoder.grad, before["decoder"] - parallel) < 1e-5
    for name in ("encoder", "latent_bias", "pre_bias"):
        assert torch.equal(getattr(model, name).grad, before[name])


def test_normalizing_rows_keeps_the_function_of_the_full_code(relative_error):
    model, x = make_model(), embeddings(64)
    with torch.no_grad():
        model.decoder.mul_(torch.logspace(-2, 2, N)[:, None])
        model.decoder[7] = 0
    encoder_column, norms = model.encoder[:, 7].clone(), model.decoder.norm(dim=1)
    before, code = model(x).reconstruction, model.encode(x)
    model.normalize_decoder_()
    expected = torch.ones(N)
    expected[7] = 0  # has no direction to keep
    assert torch.allclose(model.decoder.norm(dim=1), expected, rtol=1e-6)
    assert torch.equal(model.encoder[:, 7], encoder_column)
    norms[7] = 1
    assert relative_error(model.encode(x), code * norms) < 1e-5
    assert relative_error(model(x).reconstruction, before) < 1e-5


def test_optimizer_steps_keep_unit_rows_and_lower_the_loss():
    torch.manual_seed(0)
    model, x = MSAEModel(MSAEConfig(d_in=D, num_latents=N, nesting_ks=KS)), embeddings(256)
    model.set_input_statistics(x.mean(0), 1 / x.std())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        loss = model(x, return_loss=True).loss
        optimizer.zero_grad()
        loss.backward()
        model.remove_parallel_decoder_gradient_()
        optimizer.step()
        stepped = model(x).reconstruction
        model.normalize_decoder_()
        assert torch.allclose(model.decoder.norm(dim=1), torch.ones(N), rtol=1e-6)
        assert torch.allclose(model(x).reconstruction, stepped, rtol=1e-4, atol=1e-4)
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_tied_rows_are_left_alone():
    model, x = make_model(tied=True), embeddings(32)
    model(x, return_loss=True).loss.backward()
    encoder, grad = model.encoder.detach().clone(), model.encoder.grad.clone()
    model.remove_parallel_decoder_gradient_()
    model.normalize_decoder_()
    assert torch.equal(model.encoder, encoder) and torch.equal(model.encoder.grad, grad)
    assert grad.norm() > 0


def test_tied_gradient_comes_through_both_uses(relative_error):
    model, x = make_model(tied=True), embeddings(32)
    model(x, return_loss=True).loss.backward()
    untied = make_model()
    with torch.no_grad():
        for name in ("pre_bias", "encoder", "latent_bias"):
            getattr(untied, name).copy_(getattr(model, name))
        untied.decoder.copy_(model.encoder.T)
    untied.set_input_statistics(model.input_mean, model.input_scale)
    untied(x, return_loss=True).loss.backward()
    assert relative_error(model.encoder.grad, untied.encoder.grad + untied.decoder.grad.T) < 1e-5


def test_every_parameter_gets_a_gradient(model):
    """DistributedDataParallel waits for each of them."""
    for settings in ({}, {"tied": True}, {"soft_cap": 3.0}, {"nesting": "none", "nesting_ks": None}):
        model = make_model(**settings)
        model(embeddings(8), return_loss=True).loss.backward()
        assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


def test_wrappers_and_pickling(model):
    x = embeddings(4)
    assert torch.equal(torch.nn.DataParallel(model)(x, return_loss=True).loss, model(x, return_loss=True).loss)
    assert torch.equal(pickle.loads(pickle.dumps(model)).encode(x), model.encode(x))


def test_compiled_graph_has_no_break_and_gives_the_same(model, relative_error):
    """The eager backend: the question is whether the graph can be captured whole, not how it is run."""
    x = embeddings(16)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    output, expected = (
        compiled(x, return_loss=True, output_nested=True),
        model(x, return_loss=True, output_nested=True),
    )
    assert relative_error(output.loss, expected.loss) < 1e-6
    assert relative_error(output.reconstruction, expected.reconstruction) < 1e-6
    for actual, level in zip(output.nested_reconstructions, expected.nested_reconstructions, strict=True):
        assert relative_error(actual, level) < 1e-6


@pytest.mark.parametrize("num_latents", [32, 128, 1024])
def test_a_new_model_does_not_overshoot(num_latents):
    torch.manual_seed(0)
    model = MSAEModel(MSAEConfig(d_in=32, num_latents=num_latents, nesting_ks=[num_latents])).eval()
    x = torch.randn(200, 32)
    assert (model(x).reconstruction - x).square().sum() / x.square().sum() < 1
