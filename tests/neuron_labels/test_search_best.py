"""Which concept becomes the label, and which pictures decide."""

import numpy as np
import pytest

from hf_msae.neuron_labels import Control
from hf_msae.neuron_labels.search import Search, SearchSettings, Trial
from hf_msae.neuron_labels.words import KnownConcepts


def best_of(*trials):
    search = Search(None, None, np.linspace(0, 1, 50), SearchSettings(), KnownConcepts())
    for concept, number, score in trials:
        activations = np.linspace(score, score + 0.1, number)
        search.trials.append(Trial(0, "start", concept, [str(i) for i in range(number)], activations, score))
    return search.best().concept


def test_a_label_needs_pictures():
    assert best_of(("red star", 2, 1.0), ("star", 20, 0.9)) == "star"
    assert best_of(("red star", 2, 1.0), ("star", 3, 0.9)) == "star"  # none has more, and the simpler one is as good
    assert best_of(("red star", 20, 0.95), ("star", 5, 0.9)) == "red star"  # too few to say that it is as good
    assert best_of(("red star", 20, 0.95), ("star", 10, 0.94)) == "star"


@pytest.mark.parametrize("seed", range(3))
def test_a_picture_of_several_classes_is_in_one_half(noise_pictures, seed):
    one, two = noise_pictures[:30], [each.copy() for each in noise_pictures[20:50]]
    control = Control({"one": one, "two": two}, seed, progress=False)
    assert len(control) == 50 and not set(control.search_rows) & set(control.confirm_rows)
    assert len(control.search_rows) + len(control.confirm_rows) == 50
    for name, rows in control.classes.items():
        assert len(rows) == 30 and len(control.search_classes[name]) == 15
    assert np.asarray(control.picture(control.classes["two"][0])).tobytes() == two[0].tobytes()
