"""Tasks of scenes: what is planted, and counterfactuals that differ in nothing else."""

import functools

import numpy as np
import pytest

from hf_msae.steering.tasks import TASKS
from hf_msae.steering.tasks.networks import RandomNetwork
from hf_msae.steering.tasks.pictures import paste
from hf_msae.steering.tasks.scenes import scene_pictures

ROWS = 24
KINDS = {
    "background": ("flower", "forest", None),
    "pattern": ("circle", "striped", None),
    "artifact": ("flower", "pasted caption", "caption"),
}


@functools.cache
def _pictures(kind, correlation, num_rows=ROWS, seed=0):
    target, bias, artifact = KINDS[kind]
    return scene_pictures(kind, target, bias, None, num_rows, correlation, seed, artifact, "WORD")


@pytest.fixture(scope="module")
def background():
    return TASKS["scenes_background"](num_rows=120)


@pytest.mark.parametrize("kind", KINDS)
def test_flipped_pictures_are_those_of_the_opposite_bias(kind):
    one, other = _pictures(kind, 1.0), _pictures(kind, -1.0)
    for row in range(ROWS // 2):  # training rows: all that have the bias in one lack it in the other
        assert one.concepts[one.bias][row] != other.concepts[one.bias][row]
        for flipped in (False, True):
            expected = np.asarray(other.picture(row, not flipped))
            np.testing.assert_array_equal(np.asarray(one.picture(row, flipped)), expected)
        assert (np.asarray(one.picture(row)) != np.asarray(one.picture(row, True))).any()
    for name in set(one.concepts) - {one.bias}:
        np.testing.assert_array_equal(one.concepts[name][: ROWS // 2], other.concepts[name][: ROWS // 2])


@pytest.mark.parametrize("kind", KINDS)
def test_counterfactuals_are_features_of_flipped_pictures(kind):
    one, other = (_pictures(kind, correlation).task(RandomNetwork(16)) for correlation in (1.0, -1.0))
    np.testing.assert_allclose(one.counterfactuals[one.train], other.features[one.train], atol=1e-6)
    np.testing.assert_allclose(one.features[one.train], other.counterfactuals[one.train], atol=1e-6)


def test_counterfactual_without_the_artifact_is_the_picture_with_it():
    pictures = _pictures("artifact", 0.9)
    row = int(np.flatnonzero(~pictures.concepts[pictures.bias])[0])
    with_it = paste(pictures.picture(row), "caption", "WORD")
    np.testing.assert_array_equal(np.asarray(pictures.picture(row, flipped=True)), np.asarray(with_it))
    features = pictures.task(RandomNetwork(16)).counterfactuals[row]
    np.testing.assert_allclose(features, RandomNetwork(16).features([with_it])[0], atol=1e-6)


def test_label_and_bias_are_correlated_in_training_alone():
    pictures = _pictures("background", 0.9, num_rows=400)
    for part, expected in (("train", 0.9), ("test", 0)):
        rows = pictures.split == part
        found = np.corrcoef(pictures.target[rows], pictures.concepts["forest"][rows])[0, 1]
        assert found == pytest.approx(expected, abs=0.01)


def test_no_scene_is_in_both_splits():
    pictures = _pictures("background", 0.9)
    train, test = (set(pictures.sources[pictures.split == part]) for part in ("train", "test"))
    assert train and test and not train & test
    assert {source.split("/")[0] for source in test} == {"test"}


def test_bias_matters_to_the_head(background):
    from sklearn.linear_model import LogisticRegression

    task = background
    head = LogisticRegression(max_iter=2000).fit(task.features[task.train], task.target[task.train])
    right = head.predict(task.features[task.test]) == task.target[task.test]
    aligned = task.concepts[task.bias][task.test] == task.target[task.test]
    assert right[aligned].mean() > 0.9
    assert right[~aligned].mean() < right[aligned].mean() - 0.1
    flipped = head.predict(task.counterfactuals[task.test]) == task.target[task.test]
    assert flipped[~aligned].mean() > right[~aligned].mean() + 0.1


def test_task_says_what_it_is_made_of(background):
    assert background.name == "scenes_background"
    assert background.backbone == "hf_msae/scenes-siglip"
    assert background.provenance["hook_point"] == "image_embeds"
    assert background.provenance["base_model_weights_sha256"]
    assert len(background.concepts) >= 9
    assert background.features.dtype == np.float32


def test_random_features_do_not_need_a_backbone():
    task = TASKS["random_features"](num_rows=16, width=8)
    assert task.features.shape == task.counterfactuals.shape == (16, 8)
    assert (task.features >= 0).all()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"num_rows": 4}, "num_rows.*4"),
        ({"num_rows": 40.5}, "num_rows.*40.5"),
        ({"seed": -1}, "seed.*-1"),
        ({"correlation": 1.5}, "correlation.*1.5"),
        ({"target": "snow"}, "snow.*forest"),
        ({"target": "unicorn"}, "unicorn"),
        ({"target": "left"}, "left"),
        ({"concepts": ["red", "snow"]}, "snow.*background"),
        ({"concepts": ["unicorn"]}, "unicorn"),
        ({"concepts": ["flower"]}, "flower"),
        ({"background": "unicorn"}, "unicorn"),
    ],
)
def test_bad_settings_are_named(settings, named):
    with pytest.raises(ValueError, match=named):
        TASKS["random_features"](**{"num_rows": 16, **settings})


def test_unknown_artifacts_and_hook_points_are_named():
    with pytest.raises(ValueError, match="sticker"):
        TASKS["scenes_artifact"](num_rows=16, artifact="sticker")
    with pytest.raises(ValueError, match=r"vision\.layers\.9"):
        TASKS["scenes_pattern"](num_rows=16, hook_point="vision.layers.9")
