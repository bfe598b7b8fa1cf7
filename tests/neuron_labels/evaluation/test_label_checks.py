"""Labels on real pictures: measures, intervals, sanity tests on these labels, and why some have none."""

import numpy as np
import pytest
from datasets import Dataset

from hf_msae.neuron_labels.evaluation import LabelChecks, SceneTruth, WordTruth, check_labels, known_truth
from hf_msae.scenes.world import CONCEPTS, sample_scene

N = 300


@pytest.fixture(scope="module")
def truth():
    presence = np.zeros((N, 3), dtype=bool)
    presence[:60, 0], presence[30:90, 1], presence[:5, 2] = True, True, True
    return WordTruth(["red", "star", "comet"], presence)


@pytest.fixture(scope="module")
def checks(truth):
    red = truth.presence[:, 0] + np.random.default_rng(0).random(N) / 4
    labels = ["red", "star", "comet", "red giraffe", None, "red"]
    return check_labels(labels, np.stack([red] * 5 + [np.ones(N)], axis=1), truth, num_resamples=20)


def test_a_right_label_has_high_figures_with_intervals_and_a_wrong_one_has_not(checks):
    right, wrong = checks.to_pandas().iloc[[0, 1]].to_dict("records")
    assert (right["auprc"], right["f1"], right["iou"]) == (1, 1, 1) and right["correlation"] > 0.95
    assert wrong["auprc"] < 0.5 and wrong["f1"] == pytest.approx(0.5, abs=0.1)
    assert right["share"] == 60 / N
    rows = checks.frame[checks.frame["measure"] != "auc"]
    assert (rows["low"] <= rows["value"]).all() and (rows["value"] <= rows["high"]).all()
    assert (rows["low"] < rows["high"])[rows["label"] == "star"].all()


def test_sanity_tests_are_of_these_very_labels(checks):
    rows = checks.frame.set_index(["neuron", "measure"])
    assert rows.loc[("neuron 0", "auprc"), "missing"] == pytest.approx(0.5, abs=0.15)
    assert rows.loc["neuron 0"]["drops"].all()
    noticed = checks.to_pandas()["noticed_by"]
    assert noticed[0] == "auprc, correlation, f1, iou, auc" and noticed[2] == ""
    assert checks.sanity.set_index("measure")["num_neurons"].to_dict()["auprc"] == 2


@pytest.mark.parametrize(
    ("neuron", "named"),
    [("neuron 2", "5 of 300"), ("neuron 3", "giraffe"), ("neuron 4", "no label"), ("neuron 5", "same in all")],
)
def test_labels_without_figures_say_why(checks, neuron, named):
    assert named in checks.describe(neuron)
    assert neuron not in set(checks.frame["neuron"])


def test_what_is_said_names_every_measure_and_the_chance_level(checks):
    text = checks.describe("neuron 0")
    for part in ("AUPRC 1.00", "correlation 0.9", "F1 1.00", "IoU 1.00", "60 of which", "0.20"):
        assert part in text
    assert "2 of 6 labels" in checks.verdict()
    none = check_labels([None, "zebra", None], np.zeros((N, 3)), WordTruth(["a"], np.ones((N, 1), bool)))
    assert none.verdict().endswith(f"{none.labels['reason'][0]}, and other reasons") and "zebra" not in none.verdict()


def test_checks_can_be_kept(checks, tmp_path):
    checks.save(tmp_path / "checks.json")
    again = LabelChecks.load(tmp_path / "checks.json")
    assert again.describe("neuron 0") == checks.describe("neuron 0") and again.verdict() == checks.verdict()


def test_broad_labels_have_figures_but_no_test():
    presence = np.arange(N)[:, None] < 0.6 * N
    found = check_labels(["wide"], presence.astype(float), WordTruth(["wide"], presence), num_resamples=5)
    assert LabelChecks.from_dict(found.to_dict()).describe("neuron 0") == found.describe("neuron 0")
    assert found.sanity.empty and found.to_pandas()["auprc"][0] == 1
    assert "half of the images" in found.describe("neuron 0")


def test_truth_is_read_from_tags_columns_and_scenes():
    tags = Dataset.from_dict({"tags": [["dog", "pet"], ["cat", "pet"], None, ["pet"]], "is_old": [True] * 4})
    found = known_truth(tags, [0, 1, 3])  # "pet" is a tag of all of these
    assert found.concepts == ("cat", "dog") and found.presence.tolist() == [[False, True], [True, False], [False] * 2]
    columns = Dataset.from_dict({"red": [True, None, False], "caption": ["a", "b", "c"]})
    assert known_truth(columns).presence.tolist() == [[True], [False], [False]]
    assert known_truth(columns.remove_columns("red")) is None
    assert known_truth(Dataset.from_dict({"tags": [["dog"], ["Dogs"]]})) is None
    scenes = known_truth(columns, [4, 9], "scenes:test:20:3")
    assert isinstance(scenes, SceneTruth)
    assert [scene.concepts for scene in scenes.scenes] == [sample_scene("test", 3, row).concepts for row in (4, 9)]
    assert scenes.concepts == CONCEPTS


def test_other_numbers_of_labels_or_pictures_are_errors(truth):
    with pytest.raises(ValueError, match="2 labels"):
        check_labels(["red", "star"], np.ones((N, 1)), truth)
    with pytest.raises(ValueError, match=str(N)):
        check_labels(["red"], np.ones((N - 1, 1)), truth)
