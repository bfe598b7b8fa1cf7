"""MSAEModel: gradients, and the two steps that keep unit rows in training."""

import pickle

import pytest
import torch

from hf_msae import MSAEConfig, MSAEModel
from tests.model.small_models import KS, D, N, embeddings, make_model


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


@pytest.mark.slow
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
