"""Adapters are merged into a backbone, or refused."""

import json
import shutil

import datasets  # noqa: F401  (first, so that its import time is nobody's test)
import pytest
import torch
from safetensors.torch import load_file, save_file

from hf_msae.backbones import Backbone
from tests.tiny_backbones import pictures


@pytest.fixture
def adapted(folders, tmp_path):
    """A CLIP with an adapter in its folder, as peft saves it."""
    folder = shutil.copytree(folders["CLIPModel"], tmp_path / "adapted")
    target = "vision_model.encoder.layers.1.self_attn.q_proj"
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": [target], "task_type": None}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    torch.manual_seed(0)
    names = {f"base_model.model.{target}.lora_{part}.weight": size for part, size in (("A", (2, 32)), ("B", (32, 2)))}
    save_file({name: torch.randn(size) for name, size in names.items()}, folder / "adapter_model.safetensors")
    return folder


def test_an_adapter_is_merged(adapted, clip):
    pytest.importorskip("peft")
    backbone = Backbone.from_pretrained(adapted)
    known = backbone.provenance()
    assert known["base_model_adapter"] == "LORA, merged"
    assert known["base_model_weights_sha256"] != clip.provenance()["base_model_weights_sha256"]
    weights = load_file(adapted / "adapter_model.safetensors")
    a, b = (next(value for name, value in weights.items() if f"lora_{part}" in name) for part in "AB")
    with torch.no_grad():
        expected = Backbone.from_pretrained(clip.name_or_path)
        expected.model.vision_model.encoder.layers[1].self_attn.q_proj.weight += b @ a * 2
    torch.testing.assert_close(backbone.image_embeds(pictures()), expected.image_embeds(pictures()))
    assert (backbone.image_embeds(pictures()) - clip.image_embeds(pictures())).norm() > 0.01
    assert not [name for name in backbone.model.state_dict() if "lora" in name]

    save_file({f"other.{name}": value for name, value in weights.items()}, adapted / "adapter_model.safetensors")
    with pytest.raises(ValueError, match=r"adapter of .*adapted"):
        Backbone.from_pretrained(adapted)


def test_an_adapter_that_cannot_be_merged_is_refused(adapted, monkeypatch):
    monkeypatch.setattr("hf_msae.backbones.loading.is_peft_available", lambda: False)
    with pytest.raises(ValueError, match=r"adapted .*adapter_config\.json.*pip install peft"):
        Backbone.from_pretrained(adapted)
    (adapted / "config.json").rename(adapted / "other.json")
    with pytest.raises(ValueError, match=r"adapted .*without the model"):
        Backbone.from_pretrained(adapted)
    (adapted / "other.json").rename(adapted / "config.json")
    (adapted / "adapter_config.json").unlink()
    with pytest.raises(ValueError, match=r"adapted .*adapter_model\.safetensors.*adapter_config\.json"):
        Backbone.from_pretrained(adapted)
    (adapted / "adapter_model.safetensors").unlink()
    assert "base_model_adapter" not in Backbone.from_pretrained(adapted).provenance()
