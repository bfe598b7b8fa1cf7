"""Captions say what is true, in many ways."""

import numpy as np

from hf_msae.scenes import CONCEPTS, caption_scene, full_caption, sample_scene
from hf_msae.scenes.captions import WORDINGS

MEANING = {wording: concept for concept, wordings in WORDINGS.items() for wording in wordings}


def concepts_named(caption):
    """Concepts of which some wording stands in the caption, longest wordings first so that none hides in another."""
    text, found = f" {caption.replace(',', ' ')} ", set()
    text = " ".join(text.split())
    text = f" {text} "
    for wording in sorted(MEANING, key=len, reverse=True):
        if f" {wording} " in text:
            found.add(MEANING[wording])
            text = text.replace(f" {wording} ", "  ")
    return found


def test_wordings_cover_every_concept_and_are_not_shared():
    assert set(WORDINGS) == set(CONCEPTS)
    all_wordings = [w for wordings in WORDINGS.values() for w in wordings]
    assert len(all_wordings) == len(set(all_wordings))


def test_a_full_caption_names_exactly_what_is_true():
    for i in range(120):
        scene = sample_scene("test", 0, i)
        assert concepts_named(full_caption(scene)) | {scene.count} == scene.concepts


def test_captions_never_name_what_is_not_there():
    for i in range(150):
        scene = sample_scene("train", 0, i)
        assert concepts_named(caption_scene(scene)) <= scene.concepts, caption_scene(scene)


def test_captions_vary_and_the_default_is_the_scenes_own():
    scene = sample_scene("train", 0, 3)
    assert caption_scene(scene) == caption_scene(scene)
    random = np.random.default_rng(0)
    many = {caption_scene(scene, random) for _ in range(60)}
    assert len(many) > 40
    lengths = [len(text.split()) for text in many]
    assert min(lengths) <= 3 and max(lengths) >= 12
