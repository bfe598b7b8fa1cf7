"""Labels of neurons that many control pictures activate: a perfect one is confirmed, and chance is not."""

import numpy as np
import pytest
from PIL import Image

from hf_msae.concepts import ConceptTable
from hf_msae.neuron_labels import FunctionNeuron, Imager, NeuronLabel, NeuronLabels, label_neuron
from hf_msae.neuron_labels.scoring import activation_rate, p_value, reach, score, score_interval
from tests.neuron_labels.color_world import ListProposer


def picture(has, random):
    return Image.fromarray(np.array([[[255 * has, *random.integers(0, 256, 2)]] * 2], dtype=np.uint8))


class Dots(Imager):
    """Pictures in which red says whether a concept is there; green and blue are noise."""

    def __init__(self, rate):
        self.rate = rate

    @property
    def settings(self):
        return {"imager": "dots"}

    def draw(self, concept, seeds):
        randoms = [np.random.default_rng([seed, len(concept)]) for seed in seeds]
        hits = {"target": 1.0, "related": self.rate + (1 - self.rate) / 4, "unrelated": self.rate}[concept]
        return [picture(random.random() < hits, random) for random in randoms]


def concept_neuron(images):
    values = np.array([each.getpixel((0, 0)) for each in images], dtype=float)
    return values[:, 0] / 255 + 0.1 * values[:, 1] / 255


def noise_neuron(images):
    return [each.getpixel((0, 0))[1] for each in images]


def find(neuron, *start, rate, seed=0, **options):
    random = np.random.default_rng([seed, 9])
    control = [picture(random.random() < rate, random) for _ in range(200)]
    options = {"seed": seed, "iterations": 0, "start": start, "progress": False, **options}
    return label_neuron(FunctionNeuron(neuron, "planted"), ListProposer(), Dots(rate), control, **options)


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.6])
def test_the_concept_of_a_neuron_is_confirmed_however_frequent_it_is(rate):
    found = find(concept_neuron, "unrelated", "target", rate=rate, iterations=1)
    assert (found.label, found.confirmed) == ("target", True)
    own = found.meanings.iloc[0]
    assert own["limit"] == pytest.approx(0.5 + 0.3 * (1 - rate), abs=0.06)
    assert own["auc"] == pytest.approx(1 - rate / 2, abs=0.06)  # all that a perfect concept can reach
    assert own["num_images"] == pytest.approx(20 / (1 - rate), rel=0.3)


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.6])
def test_what_the_neuron_does_not_respond_to_is_not_confirmed(rate):
    for seed in range(2):
        for wrong in ("unrelated", "related"):
            assert not find(concept_neuron, wrong, rate=rate, seed=seed).confirmed


def test_noise_is_never_confirmed():
    assert not any(find(noise_neuron, "target", "related", rate=0.3, seed=seed).confirmed for seed in range(3))
    random = np.random.default_rng(0)
    kinds = (random.normal, random.random, random.exponential, lambda size: (random.random(size) < 0.8) * 1.0)
    for draw in kinds:
        for _ in range(25):
            searched, fresh, control = draw(size=20), draw(size=20), draw(size=150)
            rate = activation_rate(control, searched)
            low, limit = reach(score("auc", fresh, control), rate, 20, 150)
            assert low < limit or p_value(fresh, control) > 0.05


def test_intervals_of_differences_know_that_control_pictures_vary():
    control = np.random.default_rng(0).normal(size=12)
    low, high = score_interval("mad", np.full(20, 3.0), control)
    assert low < score("mad", np.full(20, 3.0), control) < high and high - low > 0.5
    assert score_interval("mad", np.full(20, 3.0), np.zeros(12)) == (0.0, 0.0)


def test_the_rate_needs_two_kinds_of_control_pictures():
    random = np.random.default_rng(0)
    has = random.random(400) < 0.3
    assert activation_rate(random.normal(size=400), random.normal(1, 1, 20)) == 0
    assert activation_rate(has + 0.0, np.ones(20)) == pytest.approx(has.mean())
    two_kinds = has * 4 + random.normal(0, 0.3, 400)
    assert activation_rate(two_kinds, random.normal(4, 0.3, 200)) == pytest.approx(has.mean(), abs=0.03)
    assert activation_rate(two_kinds, np.full(20, 9.0)) == 0  # what activates it more has no equal in the control
    assert reach(1.0, 0.0, 20, 100) == (pytest.approx(0.9406, abs=1e-4), 0.8)


def test_a_label_at_chance_is_none(tmp_path):
    found = find(noise_neuron, "target", rate=0.3, output_dir=tmp_path)
    assert found.p_value > 0.05
    assert (found.label, found.guess, found.confirmed) == (None, "target", False)
    assert "no label" in found.verdict() and "chance" in found.verdict()
    table = ConceptTable.from_columns(["red", None], [0.5, 0.1], ["blue", None], [0.4, 0.0])
    at_chance = NeuronLabel.from_dict(found.to_dict() | {"latent": 1})
    row = NeuronLabels((at_chance,), {}).add_to(table)[1].iloc[0]
    assert row[["line_label", "line_score", "line_low", "line_confirmed", "line_meanings"]].isna().all()
    assert (
        NeuronLabels((found,), {}).verdict().startswith("0 of 1 neurons")
        and "0 a guess" in NeuronLabels((found,), {}).verdict()
    )


def test_a_label_above_chance_that_is_not_confirmed_is_a_guess():
    found = find(concept_neuron, "related", rate=0.05, confirm_images=60)
    assert (found.label, found.confirmed) == ("related", False) and found.p_value < 0.05
    assert found.verdict().startswith("planted: a guess, related (auc") and "not confirmed" in found.verdict()
