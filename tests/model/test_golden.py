"""Agreement with the implementation of the MSAE paper's authors: relative errors below 1e-4, no absolute tolerance."""

import pytest
import torch

from hf_msae import MSAEConfig, MSAEModel
from hf_msae.model.nested_topk import l1_penalty

TOLERANCE = 1e-4
LEVELS = [8, 16, 32, 64, 128, 256]
PARAMETERS = ["pre_bias", "encoder", "latent_bias", "decoder"]


def build(golden_tensors, golden_figures, **settings):
    config = MSAEConfig(
        d_in=golden_figures["d_in"],
        num_latents=golden_figures["num_latents"],
        nesting_ks=golden_figures["nesting_ks"],
        **{"reconstruction_loss": "nmse", **settings},
    )
    model = MSAEModel(config)
    with torch.no_grad():
        for name in PARAMETERS:
            getattr(model, name).copy_(golden_tensors[f"weights.{name}"])
    model.set_input_statistics(golden_tensors["mean"], golden_figures["scaling_factor"])
    return model


@pytest.fixture(scope="module")
def model(golden_tensors, golden_figures):
    return build(golden_tensors, golden_figures)


@pytest.fixture(scope="module")
def to_normalized(golden_tensors, golden_figures):
    return lambda raw: (raw - golden_tensors["mean"]) * golden_figures["scaling_factor"]


def test_levels_are_those_of_the_file(golden_figures):
    assert golden_figures["nesting_ks"] == LEVELS


def test_normalized_input(model, golden_tensors, relative_error):
    assert relative_error(model.normalize(golden_tensors["x_raw"]), golden_tensors["x"]) < TOLERANCE


def test_pre_activations(model, golden_tensors, relative_error):
    normalized = model.normalize(golden_tensors["x_raw"])
    pre_activations = model._pre_activations(normalized)
    assert relative_error(pre_activations, golden_tensors["pre_activations"]) < TOLERANCE
    assert torch.equal(model.family.code(model, pre_activations), pre_activations.relu())


def test_full_code_and_reconstruction(model, golden_tensors, golden_figures, to_normalized, relative_error):
    latents = model.encode(golden_tensors["x_raw"])
    assert relative_error(latents, golden_tensors["latents_full"]) < TOLERANCE

    raw = model.decode(latents)
    assert relative_error(to_normalized(raw), golden_tensors["reconstruction_full"]) < TOLERANCE
    expected_raw = golden_tensors["reconstruction_full"] / golden_figures["scaling_factor"] + golden_tensors["mean"]
    assert relative_error(raw, expected_raw) < TOLERANCE


@pytest.mark.parametrize("k", LEVELS)
def test_code_of_every_level(model, golden_tensors, relative_error, k):
    expected = golden_tensors[f"latents_k{k}"]
    latents = model.encode(golden_tensors["x_raw"], k=k)
    assert relative_error(latents, expected) < TOLERANCE
    assert torch.equal(latents > 0, expected > 0)

    values, indices = model.encode_topk(golden_tensors["x_raw"], k)
    assert relative_error(torch.zeros_like(expected).scatter(-1, indices, values), expected) < TOLERANCE


def test_reconstruction_of_every_level(model, golden_tensors, golden_figures, to_normalized, relative_error):
    output = model(golden_tensors["x_raw"], output_nested=True)
    assert len(output.nested_reconstructions) == len(LEVELS)
    for k, raw in zip(LEVELS, output.nested_reconstructions, strict=True):
        expected = golden_tensors[f"reconstruction_k{k}"]
        assert relative_error(to_normalized(raw), expected) < TOLERANCE
        expected_raw = expected / golden_figures["scaling_factor"] + golden_tensors["mean"]
        assert relative_error(raw, expected_raw) < TOLERANCE
        assert relative_error(model(golden_tensors["x_raw"], k=k).reconstruction, raw) < TOLERANCE


@pytest.mark.parametrize("kind", ["mse", "nmse"])
def test_loss_of_every_level(golden_tensors, golden_figures, relative_error, kind):
    model = build(golden_tensors, golden_figures, reconstruction_loss=kind)
    losses = model(golden_tensors["x_raw"], output_nested=True).nested_losses
    for loss, expected in zip(losses, golden_figures[f"{kind}_per_level"], strict=True):
        assert relative_error(loss, expected) < TOLERANCE


@pytest.mark.parametrize(("weights", "prefix"), [("uniform", "grad_uw"), ("reverse", "grad_rw")])
def test_losses_and_gradients(golden_tensors, golden_figures, relative_error, weights, prefix):
    model = build(golden_tensors, golden_figures, nesting_weights=weights)
    loss = model(golden_tensors["x_raw"], return_loss=True).loss
    assert relative_error(loss, golden_figures[f"loss_{weights}"]) < TOLERANCE

    loss.backward()
    assert {name for name, _ in model.named_parameters()} == set(PARAMETERS)
    for name, parameter in model.named_parameters():
        assert relative_error(parameter.grad, golden_tensors[f"{prefix}.{name}"]) < TOLERANCE, name


def test_reverse_weights(golden_tensors, golden_figures):
    model = build(golden_tensors, golden_figures, nesting_weights="reverse")
    assert model.config.level_weights == golden_figures["reverse_weights"]


def test_l1_penalty(golden_tensors, golden_figures, relative_error):
    penalty = l1_penalty(golden_tensors["latents_full"], golden_tensors["x"])
    assert relative_error(penalty, golden_figures["relu_l1"]) < TOLERANCE


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_wrong_gradient_would_be_seen(golden_tensors, relative_error, name):
    """The two losses' gradients differ by far more than the tolerance, and zeros are as wrong as can be."""
    uniform, reverse = golden_tensors[f"grad_uw.{name}"], golden_tensors[f"grad_rw.{name}"]
    assert relative_error(uniform, reverse) > 100 * TOLERANCE
    assert relative_error(torch.zeros_like(uniform), uniform) == 1
