"""Labels of neurons in scenes: what a text must be true of, and neurons that respond to one object's properties."""

import numpy as np
import pytest

from hf_msae.neuron_labels.evaluation.accuracy import label_accuracy
from hf_msae.neuron_labels.evaluation.truth import SceneTruth
from hf_msae.scenes import load_scenes
from hf_msae.scenes.captions import truth_matrix
from hf_msae.scenes.world import sample_scene

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def scenes():
    return [sample_scene("test", 0, index) for index in range(1500)]


@pytest.fixture(scope="module")
def truth(scenes):
    return SceneTruth(scenes)


def test_the_truth_is_that_of_the_dataset(truth):
    data = load_scenes("test", 20, seed=0)
    np.testing.assert_array_equal(truth.presence[:20], truth_matrix(data, truth.concepts))


def test_a_conjunction_is_of_one_object_and_a_formula_of_the_image(scenes, truth):
    of_image = truth.read("red AND star")
    of_object = truth.read("red star")
    assert set(of_image.concepts) == set(of_object.concepts) == {"star", "red"}
    wanted = [any(thing.colour == "red" and thing.shape == "star" for thing in scene.objects) for scene in scenes]
    np.testing.assert_array_equal(of_object.presence, wanted)
    columns = [truth.concepts.index(concept) for concept in ("red", "star")]
    np.testing.assert_array_equal(of_image.presence, truth.presence[:, columns].all(axis=1))
    assert of_object.presence.sum() < of_image.presence.sum()


def test_wordings_mean_their_concept(truth):
    for wording in ("night", "at night", "under the night sky"):
        np.testing.assert_array_equal(truth.read(wording).presence, truth.presence[:, truth.concepts.index("night")])
    assert truth.read("scarlet disc").concepts == ("circle", "red")


def test_labels_of_planted_neurons_are_judged(truth):
    rng = np.random.default_rng(0)
    red_star = truth.read("red star").presence
    night = truth.presence[:, truth.concepts.index("night")]
    activations = np.stack([red_star, red_star, night, night], axis=1) + 0.1 * rng.normal(size=(1500, 4))
    frame = label_accuracy(["scarlet star", "red AND heart", "night sky", "whale"], activations, truth)
    assert frame["right"].tolist() == [True, False, True, False]
    assert frame["best"][0] in ("red", "star") and frame["best"][2] == "night"
    assert "whale" in frame["reason"][3]
