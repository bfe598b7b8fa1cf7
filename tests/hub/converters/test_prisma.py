"""ViT-Prisma's checkpoints, on its documented layout (foreign/prisma/write_prisma.py): the packaged vit-prisma has no
SAEs to write any."""

import sys
import types

import pytest
import torch

from hf_msae.hub.converters import convert_checkpoint, read_checkpoint
from tests.hub.converters.conftest import FOREIGN


@pytest.mark.parametrize(
    ("name", "activation", "given", "hook_point"),
    [
        ("relu", "relu", {}, "vision.layers.9"),
        ("relu_of_mlp", "relu", {"hook_point": "image_embeds"}, "image_embeds"),
        ("top_k", "topk", {}, "vision.layers.9"),
        ("gated", "jump_relu", {}, "vision.layers.8"),
    ],
)
def test_it_follows_the_equations_of_prisma(name, activation, given, hook_point, check_outputs):
    model = convert_checkpoint(FOREIGN / "prisma" / name, **given)
    check_outputs(model, f"prisma/{name}")
    assert (model.config.activation, model.config.hook_point) == (activation, hook_point)
    assert model.config.base_model_name_or_path == "open-clip:laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K"


def test_training_on_cls_tokens_is_noted():
    assert any("CLS" in note for note in read_checkpoint(FOREIGN / "prisma/top_k").notes)


def test_an_object_of_vit_prisma_is_refused_with_the_lines_that_make_plain_files(tmp_path, monkeypatch):
    config = types.ModuleType("vit_prisma.sae.config")
    config.VisionModelSAERunnerConfig = type("VisionModelSAERunnerConfig", (), {"__module__": config.__name__})
    for name in ("vit_prisma", "vit_prisma.sae"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, config.__name__, config)
    state = torch.load(FOREIGN / "prisma/relu/weights.pt")
    saved = {"cfg": config.VisionModelSAERunnerConfig(), "state_dict": state}
    torch.save(saved, tmp_path / "n_images_2600058.pt")
    with pytest.raises(ValueError, match="vit_prisma") as refused:
        convert_checkpoint(tmp_path)
    assert 'torch.load("n_images_2600058.pt"' in str(refused.value) and "plain/weights.pt" in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "tensors", "message"),
    [
        ({"hook_point": "blocks.9.hook_mlp_out"}, {}, r"blocks\.9\.hook_mlp_out.*hook_point="),
        ({"layer_subtype": None, "hook_point_layer": None, "hook_point": None}, {}, "hook_point="),
        ({"normalize_activations": "layer_norm"}, {}, "layer_norm.*standardizes"),
        ({"normalize_activations": None}, {}, "layer_norm.*standardizes"),  # their default
        ({"normalize_activations": "constant_norm_rescale"}, {}, "constant_norm_rescale.*same length"),
        ({"architecture": "jumprelu"}, {}, "'jumprelu'.*standard, gated"),
        ({"is_transcoder": True}, {}, "is_transcoder=True"),
        ({"d_out": 12}, {}, "d_out=12"),
        ({"activation_fn_str": "tanh-relu"}, {}, "'tanh-relu'"),
        ({"activation_fn_str": "topk"}, {}, "k of activation_fn_kwargs of .*missing"),
        ({}, {"threshold": torch.zeros(24)}, "also has threshold"),
    ],
)
def test_settings_and_tensors_that_do_not_fit_are_refused(settings, tensors, message, changed):
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(changed("prisma/relu", settings, tensors), format="prisma")
