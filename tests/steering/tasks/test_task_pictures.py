"""Which rows have the bias, and features that are kept on disk."""

import numpy as np
import pytest
from PIL import Image

from hf_msae.steering.tasks import TASKS, register_task
from hf_msae.steering.tasks.networks import BackboneNetwork, RandomNetwork
from hf_msae.steering.tasks.pictures import ARTIFACTS, assign_bias, paste
from hf_msae.steering.tasks.scenes import scene_pictures

TARGET = np.arange(800) % 2
SPLIT = np.where(np.arange(800) < 400, "train", "test")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_MSAE_CACHE", str(tmp_path))
    return tmp_path / "steering"


@pytest.mark.parametrize("correlation", [0.9, 0.5, 0.0, -0.6, 1.0])
def test_bias_has_the_correlation_in_training_and_none_in_the_test(correlation):
    biased = assign_bias(TARGET, SPLIT, correlation, np.random.default_rng(0))
    found = {part: np.corrcoef(biased[part == SPLIT], TARGET[part == SPLIT])[0, 1] for part in ("train", "test")}
    assert found["train"] == pytest.approx(correlation, abs=1e-9)
    assert found["test"] == pytest.approx(0, abs=1e-9)


def test_bias_depends_on_the_seed_alone():
    first, again, other = (assign_bias(TARGET, SPLIT, 0.9, np.random.default_rng(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_features_are_kept(cache, monkeypatch):
    pictures = scene_pictures("flowers/kept", "flower", "forest", None, 12, 0.9, 0)
    first = pictures.task(RandomNetwork(8))
    assert len(list(cache.iterdir())) == 1 and first.name == "flowers/kept"
    monkeypatch.setattr(RandomNetwork, "features", None)  # would fail if it were called
    again = pictures.task(RandomNetwork(8))
    np.testing.assert_array_equal(first.features, again.features)
    np.testing.assert_array_equal(first.counterfactuals, again.counterfactuals)


def test_other_settings_and_networks_are_kept_apart(cache):
    for seed, correlation in ((0, 0.9), (1, 0.9), (0, 0.5)):
        scene_pictures("kept", "flower", "forest", None, 12, correlation, seed).task(RandomNetwork(8))
    pictures = scene_pictures("kept", "flower", "forest", None, 12, 0.9, 0)
    pictures.task(RandomNetwork(8, seed=1))
    pictures.task(RandomNetwork(9))
    assert len(list(cache.iterdir())) == 5


def test_damaged_features_are_computed_again(cache):
    pictures = scene_pictures("kept", "flower", "forest", None, 12, 0.9, 0)
    first = pictures.task(RandomNetwork(8))
    (file,) = cache.iterdir()
    file.write_bytes(b"nothing of use")
    np.testing.assert_array_equal(first.features, pictures.task(RandomNetwork(8)).features)
    np.testing.assert_array_equal(first.features, pictures.task(RandomNetwork(8)).features)


@pytest.mark.parametrize("kind", ARTIFACTS)
def test_artifact_changes_a_part_of_the_picture(kind):
    picture = Image.new("RGB", (96, 96), (90, 140, 40))
    with_it = paste(picture, kind, "word")
    changed = (np.asarray(with_it) != np.asarray(picture)).any(axis=2)
    assert 0.02 < changed.mean() < 0.5
    assert with_it.mode == "RGB" and with_it.size == picture.size
    assert picture.getcolors() == [(96 * 96, (90, 140, 40))]  # the picture itself is left alone


def test_unknown_artifact_and_missing_word_are_named():
    picture = Image.new("RGB", (96, 96))
    with pytest.raises(ValueError, match="sticker"):
        paste(picture, "sticker")
    with pytest.raises(ValueError, match="caption"):
        paste(picture, "caption")


def test_tokens_of_a_block_are_averaged(backbones):
    picture = Image.effect_mandelbrot((32, 32), (-2, -1.5, 1, 1.5), 20).convert("RGB")
    for name, backbone in backbones.items():
        network = BackboneNetwork(backbone, "vision.layers.0")
        (found,) = network.features([picture])
        tokens, grid = (
            backbone.read("vision.layers.0", [picture])[0],
            (backbone.read_patches("vision.layers.0", picture)),
        )
        expected = grid[0] if backbone._family.pads_patches else tokens
        np.testing.assert_allclose(found, expected.mean(0).numpy(), rtol=1e-4, atol=1e-5, err_msg=name)


def test_hook_point_of_texts_is_refused():
    with pytest.raises(ValueError, match="text_embeds"):
        BackboneNetwork("scenes", "text_embeds")


def test_name_of_a_task_is_unique():
    assert TASKS["scenes_background"].__name__ == "scenes_background"
    with pytest.raises(ValueError, match="gaussian"):
        register_task("gaussian")(lambda: None)
