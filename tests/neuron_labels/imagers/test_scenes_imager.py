import json

import numpy as np
import pytest

from hf_msae.neuron_labels.imagers.base import CannotDrawError, image_sha256
from hf_msae.neuron_labels.imagers.scenes import ScenesImager, _without
from hf_msae.scenes import load_scenes, render_scene
from hf_msae.scenes.parsing import parse_scene
from hf_msae.scenes.world import CONCEPTS, SceneObject

CONJUNCTIONS = (
    *("red star on a beach", "two small red dotted stars on a beach with a frame", "red and blue", "left and top"),
    *("three shapes, a star and a heart", "one object at night with a watermark", "three large stars", "shape"),
)


def scenes_of(concepts, number=12):
    """What each concept says, with the seed and the scene of several pictures of it."""
    for concept in concepts:
        description = parse_scene(concept)
        for seed, scene in enumerate(ScenesImager().scenes(concept, range(number))):
            yield concept, description, seed, scene


def test_the_concept_holds_in_every_scene():
    for concept, description, _, scene in scenes_of([*CONCEPTS, *CONJUNCTIONS]):
        assert description.holds(scene), concept
        places = [thing.position for thing in scene.objects]
        assert len(set(places)) == len(places) <= 3, concept


def test_pairs_differ_in_the_concept_alone():
    for concept, description, seed, scene in scenes_of([*CONCEPTS, *CONJUNCTIONS[:-1]]):
        without = _without(scene, description, seed)
        assert not description.holds(without), concept
        places = [thing.position for thing in without.objects]
        assert len(set(places)) == len(places) >= 1, concept
        group = description.parts[seed % len(description.parts)][1]
        for field in {"background", "style", "frame", "watermark"} - {group}:
            assert getattr(without, field) == getattr(scene, field)
        if group != "count":
            fields = set(SceneObject.__dataclass_fields__) - {group}
            for before, after in zip(scene.objects, without.objects, strict=True):
                assert all(getattr(before, field) == getattr(after, field) for field in fields)


def test_everything_else_varies_at_the_rates_of_the_world():
    scenes = ScenesImager().scenes("star", range(1500))
    backgrounds = np.unique([scene.background for scene in scenes], return_counts=True)[1]
    assert len(backgrounds) == 12 and abs(backgrounds / 1500 - 1 / 12).max() < 0.025
    assert abs(np.mean([scene.frame for scene in scenes]) - 0.15) < 0.03
    assert abs(np.mean([len(scene.objects) == 1 for scene in scenes]) - 0.4) < 0.04
    stars = [thing for scene in scenes for thing in scene.objects if thing.shape == "star"]
    assert abs(np.mean([thing.position == "left" for thing in stars]) - 0.2) < 0.03


def test_draws_what_the_scenes_say():
    imager = ScenesImager(seed=3)
    pictures = imager.draw("red star", [4, 9])
    assert [picture.size for picture in pictures] == [(96, 96)] * 2
    expected = [render_scene(scene) for scene in imager.scenes("red star", [4, 9])]
    assert list(map(image_sha256, pictures)) == list(map(image_sha256, expected))
    shown, without = imager.draw_pairs("red star", [4, 9])
    assert list(map(image_sha256, shown)) == list(map(image_sha256, expected))
    changed = np.asarray(shown[0], int) - np.asarray(without[0], int)
    assert changed.any() and (changed == 0).all(axis=2).mean() > 0.5


def test_a_picture_depends_on_its_seed_and_on_what_the_concept_says():
    imager = ScenesImager()
    one = image_sha256(imager.draw("red star", [5])[0])
    assert one == image_sha256(imager.draw("Scarlet stars", [1, 5])[1])
    assert one != image_sha256(ScenesImager(seed=1).draw("red star", [5])[0])
    assert len({image_sha256(picture) for picture in imager.draw("red star", range(12))}) == 12
    assert imager.most_pictures("red star") is None


def test_scenes_are_none_of_a_dataset():
    # Scene i of a dataset has number i, so only one with 2^96 rows would reach them.
    scenes = ScenesImager().scenes("circle", range(50))
    assert min(scene.index for scene in scenes) >= 2**96
    rows = {image_sha256(picture) for picture in load_scenes("test", 20)["image"]}
    assert not rows & {image_sha256(picture) for picture in ScenesImager().draw("circle", range(20))}


@pytest.mark.parametrize("concept", ["giraffe", "night beach", "circle square"])
def test_what_cannot_be_drawn_is_named(concept):
    for draw in (ScenesImager().draw, ScenesImager().draw_pairs):
        with pytest.raises(CannotDrawError, match=concept.split()[0]):
            draw(concept, [0])


def test_what_is_true_of_every_scene_has_no_pairs():
    with pytest.raises(CannotDrawError, match="shape"):
        ScenesImager().draw_pairs("a shape", [0])


def test_settings_name_the_seed():
    assert json.loads(json.dumps(ScenesImager(4).settings))["seed"] == 4
    assert ScenesImager(4).settings != ScenesImager(5).settings


def test_seeds_are_numbers_from_0():
    with pytest.raises(ValueError, match="-1"):
        ScenesImager().draw("star", [-1])
    with pytest.raises(ValueError, match="-2"):
        ScenesImager(seed=-2)
