"""Hard negatives: the images without the label that show what is nearest to it."""

import numpy as np
import pytest

from hf_msae.neuron_labels.evaluation.cosy import cosy_score
from hf_msae.neuron_labels.evaluation.hard_negatives import (
    hard_negatives_by_concepts,
    hard_negatives_by_nearness,
    nearness_of_concepts,
)

CONCEPTS = ("horse", "zebras", "striped horse", "car")


def _embed(texts):
    axes = {"zebra": (1, 0.1, 0), "zebras": (1, 0.1, 0), "striped horse": (1, 0.2, 0), "horse": (1, 1, 0)}
    return np.array([axes.get(text, (0, 0, 1.0)) for text in texts])


def test_synonyms_and_the_label_itself_are_no_negatives():
    near = nearness_of_concepts("zebra", CONCEPTS, _embed)
    assert near[1] == -1 and near[2] == -1  # the plural, and a synonym by its embedding
    assert near[0] == pytest.approx(1.1 / np.sqrt(2.02)) and near[3] == 0


def test_images_with_the_nearest_concept_come_first_and_never_the_label():
    presence = np.array([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [1, 1, 0, 0], [1, 0, 0, 1]], dtype=bool)
    found = hard_negatives_by_concepts(
        presence[:, 1], presence, CONCEPTS, nearness_of_concepts("zebra", CONCEPTS, _embed)
    )
    assert found.rows.tolist() == [1, 4]  # not the zebras, nor the image of a car alone
    assert found.concepts == ("horse", "horse")
    fewer = hard_negatives_by_concepts(presence[:, 1], presence, CONCEPTS, np.array([0.9, -1, -1, 0.5]), number=1)
    assert fewer.rows.tolist() == [1]


def test_a_neuron_of_horses_is_found_out_by_hard_negatives_alone():
    rng = np.random.default_rng(0)
    is_horse, is_zebra = np.arange(1000) < 50, (np.arange(1000) >= 50) & (np.arange(1000) < 100)
    activations = (is_horse | is_zebra) + 0.1 * rng.normal(size=1000)
    synthetic = 1 + 0.1 * rng.normal(size=40)
    presence = np.stack([is_horse, is_zebra], axis=1)
    hard = hard_negatives_by_concepts(is_zebra, presence, ("horse", "zebra"), np.array([0.7, -1]))
    assert len(hard.rows) == 50
    assert cosy_score(activations[~is_zebra], synthetic).auc > 0.95
    assert hard.score(activations, synthetic).auc < 0.7


def test_scores_of_whole_images_give_negatives_too():
    found = hard_negatives_by_nearness(np.array([True, False, False, False]), np.array([9.0, 1, 3, 2]), number=2)
    assert found.rows.tolist() == [2, 3] and found.nearness.tolist() == [3, 2]


@pytest.mark.parametrize(
    ("has_label", "nearness", "message"),
    [
        (np.ones(3, dtype=bool), np.zeros(3), "every image"),
        (np.zeros(3, dtype=bool), np.zeros(4), r"\(4,\)"),
        (np.zeros(3), np.zeros(3), "float64"),
        (np.zeros(2, dtype=bool), np.array([0, np.nan]), "nan"),
    ],
)
def test_images_that_cannot_be_chosen_from_are_refused(has_label, nearness, message):
    with pytest.raises(ValueError, match=message):
        hard_negatives_by_nearness(has_label, nearness)


def test_nothing_near_is_refused():
    presence = np.array([[True, False], [False, False]])
    with pytest.raises(ValueError, match="near"):
        hard_negatives_by_concepts(np.zeros(2, dtype=bool), presence, ("a", "b"), np.array([-1.0, 0.9]))
    with pytest.raises(ValueError, match="3 concepts"):
        hard_negatives_by_concepts(np.zeros(2, dtype=bool), presence, ("a", "b", "c"), np.zeros(3))
