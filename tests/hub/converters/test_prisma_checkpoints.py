"""ViT-Prisma's checkpoints, on its documented layout (foreign/prisma/write_prisma.py): the packaged vit-prisma has no
SAEs to write any."""

import json
import shutil
import sys
import types
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hf_msae.hub.converters import convert_checkpoint, read_checkpoint

FOREIGN = Path(__file__).parent / "foreign" / "prisma"
ACTIVATIONS = {"relu": "relu", "relu_of_mlp": "relu", "top_k": "topk", "gated": "jump_relu"}
HOOK_POINTS = {"relu": "vision.layers.9", "relu_of_mlp": "image_embeds", "gated": "vision.layers.8"}


@pytest.fixture
def changed(tmp_path):
    def changed(name, tensors=None, **settings):
        folder = Path(shutil.copytree(FOREIGN / name, tmp_path / name))
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **settings}))
        torch.save({**torch.load(folder / "weights.pt"), **(tensors or {})}, folder / "weights.pt")
        return folder

    return changed


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_codes_and_reconstructions_follow_the_equations_of_prisma(name, relative_error):
    expected = load_file(FOREIGN / name / "expected.safetensors")
    given = {} if name not in HOOK_POINTS else {"hook_point": HOOK_POINTS[name]}
    model = convert_checkpoint(FOREIGN / name, **given)
    output = model(expected["inputs"])
    assert relative_error(output.latents, expected["code"]) < 1e-5
    assert relative_error(output.reconstruction, expected["reconstruction"]) < 1e-5
    assert model.config.activation == ACTIVATIONS[name]
    assert model.config.base_model_name_or_path == "open-clip:laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K"
    assert model.config.hook_point == HOOK_POINTS.get(name, "vision.layers.9")


def test_where_embeddings_have_to_come_from_has_to_be_clear():
    with pytest.raises(ValueError, match=r"blocks\.9\.hook_mlp_out .* say which kind they are: hook_point="):
        convert_checkpoint(FOREIGN / "relu_of_mlp")
    assert any("CLS tokens alone" in note for note in read_checkpoint(FOREIGN / "top_k").notes)


def test_an_object_of_vit_prisma_is_refused_with_the_lines_that_make_plain_files(tmp_path, monkeypatch):
    config = types.ModuleType("vit_prisma.sae.config")
    config.VisionModelSAERunnerConfig = type("VisionModelSAERunnerConfig", (), {"__module__": config.__name__})
    for name in ("vit_prisma", "vit_prisma.sae"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, config.__name__, config)
    state = torch.load(FOREIGN / "relu" / "weights.pt")
    saved = {"cfg": config.VisionModelSAERunnerConfig(), "state_dict": state}
    torch.save(saved, tmp_path / "n_images_2600058.pt")
    with pytest.raises(ValueError, match="object of vit_prisma") as refused:
        convert_checkpoint(tmp_path)
    assert 'torch.load("n_images_2600058.pt"' in str(refused.value) and "plain/weights.pt" in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"normalize_activations": "layer_norm"}, "brings each embedding to mean 0 and variance 1 by itself"),
        ({"normalize_activations": "constant_norm_rescale"}, "scales each embedding to one length by itself"),
        ({"normalize_activations": "other"}, "normalize_activations='other', which hf_msae does not know"),
        ({"architecture": "jumprelu"}, "architecture 'jumprelu'; hf_msae reads standard and gated"),
        ({"is_transcoder": True}, "is_transcoder=True"),
        ({"d_out": 12}, "columns into ones of 12: a transcoder"),
        ({"activation_fn_str": "tanh-relu"}, "activation function 'tanh-relu'"),
        ({"activation_fn_str": "topk"}, r"k of activation_fn_kwargs of .* say k=\.\.\."),
        ({"activation_fn_str": "topk", "activation_fn_kwargs": ["k"]}, r"is \['k'\], expected names and values"),
        ({"is_transcoder": "false"}, "is_transcoder of .* is 'false', expected true or false"),
        ({"architecture": ["gated"]}, r"architecture of .* is \['gated'\], expected a text"),
        ({"d_sae": 48}, r"W_enc of .* has shape \(8, 24\), expected \(8, 48\)"),
    ],
)
def test_settings_that_an_msae_does_not_have_are_refused(settings, message, changed):
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(changed("relu", **settings))


def test_the_default_normalisation_is_not_taken_for_none(changed):
    folder = changed("relu")
    config = json.loads((folder / "config.json").read_text())
    del config["normalize_activations"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="normalize_activations='layer_norm'"):
        convert_checkpoint(folder)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"b_dec": torch.full((8,), float("nan"))}, "NaN or infinite"),
        ({"b_dec": torch.zeros(9)}, r"b_dec of .* has shape \(9,\), expected \(8,\)"),
        ({"threshold": torch.zeros(24)}, "also has threshold, which hf_msae does not know"),
    ],
)
def test_tensors_that_cannot_be_are_refused(tensors, message, changed):
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(changed("relu", tensors))


def test_a_k_that_is_not_stored_can_be_given(changed):
    folder = changed("relu", activation_fn_str="topk")
    assert convert_checkpoint(folder, k=3).config.k == 3


def test_a_place_that_nothing_tells_has_to_be_given(changed):
    with pytest.raises(ValueError, match="hook_point="):
        convert_checkpoint(changed("relu", layer_subtype=None, hook_point_layer=None, hook_point=None))


def test_weights_without_their_config_are_refused(changed):
    folder = changed("relu")
    (folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"config\.json.*weights\.pt"):
        convert_checkpoint(folder, format="prisma")


def test_a_truncated_file_is_refused(changed):
    file = changed("relu") / "weights.pt"
    file.write_bytes(file.read_bytes()[:-500])
    with pytest.raises(ValueError, match="damaged or incomplete"):
        convert_checkpoint(file.parent)
