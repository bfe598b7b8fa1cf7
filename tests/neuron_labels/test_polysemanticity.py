"""One concept in many wordings is one meaning; different concepts are several."""

import numpy as np
import pytest
import torch

from hf_msae.backbones import Backbone
from hf_msae.neuron_labels import Control, FunctionNeuron, ScenesImager, UnitNeuron, label_neuron
from hf_msae.neuron_labels.imagers.base import image_sha256
from hf_msae.scenes.parsing import parse_scene
from hf_msae.scenes.renderer import render_scene
from hf_msae.scenes.world import sample_scene
from tests.neuron_labels.color_world import ColorImager, ListProposer


class KnownScenes(ScenesImager):
    """Remembers what it drew, so that a neuron can respond to what is there."""

    def __init__(self, control=0):
        super().__init__()
        self.drawn, self.control = {}, []
        for index in range(control):
            self.control += self.render([sample_scene("test", 3, index)])

    def render(self, scenes):
        pictures = [render_scene(scene) for scene in scenes]
        self.drawn.update(zip(map(image_sha256, pictures), scenes, strict=True))
        return pictures

    def draw(self, concept, seeds):
        return self.render(self.scenes(concept, seeds))

    def neuron(self, *concepts):
        read = list(map(parse_scene, concepts))

        def responds(images):
            scenes = [self.drawn[image_sha256(image)] for image in images]
            return [any(each.holds(scene) for each in read) + scene.index % 10 * 1e-3 for scene in scenes]

        return FunctionNeuron(responds, " or ".join(concepts))


@pytest.mark.slow
def test_planted_neurons_of_the_scenes():
    imager = KnownScenes(control=160)
    control = Control(imager.control, progress=False)
    embed = Backbone.from_pretrained("scenes").image_embeds
    words = ["night", "star", "red star", "star at night", "small star", "blue star", "circle", "beach"]

    def find(neuron, **options):
        options = {"iterations": 0, "start": words, "num_pairs": 0, "progress": False, "confirm_images": 20, **options}
        return label_neuron(neuron, ListProposer(), imager, control, **options)

    many = find(imager.neuron("night", "star"), picture_embeds=embed)
    confirmed = many.meanings[many.meanings["confirmed"]]
    night, star = sorted((set(each.split(", ")) for each in confirmed["concepts"]), key=lambda group: "star" in group)
    assert many.is_polysemantic and "night" in night - star and star >= {"star", "red star", "blue star"}
    one = find(imager.neuron("star"), picture_embeds=embed)
    assert one.confirmed and "star" in one.label and not one.is_polysemantic
    assert set(one.meanings["concepts"].iloc[0].split(", ")) >= {"star", "red star", "small star", "blue star"}


def color(images):
    return np.array([np.asarray(image, dtype=float).mean((0, 1)) for image in images])


class Wordings(ColorImager):
    """Draws "cherry", "tomato" and "lobster" in shades of red, and "sea" and "sky" in shades of blue."""

    def draw(self, concept, seeds):
        shades = {"cherry": "red", "tomato": "red thing", "lobster": "red", "sea": "blue", "sky": "blue"}
        offset = 1000 * sorted(shades).index(concept)
        return super().draw(shades[concept], [seed + offset for seed in seeds])


def apart(texts):
    return np.eye(len(texts), 30)


@pytest.fixture
def gray(noise_pictures):
    return [picture.point(lambda value: 110 + value // 10) for picture in noise_pictures]


def strong_color(images):
    return np.ptp(color(images), axis=1)


def redness(images):
    return color(images)[:, 0] - color(images)[:, 1:].mean(axis=1)


def find(activation, control, *start, **options):
    options = {"iterations": 0, "start": start, "progress": False, "word_embeds": apart, **options}
    return label_neuron(FunctionNeuron(activation), ListProposer(), Wordings(), control, **options)


def test_wordings_that_look_alike_are_one_meaning(gray):
    words = ("cherry", "tomato", "lobster")
    found = find(redness, gray, *words, picture_embeds=color)
    assert found.confirmed and not found.is_polysemantic
    assert set(found.meanings["concepts"].iloc[0].split(", ")) == set(words)
    assert find(redness, gray, *words).is_polysemantic  # a function has no features, and words do not know


def test_features_that_the_neuron_is_read_from_will_do(gray):
    def prepare(images):
        return torch.from_numpy(color(images)).float()

    neuron = UnitNeuron(torch.nn.Identity(), 0, prepare)  # the red channel; all three are its features
    options = {"iterations": 0, "start": ("cherry", "tomato"), "progress": False, "word_embeds": apart}
    found = label_neuron(neuron, ListProposer(), Wordings(), gray, **options)
    assert found.confirmed and found.meanings["concepts"].tolist() in (["cherry, tomato"], ["tomato, cherry"])


def test_concepts_that_look_different_are_several_meanings(gray):
    found = find(strong_color, gray, "cherry", "sea", "tomato", "sky", picture_embeds=color)
    confirmed = found.meanings[found.meanings["confirmed"]]
    assert sorted(sorted(each.split(", ")) for each in confirmed["concepts"]) == [["cherry", "tomato"], ["sea", "sky"]]


def test_fresh_pictures_can_show_that_two_meanings_are_one(gray, monkeypatch):
    monkeypatch.setattr(
        "hf_msae.neuron_labels.finishing.clusters", lambda trials, looks: [[trial] for trial in trials]
    )
    found = find(redness, gray, "cherry", "tomato", picture_embeds=color)
    assert len(found.meanings) == 1 and not found.is_polysemantic


def test_other_features_are_another_run(gray, tmp_path):
    control = Control(gray, progress=False)
    for embed in (color, lambda images: -color(images), color):
        find(redness, control, "cherry", picture_embeds=embed, output_dir=tmp_path)
    assert len(list((tmp_path / "neurons").iterdir())) == 2
    blind = find(redness, control, "cherry", "tomato", picture_embeds=lambda images: color(images)[:, 1:] * 0 + 1)
    assert blind.is_polysemantic  # not with the features of an earlier run


@pytest.mark.parametrize("wrong", [lambda images: [1.0] * len(images), lambda images: color(images)[1:]])
def test_features_that_are_none_are_refused(gray, wrong):
    with pytest.raises(ValueError, match="picture_embeds"):
        find(redness, gray, "cherry", picture_embeds=wrong)
