"""The hash of weights is that of the files, in whatever type they are loaded, and is computed once for each state."""

import json
import os
import pickle
import shutil

import pytest
import torch
import transformers

from hf_msae._utils.cache import cache_root
from hf_msae._utils.fingerprint import weights_sha256
from hf_msae.backbones import Backbone, origin
from hf_msae.backbones.identity import difference


@pytest.fixture
def folder(folders, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_MSAE_CACHE", str(tmp_path / "cache"))
    return shutil.copytree(folders["CLIPModel"], tmp_path / "clip")


@pytest.fixture
def computed(monkeypatch):
    """The types of the models whose hash was computed from their weights."""
    types = []

    def compute(model):
        types.append(model.dtype)
        return weights_sha256(model)

    monkeypatch.setattr(origin, "weights_sha256", compute)
    return types


def known_of(source, **arguments):
    return Backbone.from_pretrained(source, **arguments).provenance()["base_model_weights_sha256"]


@pytest.mark.parametrize(("stored", "dtype"), [("float32", "bfloat16"), ("bfloat16", "float16")])
def test_the_type_in_which_weights_are_loaded_does_not_matter(folder, stored, dtype):
    model = transformers.CLIPModel.from_pretrained(folder, dtype=stored)
    model.save_pretrained(folder)
    half = Backbone.from_pretrained(folder, dtype=dtype)
    assert half.model.dtype == getattr(torch, dtype)
    expected = weights_sha256(transformers.CLIPModel.from_pretrained(folder, dtype="float32"))
    processor = half.provenance()["base_model_processor_sha256"]
    for _ in range(2):
        assert half.provenance()["base_model_weights_sha256"] == expected == known_of(folder)
        assert difference(half, expected, processor) == ""
        half.to("cpu")
    assert difference(half, weights_sha256(half.model), processor) == "", "as version 0.1 has recorded it"
    assert difference(half, "1" * 64, processor) == "other weights"
    with torch.no_grad():
        half.model.visual_projection.weight[3, 5] += 1
    assert difference(half, expected, processor) == "other weights"


def test_it_is_computed_once_for_each_state_of_the_files(folder, computed):
    known = known_of(folder)
    assert [known_of(folder, dtype=dtype) for dtype in (None, "bfloat16")] == [known] * 2 and len(computed) == 1
    os.utime(folder / "model.safetensors", ns=(1, 1))
    assert known_of(folder, dtype="bfloat16") == known and computed[1:] == [torch.float32]
    assert known_of(folder) == known and len(computed) == 2
    assert known_of(shutil.copytree(folder, folder.parent / "moved")) == known and len(computed) == 3

    backbone = Backbone.from_pretrained(folder)
    with torch.no_grad():
        backbone.model.visual_projection.weight[3, 5] += 1
    changed = backbone.provenance()["base_model_weights_sha256"]
    assert changed != known_of(folder) == known
    backbone.model.save_pretrained(folder)
    assert known_of(folder) == changed and len(computed) == 4
    backbone.model.visual_projection.weight = torch.nn.Parameter(torch.zeros(24, 32))
    assert backbone.provenance()["base_model_weights_sha256"] not in (known, changed)


def test_a_damaged_memory_is_not_believed(folder, computed):
    known = known_of(folder)
    (file,) = (cache_root() / "checksums").iterdir()
    content = json.loads(file.read_text())
    content["float32 weights"]["sha256"] = 10**12
    for place, note in enumerate(("[]", "{", '{"float32 weights": 3}', json.dumps(content)), 2):
        file.write_text(note)
        assert known_of(folder) == known and len(computed) == place, note


def test_a_cache_that_cannot_be_written_to(folder, computed, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("HF_MSAE_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    assert known_of(folder) == known_of(folder) and len(computed) == 2


@pytest.mark.parametrize(
    "change", [lambda p: p.data.mul_(2), lambda p: p.data.neg_(), lambda p: p.data.copy_(p.data.flip(0))]
)
def test_writes_through_data_are_noticed(folder, change):
    backbone = Backbone.from_pretrained(folder)
    before = backbone.provenance()["base_model_weights_sha256"]
    change(backbone.model.visual_projection.weight)
    assert backbone.provenance()["base_model_weights_sha256"] != before


def test_a_backbone_can_be_sent_to_another_process(folder, computed):
    half = Backbone.from_pretrained(folder, dtype="bfloat16")
    sent = pickle.loads(pickle.dumps(half))
    assert torch.equal(sent.text_embeds(["a red star"]), half.text_embeds(["a red star"]))
    assert sent.provenance() == half.provenance() and computed == [torch.float32]
