"""ViSAEBench's checkpoints, on its documented layout; visaebench 0.1.0 itself computed what is expected of them
(foreign/visaebench/write_visaebench.py)."""

import json
import shutil
from pathlib import Path

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


@pytest.fixture
def copied(tmp_path):
    return Path(shutil.copytree(FOREIGN / "batch_top_k", tmp_path / "batchtopk_16x_k4"))


def rewrite(folder, **settings):
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_codes_and_reconstructions_are_those_of_visaebench(name, relative_error):
    expected = load_file(FOREIGN / name / "expected.safetensors")
    model = convert_checkpoint(FOREIGN / name)
    output = model(expected["inputs"])
    assert relative_error(output.latents, expected["code"]) < 1e-5
    assert relative_error(output.reconstruction, expected["reconstruction"]) < 1e-5
    assert model.config.activation == ACTIVATIONS[name]


def test_the_note_on_statistics_makes_the_model_take_raw_embeddings(relative_error):
    found = read_checkpoint(FOREIGN / "batch_top_k")
    assert any("model.set_input_statistics(mean, 1 / std)" in note for note in found.notes)
    expected = load_file(FOREIGN / "batch_top_k" / "expected.safetensors")
    mean, std = torch.linspace(-1, 1, 8), 0.7
    model = found.to_model()
    model.set_input_statistics(mean, 1 / std)
    raw = expected["inputs"] * std + mean
    assert relative_error(model.encode(raw), expected["code"]) < 1e-5
    assert relative_error(model(raw).reconstruction, expected["reconstruction"] * std + mean) < 1e-5


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("batch_top_k_without_threshold", "keep every positive activation"),
        ("jump_relu_without_thresholds", "they are 0.01"),
        ("batch_top_k", "patch tokens"),
    ],
)
def test_what_the_checkpoint_does_not_hold_is_noted(name, words):
    assert any(words in note for note in read_checkpoint(FOREIGN / name).notes)


def test_a_single_weights_file_takes_its_config_from_beside_it(relative_error):
    expected = load_file(FOREIGN / "top_k" / "expected.safetensors")
    model = convert_checkpoint(FOREIGN / "top_k" / "model.safetensors")
    assert relative_error(model.encode(expected["inputs"]), expected["code"]) < 1e-5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_dim": 48}, "config says hidden_dim=48, but the weights of .* have 24"),
        ({"k": None}, r"does not tell k, the activations to keep of each embedding: say k=\.\.\."),
        ({"k": 2.5}, "is 2.5, expected a whole number"),
        ({"threshold": "high"}, "threshold .* is 'high', expected a number"),
    ],
)
def test_a_config_that_cannot_be_is_refused(settings, message, copied):
    rewrite(copied, **settings)
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(copied)


def test_an_unknown_activation_is_refused(copied):
    rewrite(copied, activation="gated")
    with pytest.raises(ValueError, match="has activation 'gated'; hf_msae reads topk, batchtopk, jumprelu"):
        convert_checkpoint(copied, format="visaebench")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"decoder.weight": torch.ones(8, 24)}, r"decoder\.weight of .* has shape \(8, 24\), expected \(24, 8\)"),
        ({"encoder.bias": torch.full((24,), float("inf"))}, "NaN or infinite"),
        ({"b_dec": torch.ones(8)}, "also has b_dec"),
    ],
)
def test_tensors_that_cannot_be_are_refused(change, message, copied):
    torch.save({**torch.load(copied / "sae.pt"), **change}, copied / "sae.pt")
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(copied)


def test_a_config_that_is_no_yaml_is_refused(tmp_path):
    folder = shutil.copytree(FOREIGN / "top_k", tmp_path / "top_k")
    (folder / "config.yaml").write_text("activation: [topk")
    with pytest.raises(ValueError, match="holds no YAML"):
        convert_checkpoint(folder)


def test_an_msae_of_ours_is_not_taken_for_one(tmp_path):
    convert_checkpoint(FOREIGN / "top_k").save_pretrained(tmp_path)
    with pytest.raises(ValueError):
        convert_checkpoint(tmp_path)
