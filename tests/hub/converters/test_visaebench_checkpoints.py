"""ViSAEBench's checkpoints, on its documented layout; visaebench 0.1.0 itself computed what is expected of them
(foreign/visaebench/write_visaebench.py)."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from hf_msae.hub.converters import convert_checkpoint, read_checkpoint

FOREIGN = Path(__file__).parent / "foreign" / "visaebench"
ACTIVATIONS = {
    "batch_top_k": "batch_topk",
    "batch_top_k_without_threshold": "batch_topk",
    "batch_top_k_of_overcomplete": "batch_topk",
    "top_k": "topk",
    "jump_relu": "jump_relu",
    "jump_relu_without_thresholds": "jump_relu",
}


SAID = {"hook_point": "vision.layers.10", "input_scale": 1.0}
"""What no checkpoint of it tells. The expected outputs are of embeddings as its SAEs get them."""


@pytest.fixture
def copied(tmp_path):
    return Path(shutil.copytree(FOREIGN / "batch_top_k", tmp_path / "batchtopk_16x_k4"))


def rewrite(folder, **settings):
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_codes_and_reconstructions_are_those_of_visaebench(name, relative_error):
    expected = load_file(FOREIGN / name / "expected.safetensors")
    model = convert_checkpoint(FOREIGN / name, **SAID)
    output = model(expected["inputs"])
    assert relative_error(output.latents, expected["code"]) < 1e-5
    assert relative_error(output.reconstruction, expected["reconstruction"]) < 1e-5
    assert model.config.activation == ACTIVATIONS[name]


def test_statistics_make_the_model_take_raw_embeddings(relative_error, tmp_path):
    expected = load_file(FOREIGN / "batch_top_k" / "expected.safetensors")
    mean, std = torch.linspace(-1, 1, 8), 0.7
    np.save(tmp_path / "mean.npy", mean.numpy())
    said = {**SAID, "input_mean": tmp_path / "mean.npy", "input_scale": 1 / std}
    model = convert_checkpoint(FOREIGN / "batch_top_k", **said)
    raw = expected["inputs"] * std + mean
    assert relative_error(model.encode(raw), expected["code"]) < 1e-5
    assert relative_error(model(raw).reconstruction, expected["reconstruction"] * std + mean) < 1e-5


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"input_scale": 1.0}, "patch tokens.*hook_point="),
        (
            {"hook_point": "vision.layers.10"},
            r"needs input_mean and input_scale: ViSAEBench feeds .* \(x - mean\) / std",
        ),
        ({"hook_point": "vision.layers.10", "input_scale": 2.0}, "needs input_mean: ViSAEBench"),
    ],
)
def test_what_the_checkpoint_does_not_tell_has_to_be_said(given, message):
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(FOREIGN / "batch_top_k", **given)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("batch_top_k_without_threshold", "keep every positive activation"),
        ("jump_relu_without_thresholds", "they are 0.01"),
    ],
)
def test_what_the_checkpoint_does_not_hold_is_noted(name, words):
    assert any(words in note for note in read_checkpoint(FOREIGN / name, **SAID).notes)


def test_a_single_weights_file_takes_its_config_from_beside_it(relative_error):
    expected = load_file(FOREIGN / "top_k" / "expected.safetensors")
    model = convert_checkpoint(FOREIGN / "top_k" / "model.safetensors", **SAID)
    assert relative_error(model.encode(expected["inputs"]), expected["code"]) < 1e-5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_dim": 48}, "config says hidden_dim=48, but the weights of .* have 24"),
        ({"k": None}, r"k of .* say k=\.\.\."),
        ({"k": 2.5}, "is 2.5, expected a whole number"),
        ({"threshold": "high"}, "threshold .* is 'high', expected one finite number"),
        ({"threshold": float("nan")}, "threshold .* is nan, expected one finite number"),
    ],
)
def test_a_config_that_cannot_be_is_refused(settings, message, copied):
    rewrite(copied, **settings)
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(copied, **SAID)


def test_an_unknown_activation_is_refused(copied):
    rewrite(copied, activation="gated")
    with pytest.raises(ValueError, match="has activation 'gated'; hf_msae reads topk, batchtopk, jumprelu"):
        convert_checkpoint(copied, format="visaebench", **SAID)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"decoder.weight": torch.ones(8, 24)}, r"decoder\.weight of .* has shape \(8, 24\), expected \(24, 8\)"),
        ({"encoder.bias": torch.full((24,), float("inf"))}, "NaN or infinite"),
        ({"b_dec": torch.ones(8)}, "also has b_dec"),
        ({"jump_thresholds": torch.ones(24)}, "also has jump_thresholds"),
        ({"dictionary.multiplier": torch.ones(())}, r"also has dictionary\.multiplier"),
    ],
)
def test_tensors_that_cannot_be_are_refused(change, message, copied):
    torch.save({**torch.load(copied / "sae.pt"), **change}, copied / "sae.pt")
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(copied, **SAID)


def test_two_sets_of_thresholds_are_refused(tmp_path):
    folder = Path(shutil.copytree(FOREIGN / "jump_relu", tmp_path / "jump_relu"))
    torch.save({**torch.load(folder / "model.pt"), "thresholds": torch.ones(24)}, folder / "model.pt")
    with pytest.raises(ValueError, match="jump_thresholds and thresholds"):
        convert_checkpoint(folder, **SAID)


def test_a_config_that_is_no_yaml_is_refused(tmp_path):
    folder = shutil.copytree(FOREIGN / "top_k", tmp_path / "top_k")
    (folder / "config.yaml").write_text("activation: [topk")
    with pytest.raises(ValueError, match="holds no YAML"):
        convert_checkpoint(folder, **SAID)


def test_an_msae_of_ours_is_not_taken_for_one(tmp_path):
    convert_checkpoint(FOREIGN / "top_k", **SAID).save_pretrained(tmp_path)
    with pytest.raises(ValueError):
        convert_checkpoint(tmp_path)
