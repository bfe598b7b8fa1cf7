"""The card calls a model and its backbone what they are, and its examples run."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image

import hf_msae
from hf_msae import MSAEConfig
from hf_msae.backbones import Backbone
from hf_msae.hub import render_model_card
from hf_msae.scenes.backbone import BACKBONE_DIR
from hf_msae.training.record import TrainingRecord
from tests.hub.cards import N, examples, save_run, section, summary


@pytest.mark.parametrize(
    ("settings", "words", "cites"),
    [
        ({}, "nested top-k", "zaigrajew2025"),
        ({"activation": "topk", "k": N}, "At most 64 latents", "zaigrajew2025"),
        (
            {"nesting": "prefix"},
            "first N latents are a coarser dictionary by themselves, for N = 4, 8, 16, 32, 64",
            "2503.17547",
        ),
        ({"nesting": "prefix", "random_prefixes": 5}, "drawn anew in each step, 5 at a time", "2503.17547"),
        ({"nesting": "none"}, "nothing nests", None),
        ({"nesting": "none", "activation": "topk", "k": 4}, "At most 4 latents", "2406.04093"),
        ({"nesting": "none", "activation": "batch_topk", "k": 4}, "On average 4 latents", "2412.06410"),
        ({"nesting": "none", "activation": "jump_relu"}, "learned threshold", "2407.14435"),
    ],
)
def test_every_family_is_called_what_it_is(tmp_path, settings, words, cites):
    run = save_run(tmp_path / "run", names=False, record=False, measured=False, **settings)
    card = ModelCard(render_model_card(run))
    told = summary(card.content)
    nests = settings.get("nesting") != "none"
    assert words in told
    assert ("Matryoshka" in told) == nests == ("matryoshka" in card.data.tags)
    citation = section(card.content, "Citation")
    assert ("zaigrajew2025" in citation) == (settings.get("nesting", "topk") == "topk")
    assert (cites or "@software{hf_msae") in citation


@pytest.mark.parametrize(
    ("hook_point", "limit", "example"),
    [
        ("image_embeds", "It was trained on images.", 'explain("photo.jpg")'),
        ("text_embeds", "It was trained on texts.", 'explain("a red star in a meadow")'),
        ("vision.layers.1", "a block of the vision tower", 'patch_map("photo.jpg"'),
        ("text.layers.1", "a block of the text tower", "text_latents("),
    ],
)
def test_limits_and_examples_are_those_of_the_hook_point(tmp_path, hook_point, limit, example):
    text = render_model_card(save_run(tmp_path / "run", hook_point=hook_point, measured=False))
    assert limit in section(text, "Intended use and limits") and example in examples(text)[0]


def test_the_examples_run(tmp_path, monkeypatch):
    """From another directory, with the scenes' backbone by its name and as a folder here and elsewhere."""
    backbone = Backbone.from_pretrained("scenes")
    name = backbone.name_or_path
    save_run(tmp_path / "pooled", d=128, base_model_name_or_path=name, measured=False)
    shutil.copytree(BACKBONE_DIR, tmp_path / "elsewhere" / "path" / "to" / "my-siglip")
    shutil.copytree(BACKBONE_DIR, tmp_path / "mine" / "siglip")
    hashes = {key: value for key, value in backbone.provenance().items() if key.endswith("_sha256")}
    save_run(tmp_path / "mine" / "here", d=128, base_model_name_or_path="siglip", measured=False, **hashes)
    save_run(tmp_path / "there", d=128, base_model_name_or_path="/gone/my-siglip", measured=False)
    for place, hook_point in (("many/tokens", "vision.layers.2"), ("texts", "text_embeds")):
        save_run(tmp_path / place, d=128, base_model_name_or_path=name, hook_point=hook_point, measured=False)
    monkeypatch.chdir(tmp_path / "mine")  # where the backbone is at the relative path in the config
    cards = [
        render_model_card("here"),
        render_model_card(tmp_path / "there", model_id="../there"),
        render_model_card("../pooled"),
        render_model_card("../texts"),
        render_model_card("../many/tokens", model_id="../many", subfolder="tokens"),
    ]
    assert "strict" not in cards[0] and str(tmp_path) not in cards[1]
    assert 'backbone="path/to/my-siglip"' in cards[1]
    monkeypatch.chdir(tmp_path / "elsewhere")
    Image.new("RGB", (96, 96), "red").save("photo.jpg")
    for card in cards:
        ran = {}
        for example in examples(card):
            exec(example, ran | {"embeddings": torch.randn(5, 128)}, ran)
        assert ran["values"].shape == (5, 32)
        assert ran["model"].concepts is not None
    assert ran["activations"].shape == (6, 6)


def test_a_backbone_in_a_folder_is_named_without_its_path(tmp_path):
    run = save_run(tmp_path / "run", base_model_name_or_path="/home/me/models/my-clip")
    text = render_model_card(run)
    assert 'backbone="path/to/my-clip"' in examples(text)[0]
    assert len(examples(text)) == 2 and "/home/me" not in text and "`my-clip`" in text
    assert 'from_pretrained("user/many", subfolder="a")' in render_model_card(run, model_id="user/many", subfolder="a")


@pytest.mark.parametrize(
    ("name", "is_local", "is_linked"),
    [
        *((name, None, False) for name in (None, "hf_msae/scenes-siglip", "./local/folder", "/abs/folder")),
        *(("google/siglip-tiny", is_local, not is_local) for is_local in (True, False, None)),
    ],
)
def test_only_a_hub_id_that_was_no_folder_becomes_a_link_to_the_base_model(run, name, is_local, is_linked):
    config = MSAEConfig.from_pretrained(run)
    config.base_model_name_or_path = name
    config.save_pretrained(run)
    TrainingRecord(**{**TrainingRecord.load(run).to_dict(), "base_model_is_local": is_local}).save(run)
    card = ModelCard(render_model_card(run))
    assert card.data.base_model == (name if is_linked else None)
    assert ("https://hf.co/google/siglip-tiny" in card.text) == is_linked
    assert ('backbone="path/to/siglip-tiny"' in examples(card.content)[0]) == bool(is_local)


@pytest.mark.slow
def test_a_family_added_as_the_design_says_reaches_the_card(tmp_path):
    """docs/design.md: a family in a file of its own, a line in the registry, and its name in the fields."""
    package = Path(hf_msae.__file__).parent
    for folder in (package, package.parent / "model_cards"):
        shutil.copytree(folder, tmp_path / folder.name, ignore=shutil.ignore_patterns("__pycache__"))
    model = tmp_path / "hf_msae" / "model"
    (model / "halved.py").write_text(
        'from .relu import ReLU\n\n\nclass HalvedReLU(ReLU):\n    """Half of it."""\n\n    name = "halved"\n'
    )
    registry = (model / "activations.py").read_text()
    registry = registry.replace("from .relu", "from .halved import HalvedReLU\nfrom .relu").replace(
        "JumpReLU())", "JumpReLU(), HalvedReLU())"
    )
    (model / "activations.py").write_text(registry)
    fields = (model / "config_fields.py").read_text()
    (model / "config_fields.py").write_text(fields.replace('"jump_relu"] = "relu"', '"jump_relu", "halved"] = "relu"'))
    program = (
        "from hf_msae import MSAEConfig, MSAEModel\n"
        "from hf_msae.hub import render_model_card\n"
        "MSAEModel(MSAEConfig(d_in=8, num_latents=32, activation='halved')).save_pretrained('saved')\n"
        "print(MSAEModel.from_pretrained('saved').config.activation, render_model_card('saved'))"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.stdout.startswith("halved") and "HalvedReLU" in done.stdout, done.stderr
