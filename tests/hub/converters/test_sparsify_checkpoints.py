"""sparsify's checkpoints, written by eai-sparsify 1.3.3 itself (foreign/sparsify/write_sparsify.py)."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from hf_msae.hub.converters import convert_checkpoint, read_checkpoint

FOREIGN = Path(__file__).parent / "foreign" / "sparsify"
HOOK_POINTS = {
    "many/layers.9": "text.layers.9",
    "many/layers.3.mlp": "text.layers.3",
    "vision/vision_model.encoder.layers.2": "vision.layers.2",
}


@pytest.fixture
def copied(tmp_path):
    return Path(shutil.copytree(FOREIGN / "many" / "layers.9", tmp_path / "layers.9"))


def rewrite(folder, **settings):
    file = folder / "cfg.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


@pytest.mark.parametrize("folder", HOOK_POINTS)
def test_codes_and_reconstructions_are_those_of_sparsify(folder, relative_error):
    expected = load_file(FOREIGN / folder / "expected.safetensors")
    given = {"hook_point": "text.layers.3"} if folder.endswith("mlp") else {}
    model = convert_checkpoint(FOREIGN / folder, **given)
    output = model(expected["inputs"])
    assert relative_error(output.latents, expected["code"]) < 1e-5
    assert relative_error(output.reconstruction, expected["reconstruction"]) < 1e-5
    assert model.config.activation == "topk" and model.config.num_latents == 24
    assert model.config.hook_point == HOOK_POINTS[folder]


def test_a_single_file_takes_its_settings_from_beside_it(relative_error):
    folder = FOREIGN / "many" / "layers.9"
    expected = load_file(folder / "expected.safetensors")
    model = convert_checkpoint(folder / "sae.safetensors")
    assert relative_error(model.encode(expected["inputs"]), expected["code"]) < 1e-5
    assert model.config.hook_point == "text.layers.9"


def test_one_of_several_hook_points_has_to_be_named(relative_error):
    with pytest.raises(ValueError, match=r"2 checkpoints, name one as subfolder: layers\.3\.mlp, layers\.9"):
        convert_checkpoint(FOREIGN / "many")
    expected = load_file(FOREIGN / "many" / "layers.9" / "expected.safetensors")
    model = convert_checkpoint(FOREIGN / "many", subfolder="layers.9")
    assert relative_error(model.encode(expected["inputs"]), expected["code"]) < 1e-5
    assert convert_checkpoint(FOREIGN / "vision").config.hook_point == "vision.layers.2"  # the only one


def test_a_place_without_a_name_has_to_be_given():
    with pytest.raises(ValueError, match=r"layers\.3\.mlp.* say which kind they are: hook_point="):
        read_checkpoint(FOREIGN / "many" / "layers.3.mlp")
    given = convert_checkpoint(FOREIGN / "many" / "layers.3.mlp", hook_point="vision.layers.3")
    assert given.config.hook_point == "vision.layers.3"


@pytest.mark.parametrize("reason", ["groupmax", "transcode", "skip_connection"])
def test_what_an_msae_does_not_compute_is_refused(reason):
    with pytest.raises(ValueError, match=rf"{reason}.*cannot be converted"):
        convert_checkpoint(FOREIGN / "refused" / reason)


def test_settings_of_another_type_are_refused(copied):
    rewrite(copied, signed="false")
    with pytest.raises(ValueError, match=r"signed of .* is 'false', expected true or false"):
        convert_checkpoint(copied)


def test_a_k_that_is_not_stored_can_be_given(copied):
    rewrite(copied, k=None)
    with pytest.raises(ValueError, match=r"k of .*cfg\.json.* say k=\.\.\."):
        convert_checkpoint(copied)
    assert convert_checkpoint(copied, k=3).config.k == 3


def test_signed_codes_of_older_versions_are_refused(copied):
    rewrite(copied, signed=True)
    with pytest.raises(ValueError, match="signed=True: its codes have negative entries"):
        convert_checkpoint(copied)


def test_an_older_file_without_activation_is_top_k(copied, relative_error):
    settings = json.loads((copied / "cfg.json").read_text())
    (copied / "cfg.json").write_text(json.dumps({key: settings[key] for key in ("d_in", "num_latents", "k")}))
    expected = load_file(copied / "expected.safetensors")
    assert relative_error(convert_checkpoint(copied).encode(expected["inputs"]), expected["code"]) < 1e-5


def test_weights_that_do_not_fit_the_settings_are_refused(copied):
    rewrite(copied, num_latents=16)
    with pytest.raises(ValueError, match=r"encoder\.weight of .* has shape \(24, 8\), expected \(16, 8\)"):
        convert_checkpoint(copied)


def test_values_that_are_not_finite_are_refused(copied):
    tensors = load_file(copied / "sae.safetensors")
    tensors["encoder.bias"][3] = float("nan")
    save_file(tensors, copied / "sae.safetensors")
    with pytest.raises(ValueError, match="NaN or infinite"):
        convert_checkpoint(copied)


def test_a_truncated_file_is_refused(copied):
    file = copied / "sae.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match="damaged or incomplete"):
        convert_checkpoint(copied)
