"""What a run finds in its folder: everything that it needs, and nothing that is another run's."""

import json

import numpy as np
import pytest
from PIL import Image

from hf_msae.backbones.extraction import parts
from hf_msae.neuron_labels import Budget, Control, FunctionNeuron, NeuronLabels, label_neuron, label_neurons
from hf_msae.neuron_labels.search import SearchSettings
from tests.neuron_labels.color_world import ColorImager, ListProposer, redness


def find(neuron, control, folder=None, imager=None, proposer=None, **options):
    options = {"iterations": 1, "start": ["blue"], "progress": False, "output_dir": folder, **options}
    return label_neuron(neuron, proposer or ListProposer("red"), imager or ColorImager(), control, **options)


def test_what_the_budget_left_unconfirmed_is_confirmed_by_the_next_run(noise_pictures, tmp_path):
    def colorful(images):  # both "red" and "green"
        return [float(np.ptp(np.asarray(each, float).mean((0, 1)))) for each in images]

    def apart(texts):
        return np.eye(len(texts))

    neuron, options = FunctionNeuron(colorful), {"start": ["green"], "word_embeds": apart}
    found = find(neuron, noise_pictures, tmp_path / "run", budget=Budget(images=75), **options)
    assert found.confirmed and "images" in found.stopped  # 40 in the search, 20 for the label, not for the other
    assert found.meanings["confirmed"].tolist() == [True, False]
    again = find(neuron, noise_pictures, tmp_path / "run", **options)
    assert again.meanings["confirmed"].tolist() == [True, True] and not again.stopped


def test_pairs_that_the_budget_did_not_allow_are_made_by_the_next_run(red_neuron, noise_pictures, tmp_path):
    class Pairs(ColorImager):
        def draw_pairs(self, concept, seeds):
            return self.draw(concept, seeds), self.draw("blue", seeds)

    found = find(red_neuron, noise_pictures, tmp_path / "run", Pairs(), budget=Budget(images=75))
    assert found.confirmed and found.pairs is None and "images" in found.stopped
    assert find(red_neuron, noise_pictures, tmp_path / "run", Pairs()).pairs["share"] == 1.0


def test_labels_that_were_found_in_time_are_confirmed(red_neuron, noise_pictures, monkeypatch):
    class Slow(ListProposer):
        def propose(self, requests):
            answers = super().propose(requests)
            monkeypatch.setattr("hf_msae.neuron_labels.budget.time.monotonic", lambda: 1e9)
            return answers

    found = find(red_neuron, noise_pictures, proposer=Slow("pink", "white"), start=["red"], budget=Budget(seconds=60))
    assert "60 seconds" in found.stopped and found.label == "red"
    assert found.confirmed and found.meanings["num_images"].tolist() == [20]


def test_a_budget_of_few_calls_is_used_although_several_neurons_ask(red_neuron, noise_pictures):
    def lightness(images):
        return [float(np.asarray(each).mean()) for each in images]

    class Model(ListProposer):
        is_language_model = True

    options = {"iterations": 3, "start": ["blue"], "progress": False, "budget": Budget(calls=3)}
    proposer = Model("red", "white", "green")
    found = label_neurons([red_neuron, lightness], proposer, ColorImager(), noise_pictures, **options)
    assert found.spent["calls"] == 3 and all("3 calls" in label.stopped for label in found.labels)


def test_other_halves_of_the_control_are_another_run(red_neuron, noise_pictures, tmp_path):
    found = [
        find(
            red_neuron, Control(noise_pictures, seed, progress=False), tmp_path / "run", start=["white"], iterations=0
        )
        for seed in (0, 1, 0)
    ]
    assert found[0].search_score == found[2].search_score != found[1].search_score
    assert len(list((tmp_path / "run" / "neurons").iterdir())) == 2


def test_other_word_embeddings_are_another_run(red_neuron, noise_pictures, tmp_path):
    for embed in (lambda texts: np.eye(len(texts), 20), lambda texts: np.eye(len(texts), 20)[::-1]):
        find(red_neuron, noise_pictures, tmp_path / "run", word_embeds=embed)
    assert len(list((tmp_path / "run" / "neurons").iterdir())) == 2


def test_rounding_in_the_last_bits_is_not_another_run(noise_pictures, tmp_path):
    for factor in (1.0, 1 + 1e-7):
        neuron = FunctionNeuron(lambda images, factor=factor: np.array(redness(images)) * factor, "redness")
        found = find(neuron, noise_pictures, tmp_path / "run")
    assert len(list((tmp_path / "run" / "neurons").iterdir())) == 1
    assert found.spent["images"] > 0  # read, not found again: what it cost then


def test_a_folder_that_was_moved_still_has_its_pictures(red_neuron, noise_pictures, tmp_path):
    find(red_neuron, noise_pictures, tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "moved")
    loaded = NeuronLabels.load(tmp_path / "moved" / "labels.json")
    assert find(red_neuron, noise_pictures, tmp_path / "moved").folder == str(tmp_path / "moved") == loaded[0].folder
    for file in (tmp_path / "moved").rglob("*.json"):
        assert str(tmp_path) not in file.read_text()


def test_labels_of_another_format_are_refused_and_found_again(red_neuron, noise_pictures, tmp_path):
    found = find(red_neuron, noise_pictures, tmp_path / "run")
    old = json.loads((tmp_path / "run" / "labels.json").read_text())
    del old["labels"][0]["format"]
    (tmp_path / "old.json").write_text(json.dumps(old))
    with pytest.raises(ValueError, match=r"old.json.* format None"):
        NeuronLabels.load(tmp_path / "old.json")
    (own,) = (tmp_path / "run" / "neurons").iterdir()
    own.write_text(json.dumps(old["labels"][0]))
    assert find(red_neuron, noise_pictures, tmp_path / "run").verdict() == found.verdict()


def test_control_pictures_are_kept_small(red_neuron, noise_pictures, tmp_path):
    control = [picture.resize((400, 200)) for picture in noise_pictures[:20]]
    found = find(red_neuron, control, tmp_path / "run", iterations=0)
    kept = found.pictures[found.pictures["kind"] == "control"]["sha256"]
    sizes = {Image.open(tmp_path / "run" / "images" / name[:2] / f"{name}.png").size for name in kept}
    assert len(kept) == 12 and sizes == {(320, 160)}


def test_two_runs_do_not_write_to_one_folder(red_neuron, noise_pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "_LOCK_SECONDS", 0)
    with parts.only_run(tmp_path / "run"), pytest.raises(ValueError, match="another run"):
        find(red_neuron, noise_pictures, tmp_path / "run")
    assert find(red_neuron, noise_pictures, tmp_path / "run").label == "red"


def test_pictures_of_pairs_are_fresh_even_if_concepts_have_many(red_neuron, noise_pictures):
    class Pairs(ColorImager):
        def draw_pairs(self, concept, seeds):
            self.of_pairs = list(seeds)
            return self.draw("red thing", seeds), self.draw("blue", seeds)

    imager = Pairs()
    find(red_neuron, noise_pictures, imager=imager, images_per_concept=130)
    others = {seed for concept, seeds in imager.calls if concept == "red" for seed in seeds}
    assert len(others) == 540 and not others & set(imager.of_pairs)


@pytest.mark.parametrize("seed", [0, 7, 20261129, 2**32 - 1])
def test_seeds_of_pictures_are_those_that_imagers_take(seed):
    seeds = SearchSettings(seed=seed).seeds(0, 600)
    assert len(set(seeds)) == 600 and 0 <= min(seeds) and max(seeds) < 2**32


@pytest.mark.parametrize(
    ("wrong", "named"), [({"start": "red"}, "'red'"), ({"confirm_images": 3}, "3"), ({"seed": 2**32}, "4294967296")]
)
def test_arguments_that_would_mislead_are_refused(wrong, named, red_neuron, noise_pictures):
    with pytest.raises(ValueError, match=named):
        find(red_neuron, noise_pictures, **wrong)


def test_concepts_to_start_from_are_cleaned(red_neuron, noise_pictures):
    assert find(red_neuron, noise_pictures, start=["A Red thing!"], iterations=0).label == "red thing"
    with pytest.raises(ValueError, match="'12'"):
        find(red_neuron, noise_pictures, start=["12"])


def test_wordings_with_the_same_pictures_are_one_meaning(red_neuron, noise_pictures):
    class Synonyms(ColorImager):
        def draw(self, concept, seeds):
            return super().draw(concept.replace("scarlet", "red"), seeds)

    def apart(texts):
        return np.eye(len(texts))

    found = find(red_neuron, noise_pictures, imager=Synonyms(), start=["scarlet"], word_embeds=apart)
    assert found.meanings["concepts"].tolist() == ["scarlet, red"] and not found.is_polysemantic
