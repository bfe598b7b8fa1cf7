"""The SigLIP that ships with the package: it loads, sees, and its card states what was measured."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel

from hf_msae.backbones import Backbone
from hf_msae.scenes import full_caption, render_array, sample_scene
from hf_msae.scenes.backbone import BACKBONE_DIR
from hf_msae.scenes.world import CONCEPTS


@pytest.fixture(scope="module")
def siglip():
    """training/scenes_siglip.py."""
    folder = str(Path(__file__).parents[2] / "training")
    sys.path.insert(0, folder)
    import scenes_siglip

    yield scenes_siglip
    sys.path.remove(folder)


@pytest.fixture(scope="module")
def backbone():
    return Backbone.from_pretrained("scenes")


def test_it_is_small_and_whole():
    assert sum(file.stat().st_size for file in BACKBONE_DIR.iterdir()) <= 8e6
    _, info = AutoModel.from_pretrained(BACKBONE_DIR, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]


@pytest.mark.slow
def test_its_measured_figures_hold_on_other_scenes(siglip, backbone):
    stated = json.loads((BACKBONE_DIR / "backbone_metrics.json").read_text())
    fresh = siglip.evaluate_backbone(backbone, num_scenes=600, seed=123)
    number = fresh["num_single_object_scenes"]
    for group, accuracy in stated["zero_shot_accuracy"].items():
        spread = 4 * np.sqrt(max(accuracy * (1 - accuracy), 0.01) / number)
        assert abs(fresh["zero_shot_accuracy"][group] - accuracy) < spread, group
    assert abs(fresh["image_to_caption_top1_of_100"] - stated["image_to_caption_top1_of_100"]) < 0.06
    assert fresh["oracle_top1_of_100"] > 0.99
    assert fresh.keys() | {"training"} == stated.keys()


def test_the_card_states_the_figures(siglip, tmp_path):
    siglip.write_backbone_card(tmp_path, json.loads((BACKBONE_DIR / "backbone_metrics.json").read_text()))
    assert (BACKBONE_DIR / "README.md").read_text() == (tmp_path / "README.md").read_text()


def test_the_processor_does_what_training_did(siglip, backbone):
    arrays = np.stack([render_array(sample_scene("test", 0, i)) for i in range(3)])
    pixels = backbone.image_processor(images=list(arrays), return_tensors="pt")["pixel_values"]
    assert torch.allclose(pixels, siglip.pixels_from_arrays(arrays), atol=1e-5)
    assert torch.equal(backbone.text_embeds("A red STAR on the LEFT"), backbone.text_embeds("a red star on the left"))


def test_a_new_model_has_the_shape_of_the_shipped_one(siglip, backbone):
    fresh = siglip.build_model(backbone.tokenizer)
    shapes = {name: parameter.shape for name, parameter in fresh.named_parameters()}
    assert shapes == {name: parameter.shape for name, parameter in backbone.model.named_parameters()}


@pytest.mark.slow
def test_a_new_tokenizer_is_the_shipped_one(siglip, backbone):
    assert siglip.build_processor(0).tokenizer.get_vocab() == backbone.tokenizer.get_vocab()


def test_captions_and_prompts_fit_and_cover_the_concepts(siglip, backbone):
    captions = [full_caption(sample_scene("train", 1, i), True) for i in range(300)]
    assert max(map(len, backbone.tokenizer(captions)["input_ids"])) <= siglip.MAX_LENGTH
    assert len(siglip.concept_prompts(np.random.default_rng(0))) == len(CONCEPTS)


def test_retrieval_counts_ties_as_draws_and_the_oracle_knows_each_caption(siglip):
    similarity = torch.zeros(200, 200)
    similarity[:100, :100] = torch.eye(100)
    assert siglip.retrieval_accuracy(similarity) == pytest.approx((1.0 + 0.01) / 2)
    scores = siglip.oracle_similarity([sample_scene("test", 9, i) for i in range(100)])
    assert (scores.diagonal() == scores.max(-1).values).all()
