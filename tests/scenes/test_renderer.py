"""Pictures: deterministic, and every concept leaves a visible trace."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from hf_msae.scenes import GROUPS, IMAGE_SIZE, render_array, render_scene, sample_scene
from hf_msae.scenes.renderer import RGB
from hf_msae.scenes.world import COLOURS, SHAPES, Scene, SceneObject

PLAIN = Scene((SceneObject("circle", "red", "large", "solid", "center"),), "paper", "clean", False, False)
EXPECTED_MEANS = [202.05, 216.82, 206.96, 125.59]


def test_a_picture_is_the_same_every_time():
    scene = sample_scene("train", 0, 5)
    picture = render_scene(scene)
    assert picture.size == (IMAGE_SIZE, IMAGE_SIZE) and picture.mode == "RGB"
    assert np.array_equal(np.asarray(picture), render_array(scene))


def test_the_pictures_of_known_scenes_have_not_changed():
    # A change here must come with a new WORLD_VERSION and a newly trained backbone.
    means = [render_array(sample_scene("train", 0, i)).mean() for i in range(4)]
    assert means == pytest.approx(EXPECTED_MEANS, abs=0.6)


@pytest.mark.parametrize("group", ["shape", "size", "fill", "position", "background", "style"])
def test_each_value_of_a_group_looks_different(group):
    pictures = []
    for value in ({group: each} for each in GROUPS[group]):
        of_scene = group in ("background", "style")
        scene = replace(PLAIN, **value if of_scene else {"objects": (replace(PLAIN.objects[0], **value),)})
        pictures.append(render_array(scene).astype(float))
    for a, b in combinations(pictures, 2):
        assert np.abs(a - b).mean() > 0.5


@pytest.mark.parametrize("extra", ["frame", "watermark"])
def test_extras_can_be_seen(extra):
    assert np.abs(render_array(replace(PLAIN, **{extra: True})).astype(float) - render_array(PLAIN)).mean() > 0.5


def test_a_large_solid_object_has_its_colour_in_the_middle():
    for colour in COLOURS:
        scene = replace(PLAIN, objects=(replace(PLAIN.objects[0], colour=colour),))
        patch = render_array(scene)[44:52, 44:52].reshape(-1, 3).mean(0)
        distances = {name: np.abs(patch - np.asarray(rgb)).sum() for name, rgb in RGB.items()}
        assert min(distances, key=distances.get) == colour


def test_every_shape_is_drawn_within_the_picture():
    for shape in SHAPES:
        scene = replace(PLAIN, objects=(replace(PLAIN.objects[0], shape=shape, colour="black"),))
        without = render_array(replace(PLAIN, objects=())).astype(float)
        changed = np.abs(render_array(scene) - without).max(-1) > 30
        assert 150 < changed.sum() < 2500
