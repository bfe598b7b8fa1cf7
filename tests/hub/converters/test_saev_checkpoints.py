"""saev's checkpoints: without a schema written by saev 0.1.0 itself, schemas 1 to 5 on the layout of its later sources
(foreign/saev/write_saev.py)."""

import json
import shutil
from pathlib import Path

import pytest
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
    model = convert_checkpoint(FOREIGN / name)
    output = model(expected["inputs"])
    assert relative_error(output.latents, expected["code"]) < 1e-5
    assert relative_error(output.reconstruction, expected["reconstruction"]) < 1e-5
    assert model.config.activation == ACTIVATIONS[name]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("relu", "as saev 0.1.0 does"),
        ("schema_1_of_activation", "first took b_dec off"),
        ("schema_1_of_activation", "negative pre-activations"),
        ("schema_2_batch", "plain top-k"),
        ("schema_5", "scale_mean and scale_norm"),
        ("schema_5", "hook_point=..."),
    ],
)
def test_what_the_file_does_not_settle_is_noted(name, words):
    assert any(words in note for note in read_checkpoint(FOREIGN / name).notes)


def test_top_k_of_a_whole_batch_is_refused():
    with pytest.raises(ValueError, match="depend on what else is in the batch"):
        convert_checkpoint(FOREIGN / "schema_1_batch")


def test_batch_top_k_without_its_threshold_is_refused(changed):
    cfg = {"d_model": 8, "d_sae": 24, "activation": {"cls": "BatchTopK", "params": {"top_k": 4}}}
    with pytest.raises(ValueError, match=r"says BatchTopK, but holds no activation\.threshold"):
        convert_checkpoint(changed("schema_5", {"cfg": cfg}))


def test_a_schema_of_the_future_is_refused(changed):
    with pytest.raises(ValueError, match="schema 6 of saev; hf_msae knows those up to 5"):
        convert_checkpoint(changed("schema_5", {"schema": 6}))


def test_an_unknown_activation_is_refused(changed):
    cfg = {"d_model": 8, "d_sae": 24, "activation": {"cls": "JumpRelu", "params": {}}}
    with pytest.raises(ValueError, match="has activation 'JumpRelu'; hf_msae reads Relu, TopK, BatchTopK"):
        convert_checkpoint(changed("schema_5", {"cfg": cfg}))


def test_sizes_that_do_not_fit_are_refused(changed):
    with pytest.raises(ValueError, match=r"W_enc of .* has shape \(8, 24\), expected \(8, 16\)"):
        convert_checkpoint(changed("relu", {"exp_factor": 2}))


def test_a_truncated_file_is_refused(changed):
    with pytest.raises(ValueError, match="damaged or incomplete"):
        convert_checkpoint(changed("relu", cut=-500))


def test_a_file_without_the_first_line_is_no_checkpoint_of_saev(tmp_path):
    (tmp_path / "sae.pt").write_bytes((FOREIGN / "relu" / "sae.pt").read_bytes().partition(b"\n")[2])
    with pytest.raises(ValueError, match="no checkpoint of a known format"):
        convert_checkpoint(tmp_path)
    with pytest.raises(ValueError, match="does not begin with a line of JSON"):
        convert_checkpoint(tmp_path, format="saev")
