"""saev's checkpoints: without a schema written by saev 0.1.0 itself, schemas 1 to 5 on the layout of its later sources
(foreign/saev/write_saev.py)."""

import io
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hf_msae.hub.converters import convert_checkpoint, read_checkpoint

FOREIGN = Path(__file__).parent / "foreign" / "saev"
ACTIVATIONS = {
    "relu": "relu",
    "schema_1_of_activation": "topk",
    "schema_1_of_config": "topk",
    "schema_2": "relu",
    "schema_2_batch": "topk",
    "schema_4": "relu",
    "schema_5": "relu",
    "schema_5_batch": "batch_topk",
    "schema_5_batch_without_threshold": "batch_topk",
}


SAID = {"hook_point": "vision.layers.10", "input_scale": 1.0}
"""What no file of saev tells: where the tokens are from, and whether they were normalised."""


@pytest.fixture
def changed(tmp_path):
    """A copy with another first line, or with the bytes behind it cut."""

    def changed(name, header=None, cut=None):
        folder = Path(shutil.copytree(FOREIGN / name, tmp_path / name))
        first, _, rest = (folder / "sae.pt").read_bytes().partition(b"\n")
        settings = {**json.loads(first), **(header or {})}
        (folder / "sae.pt").write_bytes(json.dumps(settings).encode() + b"\n" + rest[:cut])
        return folder

    return changed


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_codes_and_reconstructions_are_those_of_saev(name, relative_error):
    expected = load_file(FOREIGN / name / "expected.safetensors")
    model = convert_checkpoint(FOREIGN / name, **SAID)
    output = model(expected["inputs"])
    assert relative_error(output.latents, expected["code"]) < 1e-5
    assert relative_error(output.reconstruction, expected["reconstruction"]) < 1e-5
    assert model.config.activation == ACTIVATIONS[name]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("relu", "saev 0.1.0"),
        ("schema_1_of_activation", "schema 1"),
        ("schema_1_of_activation", "negative pre-activations"),
        ("schema_2_batch", "plain top-k"),
    ],
)
def test_what_the_file_does_not_settle_is_noted(name, words):
    assert any(words in note for note in read_checkpoint(FOREIGN / name, **SAID).notes)


def test_where_its_tokens_are_from_has_to_be_said():
    with pytest.raises(ValueError, match=r"tokens of an image encoder.*hook_point="):
        convert_checkpoint(FOREIGN / "relu", input_scale=1.0)


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({}, "input_mean and input_scale"),
        ({"input_mean": [0.0] * 8}, "input_scale"),
        ({"input_scale": 0.5}, "input_mean"),
    ],
)
def test_statistics_that_training_may_have_used_have_to_be_said(given, missing):
    with pytest.raises(ValueError, match=rf"needs {missing}: saev trains on \(x - mean\) / scale unless"):
        convert_checkpoint(FOREIGN / "relu", hook_point="vision.layers.10", **given)


def test_statistics_that_are_given_are_used(relative_error):
    mean, scale = torch.linspace(-1, 1, 8), 0.4
    model = convert_checkpoint(FOREIGN / "relu", **{**SAID, "input_mean": mean, "input_scale": scale})
    expected = load_file(FOREIGN / "relu" / "expected.safetensors")
    raw = expected["inputs"] / scale + mean
    assert relative_error(model.encode(raw), expected["code"]) < 1e-5
    assert relative_error(model(raw).reconstruction, expected["reconstruction"] / scale + mean) < 1e-5


@pytest.mark.parametrize(
    ("header", "missing"),
    [
        ({"scale_mean": False, "scale_norm": False}, None),
        ({"data": {"scale_mean": False, "scale_norm": False}}, None),
        ({"scale_mean": False}, "input_scale"),
        ({"scale_norm": False}, "input_mean"),
    ],
)
def test_statistics_that_the_file_says_were_not_used_need_not_be_said(header, missing, changed):
    folder = changed("relu", header)
    if missing is None:
        assert convert_checkpoint(folder, hook_point="vision.layers.10").input_scale == 1
    else:
        with pytest.raises(ValueError, match=f"needs {missing}:"):
            convert_checkpoint(folder, hook_point="vision.layers.10")


@pytest.mark.parametrize(
    ("activation", "message"),
    [
        ({"cls": "TopK", "params": ["top_k"]}, r"params of activation .* is \['top_k'\], expected names and values"),
        ({"cls": "TopK", "params": {"top_k": "4"}}, "top_k of .* is '4', expected a whole number above 0"),
        ({"cls": ["TopK"]}, r"cls of activation .* is \['TopK'\], expected a text"),
    ],
)
def test_settings_of_another_type_are_refused(activation, message, changed):
    cfg = {"d_model": 8, "d_sae": 24, "activation": activation}
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(changed("schema_5", {"cfg": cfg}), **SAID)


@pytest.mark.parametrize(
    ("name", "threshold", "message"),
    [
        ("schema_5_batch", torch.tensor(float("nan")), r"activation\.threshold of .* holds NaN"),
        ("schema_5_batch", torch.ones(24), r"activation\.threshold of .*\(24,\)"),
        ("schema_5", torch.tensor(1.0), r"activation\.threshold"),
    ],
)
def test_a_threshold_that_cannot_be_is_refused(name, threshold, message, changed):
    folder = changed(name)
    first, _, rest = (folder / "sae.pt").read_bytes().partition(b"\n")
    buffer = io.BytesIO()
    torch.save({**torch.load(io.BytesIO(rest)), "activation.threshold": threshold}, buffer)
    (folder / "sae.pt").write_bytes(first + b"\n" + buffer.getvalue())
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(folder, **SAID)


def test_top_k_of_a_whole_batch_is_refused():
    with pytest.raises(ValueError, match="depend on what else is in the batch"):
        convert_checkpoint(FOREIGN / "schema_1_batch", **SAID)


def test_batch_top_k_without_its_threshold_is_refused(changed):
    cfg = {"d_model": 8, "d_sae": 24, "activation": {"cls": "BatchTopK", "params": {"top_k": 4}}}
    with pytest.raises(ValueError, match=r"says BatchTopK, but holds no activation\.threshold"):
        convert_checkpoint(changed("schema_5", {"cfg": cfg}), **SAID)


def test_a_schema_of_the_future_is_refused(changed):
    with pytest.raises(ValueError, match="schema 6 of saev; hf_msae knows those up to 5"):
        convert_checkpoint(changed("schema_5", {"schema": 6}), **SAID)


def test_an_unknown_activation_is_refused(changed):
    cfg = {"d_model": 8, "d_sae": 24, "activation": {"cls": "JumpRelu", "params": {}}}
    with pytest.raises(ValueError, match="has activation 'JumpRelu'; hf_msae reads Relu, TopK, BatchTopK"):
        convert_checkpoint(changed("schema_5", {"cfg": cfg}), **SAID)


def test_sizes_that_do_not_fit_are_refused(changed):
    with pytest.raises(ValueError, match=r"W_enc of .* has shape \(8, 24\), expected \(8, 16\)"):
        convert_checkpoint(changed("relu", {"exp_factor": 2}), **SAID)


def test_a_truncated_file_is_refused(changed):
    with pytest.raises(ValueError, match="damaged or incomplete"):
        convert_checkpoint(changed("relu", cut=-500), **SAID)


def test_a_file_without_the_first_line_is_no_checkpoint_of_saev(tmp_path):
    (tmp_path / "sae.pt").write_bytes((FOREIGN / "relu" / "sae.pt").read_bytes().partition(b"\n")[2])
    with pytest.raises(ValueError, match="known format"):
        convert_checkpoint(tmp_path)
    with pytest.raises(ValueError, match="does not begin with a line of JSON"):
        convert_checkpoint(tmp_path, format="saev")
