import numpy as np
import pytest

from hf_msae.backbones import Backbone
from hf_msae.concepts import Vocabulary
from hf_msae.neuron_labels import Control, FunctionNeuron, ZeroShotStart, label_neuron
from hf_msae.neuron_labels.control import best_classes
from hf_msae.scenes import load_scenes


@pytest.fixture(scope="module")
def scenes():
    return load_scenes("test", 60, seed=3)


def test_words_that_fit_the_pictures_of_a_neuron_come_first(scenes):
    truth = {picture.tobytes(): night for picture, night in zip(scenes["image"], scenes["night"], strict=True)}
    neuron = FunctionNeuron(lambda images: [float(truth[each.tobytes()]) for each in images], "night")
    control = Control(scenes["image"][:], progress=False)
    start = ZeroShotStart(control, Backbone.from_pretrained("scenes"), Vocabulary.of_scenes(), number=3)
    assert start(neuron)[0] == "night" and len(start(neuron)) == 3


def test_a_whole_dataset_is_no_list_of_control_pictures(scenes):
    with pytest.raises(TypeError, match=r"column of the dataset \(image, caption, circle"):
        Control(scenes)


def test_the_confirming_half_has_no_say(monkeypatch, scenes):
    control = Control(scenes["image"][:], progress=False)
    start = ZeroShotStart(control, Backbone.from_pretrained("scenes"), ["night", "red", "42", "Red"])
    assert start.words == ["night", "red"]
    rng, values = np.random.default_rng(0), {}
    neuron = FunctionNeuron(lambda images: rng.random(len(images)), "noise")
    before = start(neuron)
    poisoned = control.activations(neuron).copy()
    poisoned[control.confirm_rows] = 1e6 * scenes["night"][:][0]
    values[neuron.source] = poisoned
    monkeypatch.setattr(control, "_features", values)
    assert start(neuron) == before


def test_classes_of_control_pictures_are_starts(red_neuron, make_proposer, make_imager):
    drawn = make_imager()
    classes = {name: drawn.draw(name, range(500, 508)) for name in ("red", "green", "blue", "white")}
    assert best_classes(Control(classes, progress=False), red_neuron, 2) == ["red", "white"]
    proposer = make_proposer("green")
    found = label_neuron(red_neuron, proposer, make_imager(), classes, iterations=1, progress=False)
    start = found.history[found.history["origin"] == "start"]["concept"].tolist()
    assert start[:2] == ["red", "white"] and found.label == "red"
    assert len(start) == 9  # five more from the proposer, of which one is "red" again
