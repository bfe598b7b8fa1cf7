"""One neuron that fails does not keep others from being labeled."""

import numpy as np
import pytest

from hf_msae.neuron_labels import FunctionNeuron, NeuronLabels, UnitNeuron, label_neuron, label_neurons
from hf_msae.neuron_labels.services import ServiceError
from tests.neuron_labels.color_world import ColorImager, ListProposer, redness


def run(neurons, control, imager=None, **options):
    options = {"iterations": 1, "start": ["blue"], "progress": False, **options}
    return label_neurons(neurons, ListProposer("red"), imager or ColorImager(), control, **options)


def of_size(number):
    """Fails once it is given other pictures than those of the control."""

    def broken(images):
        if len(images) != number:
            raise RuntimeError("out of order")
        return redness(images)

    return broken


def nan_later(images):
    return redness(images) if len(images) > 30 else [np.nan] * len(images)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (lambda images: 1 / 0, "ZeroDivisionError"),
        (of_size(40), "out of order"),
        (nan_later, "nan"),
        (lambda images: ["x"] * len(images), "ValueError"),
        (lambda images: redness(images)[1:], "39"),
    ],
)
def test_a_neuron_that_fails_is_recorded_and_others_go_on(broken, said, red_neuron, noise_pictures, tmp_path):
    broken = FunctionNeuron(broken, "broken")
    found = run([broken, red_neuron], noise_pictures[:40], at_once=2, output_dir=tmp_path)
    assert [label.label for label in found] == ["red"]
    assert list(found.problems) == ["broken"] and said in found.problems["broken"]
    with pytest.raises(ValueError, match="broken"):
        label_neuron(broken, ListProposer("red"), ColorImager(), noise_pictures[:40], start=["blue"], progress=False)


def test_a_neuron_that_failed_is_tried_again(noise_pictures, tmp_path):
    assert run([FunctionNeuron(of_size(40), "one")], noise_pictures[:40], output_dir=tmp_path).problems
    again = run([FunctionNeuron(redness, "one")], noise_pictures[:40], output_dir=tmp_path)
    assert again[0].label == "red" and not again.problems


def test_an_imager_that_fails_or_has_nothing(red_neuron, noise_pictures):
    class Broken(ColorImager):
        def draw(self, concept, seeds):
            raise self.error

    Broken.error = RuntimeError("out of memory")
    assert "out of memory" in run([red_neuron], noise_pictures, Broken()).problems["redness"]
    Broken.error = ServiceError("no such model")
    with pytest.raises(ServiceError, match="no such model"):
        run([red_neuron], noise_pictures, Broken())

    class Counting(ColorImager):
        def most_pictures(self, concept):
            raise OSError("the collection is gone")

    assert "the collection is gone" in run([red_neuron], noise_pictures, Counting()).problems["redness"]
    found = run([red_neuron], noise_pictures, start=["table"], iterations=0)
    assert found[0].label is None and "no label" in found[0].verdict()


def test_labels_that_were_found_before_a_service_failed_are_there(red_neuron, noise_pictures, tmp_path):
    class Exhausted(ColorImager):
        def draw(self, concept, seeds):
            if concept == "pink":
                raise ServiceError("no credit", 402)
            return super().draw(concept, seeds)

    neurons = [red_neuron, FunctionNeuron(redness, "other")]
    options = {"start": lambda neuron: ["pink" if neuron.name == "other" else "blue"], "output_dir": tmp_path}
    with pytest.raises(ServiceError, match="no credit") as caught:
        run(neurons, noise_pictures, Exhausted(), at_once=1, **options)
    assert [label.label for label in caught.value.labels] == ["red"]
    assert [label.neuron for label in NeuronLabels.load(tmp_path / "labels.json")] == ["redness"]


def test_a_start_that_fails_is_recorded(red_neuron, noise_pictures):
    other = FunctionNeuron(redness, "other")

    def start(neuron):
        return {"other": ["blue"]}[neuron.name]

    found = run([red_neuron, other], noise_pictures, start=start)
    assert "KeyError" in found.problems["redness"] and [label.neuron for label in found] == ["other"]


def test_what_is_no_concept_among_starts_is_left_out(red_neuron, noise_pictures):
    others = [FunctionNeuron(redness, name) for name in ("numbers", "number", "none")]
    starts = {"redness": ["2021", "red"], "numbers": ["2021", "50%"], "number": [7], "none": []}
    found = run([red_neuron, *others], noise_pictures, start=lambda neuron: starts[neuron.name], iterations=0)
    assert (found[0].neuron, found[0].label) == ("redness", "red")
    assert "2021" in found.problems["numbers"] and "TypeError" in found.problems["number"]


def test_neurons_of_one_name_are_told_apart(noise_pictures):
    import torch

    def prepare(images):
        return torch.stack([torch.from_numpy(np.asarray(each) / 255.0).mean((0, 1)) for each in images])

    def dead(images):
        return torch.zeros(len(images), 3)

    networks = [torch.nn.Linear(3, 2).double() for _ in range(2)]
    neurons = [
        UnitNeuron(networks[0], 0, prepare),
        UnitNeuron(networks[1], 0, dead),
        UnitNeuron(networks[1], 1, prepare),
    ]
    found = run(neurons, noise_pictures)
    names = [*(label.neuron for label in found), *found.problems]
    assert len(set(names)) == 3 and sorted(names)[0].startswith("unit 0 of Linear [")
    assert found.problems.keys() == {f"unit 0 of Linear [{neurons[1].key[:6]}]"}
