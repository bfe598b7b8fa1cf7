"""load_scenes: a data set whose columns tell the truth about its pictures."""

import numpy as np
import pytest
from PIL import Image

from hf_msae.scenes import CONCEPTS, load_scenes, loading, render_array, sample_scene


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))


def test_columns_and_content():
    data = load_scenes("test", 12, seed=5)
    assert data.column_names == ["image", "caption", *CONCEPTS]
    for i, row in enumerate(data):
        scene = sample_scene("test", 5, i)
        assert isinstance(row["image"], Image.Image)
        assert np.array_equal(np.asarray(row["image"]), render_array(scene))
        assert {concept for concept in CONCEPTS if row[concept]} == scene.concepts


def test_a_shorter_data_set_is_a_prefix_and_processes_do_not_matter(monkeypatch):
    whole = load_scenes("train", 11)
    monkeypatch.setattr(loading, "_SHARD", 5)
    assert load_scenes("train", 11, seed=0, num_proc=2)["caption"][:] == whole["caption"][:]
    assert load_scenes("train", 7)["caption"][:] == whole["caption"][:7]


def test_correlations_reach_the_data():
    data = load_scenes("train", 80, correlations={("beach", "frame"): 1.0})
    beach, frame = np.array(data["beach"]), np.array(data["frame"])
    assert beach.sum() > 2 and frame[beach].all() and not frame[~beach].all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "dev", "n": 3}, "'dev'.*train, validation, test"),
        ({"split": "train", "n": 0}, "n must be .*0"),
        ({"split": "train", "n": 3, "seed": -1}, "seed .*-1"),
        ({"split": "train", "n": 3, "correlations": {("red", "blue"): 0.1}}, "'colour'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        load_scenes(**arguments)
