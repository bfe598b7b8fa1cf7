"""The SigLIP that ships with the package: it loads, sees, and its card says what was measured."""

import json
import logging

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoProcessor, SiglipModel

from hf_msae.scenes import full_caption, load_scenes, render_array, sample_scene
from hf_msae.scenes.backbone import (
    BACKBONE_DIR,
    MAX_LENGTH,
    concept_prompts,
    embed_arrays,
    embed_texts,
    evaluate_backbone,
    oracle_similarity,
    pixels_from_arrays,
    retrieval_accuracy,
)
from hf_msae.scenes.backbone_card import write_backbone_card
from hf_msae.scenes.world import CONCEPTS


@pytest.fixture(scope="module")
def model():
    return AutoModel.from_pretrained(BACKBONE_DIR, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def processor():
    return AutoProcessor.from_pretrained(BACKBONE_DIR, backend="pil")


def test_it_is_a_siglip_of_at_most_eight_megabytes(model):
    assert isinstance(model, SiglipModel)
    assert sum(file.stat().st_size for file in BACKBONE_DIR.iterdir()) <= 8e6


def test_it_loads_without_missing_or_unexpected_weights():
    _, info = AutoModel.from_pretrained(BACKBONE_DIR, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]


def test_its_measured_figures_hold_on_other_scenes(model, processor):
    stated = json.loads((BACKBONE_DIR / "backbone_metrics.json").read_text())
    fresh = evaluate_backbone(model, processor.tokenizer, num_scenes=600, seed=123)
    number = fresh["num_single_object_scenes"]
    for group, accuracy in stated["zero_shot_accuracy"].items():
        spread = 4 * np.sqrt(max(accuracy * (1 - accuracy), 0.01) / number)
        assert abs(fresh["zero_shot_accuracy"][group] - accuracy) < spread, group
    assert abs(fresh["image_to_caption_top1_of_100"] - stated["image_to_caption_top1_of_100"]) < 0.06
    assert fresh["oracle_top1_of_100"] > 0.99


def test_the_card_is_what_the_figures_say(tmp_path):
    write_backbone_card(tmp_path, json.loads((BACKBONE_DIR / "backbone_metrics.json").read_text()))
    assert (BACKBONE_DIR / "README.md").read_text() == (tmp_path / "README.md").read_text()


def test_the_processor_does_what_training_did(processor):
    scenes = load_scenes("test", 3)
    pixels = processor(images=list(scenes["image"]), return_tensors="pt")["pixel_values"]
    arrays = np.stack([render_array(sample_scene("test", 0, i)) for i in range(3)])
    assert torch.allclose(pixels, pixels_from_arrays(arrays), atol=1e-5)
    ids = processor.tokenizer("A red STAR on the LEFT", padding="max_length", max_length=MAX_LENGTH)["input_ids"]
    assert (
        ids == processor.tokenizer("a red star on the left", padding="max_length", max_length=MAX_LENGTH)["input_ids"]
    )
    assert len(ids) == MAX_LENGTH


def test_no_caption_is_cut_off(processor):
    lengths = [
        len(processor.tokenizer(full_caption(sample_scene("train", 1, i), True))["input_ids"]) for i in range(800)
    ]
    assert max(lengths) <= MAX_LENGTH


def test_retrieval_counts_ties_as_draws():
    similarity = torch.zeros(200, 200)
    similarity[:100, :100] = torch.eye(100)
    assert retrieval_accuracy(similarity) == pytest.approx((1.0 + 0.01) / 2)


def test_the_oracle_prefers_each_pictures_own_caption():
    scenes = [sample_scene("test", 9, i) for i in range(100)]
    scores = oracle_similarity(scenes)
    assert (scores.diagonal() == scores.max(-1).values).all()


def test_there_is_a_prompt_for_every_concept(model, processor):
    prompts = concept_prompts(np.random.default_rng(0))
    assert len(prompts) == len(CONCEPTS)
    embeds = embed_texts(model, processor.tokenizer, prompts)
    assert torch.allclose(embeds.norm(dim=-1), torch.ones(len(CONCEPTS)), atol=1e-5)


def test_embeddings_are_those_of_the_full_model(model, processor, caplog):
    pictures = np.stack([render_array(sample_scene("test", 0, i)) for i in range(2)])
    inputs = processor(text=["a red shape"], padding="max_length", return_tensors="pt")
    with caplog.at_level(logging.WARNING), torch.no_grad():
        out = model(pixel_values=pixels_from_arrays(pictures), **inputs)
    assert torch.allclose(out.image_embeds, embed_arrays(model, pictures), atol=1e-5)
    assert torch.allclose(out.text_embeds, embed_texts(model, processor.tokenizer, ["a red shape"]), atol=1e-5)
