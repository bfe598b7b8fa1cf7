"""Labels where truth is known: what they mean, whether they are right, and whether they name the best concept."""

import numpy as np
import pytest

from hf_msae.neuron_labels.evaluation.accuracy import best_concepts, label_accuracy, outside_vocabulary
from hf_msae.neuron_labels.evaluation.hard_negatives import nearness_of_concepts
from hf_msae.neuron_labels.evaluation.truth import WordTruth

CONCEPTS = ("red", "circle", "fire truck", "truck", "bus")
N = 600


@pytest.fixture(scope="module")
def truth():
    presence = np.random.default_rng(0).random((N, len(CONCEPTS))) < [0.3, 0.3, 0.2, 0.2, 0.005]
    return WordTruth(CONCEPTS, presence, {"red": ["scarlet"], "circle": ["round shape"]})


@pytest.mark.parametrize(
    ("label", "concepts", "unknown"),
    [
        ("red", ("red",), ()),
        ("Scarlet circles", ("red", "circle"), ()),
        ("a round shape", ("circle",), ()),
        ("fire trucks", ("fire truck",), ()),
        ("red truck on fire", ("red", "truck"), ("fire",)),
        ("picture of a shiny circle", ("circle",), ("shiny",)),
        ("red AND fire truck", ("red", "fire truck"), ()),
        ("a bus", ("bus",), ()),
    ],
)
def test_labels_are_read_by_their_words(truth, label, concepts, unknown):
    found = truth.read(label)
    assert (found.concepts, found.unknown, found.problem) == (concepts, unknown, "")
    columns = [CONCEPTS.index(concept) for concept in concepts]
    np.testing.assert_array_equal(found.presence, truth.presence[:, columns].all(axis=1))


def test_formulas_are_true_where_logic_says(truth):
    red, circle, fire_truck = truth.presence[:, :3].T
    np.testing.assert_array_equal(truth.read("NOT (red OR circle)").presence, ~(red | circle))
    np.testing.assert_array_equal(truth.read("red AND NOT fire trucks").presence, red & ~fire_truck)


@pytest.mark.parametrize("label", [None, "whale", "red AND whale", "of a", "", "x" * 100, "red\0", "red AND"])
def test_labels_that_mean_nothing_here_have_no_presence_but_a_problem(truth, label):
    found = truth.read(label)
    assert found.presence is None and found.problem


def test_labels_are_judged(truth):
    rng = np.random.default_rng(1)
    red, circle, _, truck, _ = truth.presence.T
    both = red & circle
    planted = np.stack([red, both, both, truck, truck, red, np.zeros(N)], axis=1)
    activations = planted + 0.1 * rng.normal(size=planted.shape)
    activations[:, 6] = 0
    labels = ["red", "red circle", "red", "circle", "shiny truck", None, "red"]
    frame = label_accuracy(labels, activations, truth)
    assert frame["right"].tolist() == [True, True, False, False, False, False, False]
    assert frame["best"].tolist() == ["red", *frame["best"][1:3], "truck", "truck", "red", None]
    assert frame["best"][1] in ("red", "circle") and frame["best"][1] == frame["best"][2]
    assert frame["is_best"].tolist() == [True, False, frame["best"][2] == "red", False, False, False, False]
    assert frame["names_best"].tolist()[:2] == [True, True] and not frame["names_best"][3]
    assert frame["unknown"].tolist() == ["", "", "", "", "shiny", "", ""]
    assert frame.loc[4, "auroc"] > 0.99  # its known part is right, but nobody checked whether trucks were shiny
    assert frame["reason"].map(bool).tolist() == [False] * 5 + [True, True]
    assert frame.loc[5:, "auroc"].isna().all()
    assert (frame["auroc_low"] <= frame["auroc"])[:5].all() and (frame["auroc"] <= frame["auroc_high"])[:5].all()
    assert frame.loc[1, "share"] == both.mean() and frame.loc[1, "auprc"] > 0.99


def test_the_threshold_decides_what_is_right(truth):
    activations = truth.presence[:, [0]] + np.random.default_rng(2).normal(size=(N, 1))
    area = label_accuracy(["red"], activations, truth)["auroc"][0]
    for threshold, right in ((area - 0.01, True), (area + 0.01, False)):
        assert label_accuracy(["red"], activations, truth, threshold)["right"][0] == right


def test_concepts_of_a_few_images_are_nobodys_best(truth):
    bus = truth.presence[:, [4]]
    assert 0 < bus.sum() < 10
    names, areas = best_concepts(bus + 0.0, truth)
    assert names[0] != "bus" and areas[0] < 0.9


def test_tags_of_images_are_truth():
    tags = [("dog", "animal"), ("dog",), ("cat", "animal"), ()] * 10
    truth = WordTruth.from_tags(tags, least=10)
    assert truth.concepts == ("animal", "cat", "dog")
    assert truth.presence[:4].tolist() == [[1, 0, 1], [0, 0, 1], [1, 1, 0], [0, 0, 0]]
    with pytest.raises(ValueError, match="25 of 40"):
        WordTruth.from_tags(tags, least=25)


def test_spellings_of_a_tag_are_one_concept():
    tags = [["Cat"], ["cat", "cats"], ["cat"], ["cats!"], ["dog", "2021"], ["Dogs"], ["dog"], []]
    truth = WordTruth.from_tags(tags, least=3, wordings={"Cat": ["kitten"]})
    assert truth.concepts == ("cat", "dog")
    for label in ("cat", "Cats", "kitten"):
        assert truth.read(label).presence.tolist() == [True] * 4 + [False] * 4
    assert truth.read("dogs").presence.tolist() == [False] * 4 + [True] * 3 + [False]


def test_tags_that_are_no_concepts_do_no_harm():
    odd = ["2021", "50%", "\U0001f600", "x" * 61, "a b c d e f g h i j"]
    presence = np.zeros((20, 6), dtype=bool)
    presence[:5], presence[3:9, 0] = [[True]], True
    truth = WordTruth(["dog", *odd], presence)
    assert truth.read("dogs").presence.sum() == 9
    assert truth.read("dog in 2021").concepts == ("dog", "2021") and truth.read("2021").presence is None
    assert outside_vocabulary(["dog", "bird"], ["dog", *odd]).tolist() == [False, True]
    near = nearness_of_concepts("Dogs", ["dog", *odd], lambda texts: np.eye(len(texts)))
    assert near.tolist() == [-1, 0, 0, 0, 0, 0]


def test_labels_outside_the_vocabulary_are_counted():
    labels = ["Dogs", "cat", "zebra crossing", None]
    assert outside_vocabulary(labels, ["dog", "cats"]).tolist() == [False, False, True, False]

    def embed(texts):
        return np.array([[1.0, 0] if text in ("kitten", "cat") else [0, 1.0 + len(text)] for text in texts])

    assert outside_vocabulary(["kitten", "boat"], ["cat"], embed).tolist() == [False, True]


def test_what_does_not_fit_is_refused(truth):
    with pytest.raises(ValueError, match="600 images and 2 labels"):
        label_accuracy(["red", "red"], np.zeros((N, 1)), truth)
    with pytest.raises(ValueError, match="'auroc'"):
        label_accuracy(["red"], np.zeros((N, 1)), truth, measures=["auroc"])
    with pytest.raises(ValueError, match="'whale'"):
        WordTruth(CONCEPTS, truth.presence, {"whale": ["orca"]})
    with pytest.raises(ValueError, match="int64"):
        WordTruth(("a",), np.zeros((3, 1), dtype=int))
