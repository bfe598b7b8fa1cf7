import json
from dataclasses import replace

import numpy as np
import pytest

from hf_msae.neuron_labels import (
    Budget,
    CannotDrawError,
    FunctionNeuron,
    NeuronLabel,
    NeuronLabels,
    label_neuron,
    label_neurons,
)

WORDS = ("green", "red", "white", "table")


def find(neuron, proposer, imager, control, **options):
    return label_neuron(neuron, proposer, imager, control, **{"start": ["blue"], "progress": False, **options})


def test_a_neuron_gets_the_concept_that_activates_it(red_neuron, make_proposer, colors, noise_pictures):
    found = find(red_neuron, make_proposer(*WORDS), colors, noise_pictures, iterations=4)
    assert found.label == "red"
    assert found.score == 1.0 and found.low > 0.9 and found.high == 1.0 and found.p_value < 1e-6
    assert found.interval == (found.low, found.high)
    assert found.confirmed and not found.is_polysemantic
    assert found.verdict().startswith("redness: red (auc 1.00")


def test_the_history_says_what_happened_to_every_concept(red_neuron, make_proposer, colors, noise_pictures):
    found = find(red_neuron, make_proposer(*WORDS, "Greens"), colors, noise_pictures, iterations=5)
    rows = found.history.set_index("concept")
    # Where a concept cannot be drawn or is known, another one is asked for.
    assert list(found.history["iteration"]) == [0, 1, 2, 3, 4, 4, 5, 5, 6]
    assert list(found.history["origin"]) == ["start", *["proposal"] * 7, "merge"]
    assert rows.loc["red", "score"] == 1.0 and rows.loc["red", "accepted"]
    assert "table" in rows.loc["table", "problem"] and not rows.loc["table", "accepted"]
    assert "green" in rows.loc["Greens", "problem"] and np.isnan(rows.loc["Greens", "score"])
    assert len(rows.loc["red", "images"]) == rows.loc["red", "num_images"] == 20


def test_labels_are_confirmed_on_pictures_that_the_search_did_not_make(
    red_neuron, make_proposer, colors, noise_pictures
):
    find(red_neuron, make_proposer("red"), colors, noise_pictures, iterations=1, confirm_images=7)
    seeds = [seed for concept, drawn in colors.calls if concept == "red" for seed in drawn]
    assert len(seeds) == len(set(seeds)) == 27
    assert colors.calls[-1] == ("red", tuple(range(20, 27)))


def test_another_seed_makes_other_pictures(red_neuron, make_proposer, make_imager, noise_pictures):
    one, other = make_imager(), make_imager()
    find(red_neuron, make_proposer("red"), one, noise_pictures, iterations=1, seed=1)
    find(red_neuron, make_proposer("red"), other, noise_pictures, iterations=1, seed=2)
    drawn = [{seed for _, seeds in each.calls for seed in seeds} for each in (one, other)]
    assert not drawn[0] & drawn[1]


def test_a_seed_is_a_number(red_neuron, make_proposer, colors, noise_pictures):
    with pytest.raises(ValueError, match="seed must be an integer of at least 0, got None"):
        find(red_neuron, make_proposer("red"), colors, noise_pictures, seed=None)


def test_where_pictures_are_few_half_of_them_confirm(red_neuron, make_proposer, make_imager, noise_pictures):
    imager = make_imager(most=20)
    found = find(red_neuron, make_proposer("red"), imager, noise_pictures, iterations=1)
    assert found.history.set_index("concept").loc["red", "num_images"] == 10
    assert list(found.meanings["num_images"]) == [10]
    few = find(red_neuron, make_proposer("red"), make_imager(most=8), noise_pictures, iterations=1)
    assert few.label == "red" and np.isnan(few.score) and not few.confirmed
    assert "3 pictures" in few.verdict()


def test_unrelated_concepts_are_meanings_of_their_own(make_proposer, colors, noise_pictures):
    def far_from_gray(images):
        return [float(np.abs(np.asarray(each, float) - np.asarray(each, float).mean()).mean()) for each in images]

    def apart(texts):
        return np.eye(3)[[["green", "blue"].index(text) if text in ("green", "blue") else 2 for text in texts]]

    neuron = FunctionNeuron(lambda images: [-abs(x - 80) for x in far_from_gray(images)], "two colors")
    control = [picture.point(lambda value: 120 + value // 20) for picture in noise_pictures]
    found = find(neuron, make_proposer("green"), colors, control, iterations=1, word_embeds=apart)
    assert set(found.meanings["meaning"]) == {"green", "blue"}
    assert found.meanings["confirmed"].all() and found.is_polysemantic
    assert found.to_pandas()["other_meanings"].iloc[0] in ("green", "blue")


def test_the_label_is_taken_out_of_pictures_where_the_imager_can(
    red_neuron, make_proposer, make_imager, noise_pictures
):
    class Pairs(make_imager):
        def draw_pairs(self, concept, seeds):
            return self.draw(concept, seeds), self.draw("blue", seeds)

    options = {"iterations": 1, "num_pairs": 6}
    found = find(red_neuron, make_proposer("red"), Pairs(), noise_pictures, **options)
    assert found.pairs["share"] == 1.0 and found.pairs["num_pairs"] == 6
    assert found.pairs["p_value"] == pytest.approx(1 / 64)
    assert "100% of 6 pairs" in found.verdict() and found.to_pandas()["share_of_pairs"].iloc[0] == 1.0
    assert find(red_neuron, make_proposer("red"), make_imager(), noise_pictures, **options).pairs is None


def test_hard_negatives_are_half_of_what_a_concept_is_compared_with(
    red_neuron, make_proposer, make_imager, noise_pictures
):
    class NearMisses(make_imager):
        def draw_pairs(self, concept, seeds):
            if concept == "white":
                raise CannotDrawError("no pairs of white")
            return self.draw(concept, seeds), self.draw("red thing", [seed + 1 for seed in seeds])

    options = {"iterations": 1, "start": ["pink", "white"], "num_pairs": 0}
    plain, hard = (
        find(red_neuron, make_proposer("red"), NearMisses(), noise_pictures, hard_negatives=number, **options)
        for number in (0, 6)
    )
    before, after = (each.history.set_index("concept")["score"] for each in (plain, hard))
    assert before["pink"] == 1.0 and after["pink"] == 0.5  # "red thing" activates it more than "pink" does
    assert after["white"] == before["white"]
    assert hard.settings["hard_negatives"] == 6


def test_results_survive_json(red_neuron, make_proposer, colors, noise_pictures, tmp_path):
    found = label_neurons(
        [red_neuron], make_proposer(*WORDS), colors, noise_pictures, iterations=4, start=["blue"], progress=False,
        output_dir=tmp_path / "run",
    )  # fmt: skip
    loaded = NeuronLabels.load(tmp_path / "run" / "labels.json")
    assert loaded.verdict() == found.verdict() and loaded[0].interval == found[0].interval
    assert loaded[0].history["images"].tolist() == found[0].history["images"].tolist()
    assert loaded[0].meanings.equals(found[0].meanings)
    assert "spent" in json.loads((tmp_path / "run" / "labels.json").read_text())
    without = find(red_neuron, make_proposer("table"), colors, noise_pictures, iterations=1, start=[])
    assert without.label is None and np.isnan(without.score)  # a label without figures
    without.save(tmp_path / "label.json")
    assert NeuronLabel.load(tmp_path / "label.json").verdict() == without.verdict()


def test_an_interrupted_run_asks_and_draws_only_what_is_missing(
    red_neuron, make_proposer, make_imager, noise_pictures, tmp_path
):
    class Killed(make_imager):
        def draw(self, concept, seeds):
            if concept == "white":
                raise KeyboardInterrupt
            return super().draw(concept, seeds)

    options = {"iterations": 4, "output_dir": tmp_path / "run"}
    with pytest.raises(KeyboardInterrupt):
        find(red_neuron, make_proposer(*WORDS), Killed(), noise_pictures, **options)
    imager, proposer = make_imager(), make_proposer(*WORDS)
    found = find(red_neuron, proposer, imager, noise_pictures, **options)
    assert {concept for concept, _ in imager.calls} == {"white", "table", "red"}
    assert all(min(seeds) >= 5 for concept, seeds in imager.calls if concept == "red")
    assert len(proposer.requests) == 3  # "table", another one instead, and the merge
    whole = find(red_neuron, make_proposer(*WORDS), make_imager(), noise_pictures, iterations=4)
    assert found.history.equals(whole.history) and found.interval == whole.interval


def test_a_finished_neuron_is_not_searched_again(red_neuron, make_proposer, make_imager, noise_pictures, tmp_path):
    options = {"iterations": 2, "output_dir": tmp_path / "run"}
    first = find(red_neuron, make_proposer(*WORDS), make_imager(), noise_pictures, **options)
    again, imager = make_proposer(*WORDS), make_imager()
    assert find(red_neuron, again, imager, noise_pictures, **options).verdict() == first.verdict()
    assert not again.requests and not imager.calls
    other = find(red_neuron, again, imager, noise_pictures, **{**options, "images_per_concept": 4})
    assert other.history.set_index("concept").loc["red", "num_images"] == 16


def test_neurons_share_pictures_and_answers(make_proposer, colors, noise_pictures, red_neuron):
    green = FunctionNeuron(lambda images: [float(np.asarray(each)[..., 1].mean()) for each in images], "greenness")
    options = {"iterations": 3, "start": ["blue"], "progress": False}
    found = label_neurons([red_neuron, green], make_proposer(*WORDS), colors, noise_pictures, **options)
    assert [label.label for label in found.labels] == ["red", "white"]
    assert len(found) == 2 and list(found.to_pandas()["neuron"]) == ["redness", "greenness"]
    drawn = [(concept, seed) for concept, seeds in colors.calls for seed in seeds if concept != "table"]
    assert len(drawn) == len(set(drawn)) == found.spent["images"]


@pytest.mark.parametrize("budget", [{"images": 60}, {"calls": 2}, {"tokens": 150}])
def test_a_spent_budget_ends_the_run_in_order(budget, red_neuron, make_proposer, colors, noise_pictures, tmp_path):
    proposer = make_proposer(*WORDS, tokens=100)
    proposer.is_language_model = True
    options = {"iterations": 4, "output_dir": tmp_path / "run"}
    found = find(red_neuron, proposer, colors, noise_pictures, budget=Budget(**budget), **options)
    (name, limit), *_ = budget.items()
    assert name in found.stopped
    assert found.spent[name] <= (limit if name != "tokens" else 200)
    assert found.guess is not None and np.isfinite(found.score)  # enough was kept back to confirm it
    more = find(red_neuron, make_proposer(*WORDS, tokens=100), colors, noise_pictures, **options)
    assert more.label == "red" and not more.stopped


def test_neurons_that_are_not_begun_are_listed(red_neuron, make_proposer, colors, noise_pictures):
    other = FunctionNeuron(lambda images: [float(np.asarray(each).mean()) for each in images], "lightness")
    options = {"iterations": 2, "start": ["blue"], "progress": False, "at_once": 1, "budget": Budget(images=50)}
    found = label_neurons([red_neuron, other], make_proposer("red"), colors, noise_pictures, **options)
    assert [label.neuron for label in found.labels] == ["redness"]
    assert "images" in found.problems["lightness"]


def test_a_dead_neuron_is_an_error_and_does_not_stop_others(red_neuron, make_proposer, colors, noise_pictures):
    dead = FunctionNeuron(lambda images: np.zeros(len(images)), "dead one")
    with pytest.raises(ValueError, match="dead one"):
        find(dead, make_proposer("red"), colors, noise_pictures)
    options = {"iterations": 2, "start": ["blue"], "progress": False}
    found = label_neurons([dead, red_neuron], make_proposer("red"), colors, noise_pictures, **options)
    assert list(found.problems) == ["dead one"] and found[0].label == "red"


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"metric": "auroc"}, "auroc"),
        ({"iterations": -1}, "iterations"),
        ({"images_per_concept": 0}, "images_per_concept"),
        ({"seed": True}, "seed"),
        ({"at_once": -2}, "at_once"),
        ({"hard_negatives": -1}, "hard_negatives"),
        ({"hard_negatives": 5, "paper": True}, "hard_negatives"),
        ({"paper": True}, "paper"),
    ],
)
def test_wrong_arguments_are_named(wrong, named, red_neuron, make_proposer, colors, noise_pictures):
    with pytest.raises(ValueError, match=named):
        find(red_neuron, make_proposer("red"), colors, noise_pictures, **wrong)
    assert not colors.calls


def test_neurons_with_one_name_and_too_few_control_pictures_are_refused(
    red_neuron, make_proposer, colors, noise_pictures
):
    with pytest.raises(ValueError, match="twice"):
        label_neurons([red_neuron, red_neuron], make_proposer("red"), colors, noise_pictures, progress=False)
    with pytest.raises(ValueError, match="3 control"):
        find(red_neuron, make_proposer("red"), colors, noise_pictures[:3])
    with pytest.raises(ValueError, match="no neuron"):
        label_neurons([], make_proposer("red"), colors, noise_pictures)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_activations_have_to_be_finite(value, make_proposer, colors, noise_pictures):
    broken = FunctionNeuron(lambda images: [value] + [1.0] * (len(images) - 1), "broken")
    with pytest.raises(ValueError, match="broken"):
        find(broken, make_proposer("red"), colors, noise_pictures)


def test_the_figure_shows_the_best_pictures(red_neuron, make_proposer, colors, noise_pictures, tmp_path):
    found = find(red_neuron, make_proposer(*WORDS), colors, noise_pictures, iterations=4, output_dir=tmp_path / "run")
    kinds = found.pictures.groupby("kind", sort=False)["activation"].apply(list)
    assert kinds["made"] == sorted(kinds["made"], reverse=True) and len(kinds["control"]) == 12
    assert found.control["max"] == pytest.approx(kinds["control"][0])
    figure = found.plot()
    pictures = [axes for axes in figure.axes if axes.images]
    assert len(pictures) == 12
    (course,) = [axes for axes in figure.axes if axes.get_ylabel()]
    starts = (found.history["origin"][found.history["score"].notna()] == "start").sum()
    at = {text.get_text().strip(): text.get_position()[0] for text in course.texts}
    assert at["start"] == at["proposed"] == starts - 0.5
    few = found.pictures.groupby("kind").head(1)
    long = replace(found, neuron="a neuron with a long name " * 4, pictures=few, folder=str(tmp_path / "run"))
    title = long.plot().get_suptitle()
    assert title.replace("\n", " ") == long.verdict() and max(map(len, title.split("\n"))) <= 76
    with pytest.raises(ValueError, match="output_dir"):
        replace(found, folder=None).plot()
