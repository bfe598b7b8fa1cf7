import numpy as np
import pytest

from hf_msae.neuron_labels import Control, FunctionNeuron, label_neuron
from tests.neuron_labels.color_world import COLORS, ColorImager


@pytest.fixture
def classes():
    drawn = ColorImager()
    return {name: drawn.draw(name, range(500, 506)) for name in COLORS if name != "red"}


def embed(texts):
    return np.random.default_rng(0).normal(size=(len(texts), 8))


def find(neuron, proposer, imager, control, **options):
    settings = {"paper": True, "word_embeds": embed, "progress": False, "iterations": 4, **options}
    return label_neuron(neuron, proposer, imager, control, **settings)


def test_it_starts_with_the_best_classes_and_random_ones(red_neuron, make_proposer, colors, classes):
    found = find(red_neuron, make_proposer("red", "white"), colors, classes, iterations=2)
    start = found.history[found.history["origin"] == "start"]["concept"].tolist()
    assert len(start) == 10
    assert start[:2] == ["red thing", "orange"] and set(start[:5]) == set(COLORS) - {"red", "blue", "green"} | {
        "green"
    }


def test_every_concept_is_scored_once_with_the_same_seeds(red_neuron, make_proposer, colors, classes):
    found = find(red_neuron, make_proposer("red", "white"), colors, classes, iterations=2)
    scored = found.history[found.history["score"].notna()]
    assert (scored["num_images"] == 5).all() and (scored["first_score"] == scored["score"]).all()
    assert {seeds for _, seeds in colors.calls[:3]} == {(0, 1, 2, 3, 4)}


def test_the_proposer_sees_each_concept_once_and_what_is_forbidden(red_neuron, make_proposer, colors, classes):
    proposer = make_proposer("red", "white", "green", "blue")
    find(red_neuron, proposer, colors, classes)
    *asked, merging = proposer.requests
    seen = [[concept for concept, _ in request.scores] for request in asked]
    assert [len(set(concepts)) for concepts in seen] == [len(concepts) for concepts in seen]
    assert len(seen[0]) == 5  # of ten at the start, those that were drawn again count once
    assert "red" in asked[1].avoid and "red" not in asked[0].avoid
    assert merging.merge and len(merging.scores) == 3


def test_the_label_is_the_best_of_the_history(red_neuron, make_proposer, colors, classes):
    found = find(red_neuron, make_proposer("red"), colors, classes, metric="mean", iterations=1)
    scores = found.history.set_index("concept")["score"]
    assert scores[found.label].max() == scores.max() and found.label in ("red", "red thing")
    assert found.settings["paper"] is True


def test_a_concept_may_be_the_name_of_a_class(red_neuron, make_proposer, colors, classes):
    def rounded_up(texts):  # cosines of 1 + 1e-9
        return np.array([[1.0, 1e-5, 1e-5]] + [[1.0, 0.5, 0.1]] * (len(texts) - 1))

    assert find(red_neuron, make_proposer("red"), colors, classes, iterations=1, word_embeds=rounded_up).label


def test_the_same_seed_gives_the_same_history(red_neuron, make_proposer, classes):
    runs = [
        find(red_neuron, make_proposer("red", "pink", "white"), ColorImager(), classes, seed=seed).history
        for seed in (3, 3, 4)
    ]
    assert runs[0].equals(runs[1]) and not runs[0].equals(runs[2])


def test_control_pictures_that_confirm_have_no_say(make_proposer, classes):
    control = Control(classes, progress=False)
    for name, rows in control.classes.items():
        assert len(control.search_classes[name]) == 3 == len(np.intersect1d(rows, control.confirm_rows))
    confirming = {np.asarray(control.picture(row)).tobytes() for row in control.confirm_rows}

    def poisoned(images):
        return [1e6 if np.asarray(each).tobytes() in confirming else each.getpixel((0, 0))[0] for each in images]

    def clean(images):
        return [each.getpixel((0, 0))[0] for each in images]

    found = [
        find(FunctionNeuron(each, "first pixel"), make_proposer("red"), ColorImager(), control)
        for each in (clean, poisoned)
    ]
    assert found[0].history.equals(found[1].history)
