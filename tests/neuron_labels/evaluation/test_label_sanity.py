"""The two sanity tests: verdicts and drops as published (arXiv 2506.05774) on planted neurons."""

import numpy as np
import pytest

from hf_msae.neuron_labels.evaluation.measures import MEASURES, Measure
from hf_msae.neuron_labels.evaluation.sanity import extra_labels, label_sanity, missing_labels, sanity_tests

N = 50_000


def _perfect(share, neurons=3):
    """Neurons that are active exactly where their rare label is true, as in the paper's theoretical test."""
    labels = np.zeros((N, neurons), dtype=bool)
    for neuron in range(neurons):
        labels[neuron : neuron + round(share * N), neuron] = True
    return labels.astype(float), labels


@pytest.fixture(scope="module")
def rare():
    return sanity_tests(*_perfect(0.001), seed=1, repeats=4).set_index("measure")


def test_the_verdicts_on_rare_labels_are_those_of_the_paper(rare):
    assert rare["passes"].to_dict() == rare["published"].to_dict()
    assert set(rare.index[rare["passes"]]) == {"auprc", "correlation", "f1", "iou", "cosine"}


@pytest.mark.parametrize(
    ("measure", "missing", "extra"),
    [  # the paper's own results for a perfect neuron that is active in one of 1,000 inputs
        ("recall", 0.4992, 0.0),
        ("precision", 0.0, 0.5001),
        ("f1", 0.3337, 0.3331),
        ("iou", 0.4999, 0.4994),
        ("auc", 0.0002, 0.2497),
        ("correlation", 0.1470, 0.1466),
        ("cosine", 0.1466, 0.1465),
        ("auprc", 0.4997, 0.4985),
    ],
)
def test_drops_are_those_of_the_paper(rare, measure, missing, extra):
    assert rare.loc[measure, "missing_drop"] == pytest.approx(missing, abs=0.06)
    assert rare.loc[measure, "extra_drop"] == pytest.approx(extra, abs=0.06)


def test_failures_are_one_sided(rare):
    assert rare.loc["recall", ["missing_share", "extra_share"]].tolist() == [1, 0]
    for measure in ("auc", "mean_difference", "precision"):
        assert rare.loc[measure, ["missing_share", "extra_share"]].tolist() == [0, 1]


def test_auc_passes_where_labels_are_frequent():
    """Why the verdict is about the labels as well as about the measure."""
    frame = sanity_tests(*_perfect(0.1), measures=["auc", "auprc"])
    assert frame["passes"].all()


def test_noisy_neurons_get_the_same_verdicts():
    rng = np.random.default_rng(0)
    _, labels = _perfect(0.001, neurons=4)
    activations = np.maximum(rng.normal(size=labels.shape) + 6 * labels, 0)
    frame = sanity_tests(activations, labels, seed=2).set_index("measure")
    assert frame["passes"].to_dict() == frame["published"].to_dict()


def test_perturbations_halve_and_double_the_label():
    rng = np.random.default_rng(0)
    labels = rng.random((N, 1)) < 0.1
    fewer, more = missing_labels(labels, rng), extra_labels(labels, rng)
    assert not (fewer.astype(bool) & ~labels).any() and not (labels & ~more.astype(bool)).any()
    assert fewer.sum() / labels.sum() == pytest.approx(0.5, abs=0.03)
    assert more.sum() / labels.sum() == pytest.approx(2, abs=0.06)
    assert np.isnan(extra_labels(np.ones((4, 1), dtype=bool), rng)).all()


def test_labels_that_cannot_be_tested_are_left_out():
    activations, labels = _perfect(0.001, neurons=4)
    labels[:, 1], labels[: N // 2, 2], activations[:, 3] = False, True, 1.0
    frame = sanity_tests(activations, labels, measures=["auprc"])
    assert frame["num_neurons"].tolist() == [1]
    with pytest.raises(ValueError, match="none of 3 neurons"):
        sanity_tests(activations[:, 1:], labels[:, 1:], measures=["auprc"])


def test_a_measure_of_ones_own_is_tested_too():
    constant = Measure("always", lambda a, c: np.ones((a.shape[1], c.shape[1])))
    frame = sanity_tests(*_perfect(0.01), measures=[constant, "iou"])
    assert frame["passes"].tolist() == [False, True]
    assert frame["published"].tolist() == [None, True]


def test_results_depend_on_the_seed_alone():
    activations, labels = _perfect(0.001)
    first, same, other = (sanity_tests(activations, labels, ["iou"], seed=seed) for seed in (3, 3, 4))
    assert first.equals(same) and not first.equals(other)


def test_one_label_shows_which_of_its_figures_say_something():
    activations, labels = _perfect(0.001, neurons=1)
    frame = label_sanity(activations[:, 0], labels[:, 0], repeats=4).set_index("measure")
    assert frame["drops"].to_dict() == {name: measure.published for name, measure in MEASURES.items()}
    assert frame["value"].tolist() == pytest.approx([1] * len(MEASURES))
    assert (frame["reason"] == "").all()
    assert frame.loc["iou", "missing"] == pytest.approx(0.5, abs=0.1)
    frequent = label_sanity(np.arange(10.0), np.arange(10) >= 4, ["iou"])
    assert "half" in frequent["reason"][0] and not frequent["drops"][0]
    none = label_sanity(np.arange(10.0), np.zeros(10), ["iou"])
    assert np.isnan(none["value"][0]) and "no image" in none["reason"][0]
