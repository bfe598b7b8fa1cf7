"""saev's checkpoints: without a schema written by saev 0.1.0 itself, schemas 1 to 5 on the layout of its later sources
(foreign/saev/write_saev.py)."""

import io
import json

import pytest
import torch
from safetensors.torch import load_file

from hf_msae.hub.converters import convert_checkpoint, read_checkpoint
from tests.hub.converters.conftest import FOREIGN

FOLDER = FOREIGN / "saev"
PLACE = "vision.layers.10"
GIVEN = {"hook_point": PLACE, "input_scale": 1.0}
"""What no file of saev says: where the tokens come from, and whether they were normalized."""

CHECKPOINTS = {  # folder -> (activation, words of its notes)
    "relu": ("relu", ["saev 0.1.0"]),
    "schema_1_of_activation": ("topk", ["schema 1", "negative pre-activations"]),
    "schema_1_of_config": ("topk", []),
    "schema_2": ("relu", []),
    "schema_2_batch": ("topk", ["plain top-k"]),
    "schema_4": ("relu", []),
    "schema_5": ("relu", []),
    "schema_5_batch": ("batch_topk", []),
    "schema_5_batch_without_threshold": ("batch_topk", []),
}


@pytest.fixture
def edited(changed):
    """A copy with another first line and other tensors after it."""

    def edited(name, header, tensors):
        file = changed(f"saev/{name}") / "sae.pt"
        first, _, rest = file.read_bytes().partition(b"\n")
        buffer = io.BytesIO()
        torch.save({**torch.load(io.BytesIO(rest)), **tensors}, buffer)
        file.write_bytes(json.dumps({**json.loads(first), **header}).encode() + b"\n" + buffer.getvalue())
        return file

    return edited


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_it_computes_what_saev_does(name, check_outputs):
    found = read_checkpoint(FOLDER / name, **GIVEN)
    model = found.to_model(GIVEN)
    check_outputs(model, f"saev/{name}")
    activation, words = CHECKPOINTS[name]
    assert model.config.activation == activation
    assert all(word in " ".join(found.notes) for word in words)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"input_scale": 1.0}, "tokens of an image encoder.*hook_point="),
        ({"hook_point": PLACE}, "input_mean and input_scale"),
        ({"hook_point": PLACE, "input_mean": [0.0] * 8}, "needs input_scale:"),
        ({"hook_point": PLACE, "input_scale": 0.5}, "needs input_mean:"),
    ],
)
def test_what_the_file_does_not_say_has_to_be_given(given, message):
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(FOLDER / "relu", **given)


def test_given_statistics_are_used(relative_error):
    mean, scale = torch.linspace(-1, 1, 8), 0.4
    model = convert_checkpoint(FOLDER / "relu", hook_point=PLACE, input_mean=mean, input_scale=scale)
    expected = load_file(FOLDER / "relu" / "expected.safetensors")
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
def test_statistics_that_were_not_used_need_not_be_given(header, missing, edited):
    file = edited("relu", header, {})
    if missing is None:
        assert convert_checkpoint(file, hook_point=PLACE).input_scale == 1
    else:
        with pytest.raises(ValueError, match=f"needs {missing}:"):
            convert_checkpoint(file, hook_point=PLACE)


def activation(cls, **params):
    return {"cfg": {"d_model": 8, "d_sae": 24, "activation": {"cls": cls, "params": params}}}


@pytest.mark.parametrize(
    ("name", "header", "tensors", "message"),
    [
        ("schema_5", {"schema": 6}, {}, "schema 6 .*5"),
        ("schema_5", activation("JumpRelu"), {}, "'JumpRelu'.*Relu, TopK, BatchTopK"),
        ("schema_5", activation("BatchTopK", top_k=4), {}, r"BatchTopK.*no activation\.threshold"),
        ("schema_1_batch", {}, {}, "largest activations of a whole batch"),
        ("schema_5", {}, {"activation.threshold": torch.tensor(1.0)}, r"activation\.threshold"),
    ],
)
def test_settings_and_tensors_that_do_not_fit_are_refused(name, header, tensors, message, edited):
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(edited(name, header, tensors), **GIVEN)


def test_a_file_without_the_first_line_is_not_of_saev(tmp_path):
    (tmp_path / "sae.pt").write_bytes((FOLDER / "relu" / "sae.pt").read_bytes().partition(b"\n")[2])
    with pytest.raises(ValueError, match="known format"):
        convert_checkpoint(tmp_path)
    with pytest.raises(ValueError, match="line of JSON"):
        convert_checkpoint(tmp_path, format="saev")
