"""Labels of scenes, and the texts of their zero-shot classifiers."""

import numpy as np
import torch
from datasets import Dataset

from hf_msae.backbones import Backbone
from hf_msae.scenes import CONCEPTS, GROUPS, load_scenes
from hf_msae.scenes.captions import CLASSIFIED_GROUPS, group_labels, truth_matrix, zero_shot_texts


def test_a_label_is_the_one_concept_of_a_group_that_is_true():
    columns = {word: [False, False, False] for word in GROUPS["colour"]}
    columns["red"], columns["blue"] = [True, True, False], [False, True, False]
    assert group_labels(Dataset.from_dict(columns), "colour").tolist() == [GROUPS["colour"].index("red"), -1, -1]


def test_labels_and_truth_of_rendered_scenes():
    scenes = load_scenes("test", 40)
    truth = truth_matrix(scenes)
    assert truth.shape == (40, len(CONCEPTS))
    for name in ("red", "beach", "watermark"):
        assert truth[:, CONCEPTS.index(name)].tolist() == scenes[name]
    backgrounds = group_labels(scenes, "background")
    assert all(scenes[i][GROUPS["background"][number]] for i, number in enumerate(backgrounds))
    assert (group_labels(scenes, "shape") == -1).any()


def test_texts_classify_the_backbones_own_scenes():
    backbone, scenes = Backbone.from_pretrained("scenes"), load_scenes("test", 40)
    images = backbone.image_embeds(scenes["image"])
    for group in CLASSIFIED_GROUPS:
        texts = zero_shot_texts(backbone.text_embeds, group)
        assert texts.shape == (len(GROUPS[group]), images.shape[1])
        labels = group_labels(scenes, group)
        cosines = torch.nn.functional.cosine_similarity(images[:, None], texts[None], dim=-1)
        hits = (cosines.argmax(1).numpy() == labels)[labels >= 0]
        assert np.mean(hits) > 0.8, group
