"""Pictures that confirm a label are none that the search scored, under whatever concept."""

import numpy as np
import pytest

from hf_msae.neuron_labels import Budget, Control, FunctionNeuron, TagsImager, label_neuron
from tests.neuron_labels.color_world import ColorImager, ListProposer


def apart(texts):
    return np.eye(len(texts))


@pytest.fixture
def confirmations(monkeypatch):
    """What `confirm` returns in the runs of a test."""
    from hf_msae.neuron_labels import finishing

    found, confirm = [], finishing.confirm
    monkeypatch.setattr(finishing, "confirm", lambda *args: found.append(confirm(*args)) or found[-1])
    return found


def tagged(number, **options):
    """Pictures that all show two concepts."""
    return TagsImager(ColorImager().draw("red", range(number)), [["red", "dot"]] * number, **options)


def find(neuron, imager, control, **options):
    options = {"start": ["red", "dot"], "iterations": 0, "word_embeds": apart, "progress": False, **options}
    return label_neuron(neuron, ListProposer(), imager, control, **options)


def scored(found):
    return {name for names in found.history["images"] for name in names}


@pytest.mark.parametrize("number", [60, 40])
def test_pictures_that_the_search_scored_under_another_concept_are_not_fresh(
    number, red_neuron, noise_pictures, confirmations, tmp_path
):
    found = find(red_neuron, tagged(number), noise_pictures, output_dir=tmp_path / "run")
    (fresh,) = confirmations
    assert scored(found).isdisjoint(fresh.images)
    # Of 40, there are fewer than 20 left, and all of these are used.
    assert len(scored(found)) > 20 and len(fresh.images) == min(20, number - len(scored(found)))
    assert found.meanings["num_images"].tolist() == [len(fresh.images)] and found.confirmed
    next((tmp_path / "run" / "neurons").iterdir()).unlink()
    again = find(red_neuron, tagged(number), noise_pictures, output_dir=tmp_path / "run")
    assert confirmations[1].images == fresh.images and again.history.equals(found.history)


def test_too_few_pictures_that_the_search_did_not_score_confirm_nothing(red_neuron, noise_pictures, confirmations):
    found = find(red_neuron, tagged(12), noise_pictures)
    left = 12 - len(scored(found))
    assert left < 5 and not found.confirmed and f" {left} pictures" in confirmations[0].problem


def test_what_a_budget_keeps_from_replacing_seen_pictures_is_done_by_the_next_run(
    red_neuron, noise_pictures, confirmations, tmp_path
):
    found = find(red_neuron, tagged(60), noise_pictures, output_dir=tmp_path / "run", budget=Budget(images=60))
    assert 5 <= found.meanings["num_images"].iloc[0] < 20 and "60 images" in found.stopped
    again = find(red_neuron, tagged(60), noise_pictures, output_dir=tmp_path / "run")
    assert again.meanings["num_images"].tolist() == [20] and not again.stopped


def test_a_budget_that_is_too_small_says_what_a_label_takes(red_neuron, noise_pictures):
    with pytest.raises(ValueError, match=r"10 images .* 25 "):
        find(red_neuron, tagged(60), noise_pictures, budget=Budget(images=10))


@pytest.mark.parametrize("shared", [True, False])
def test_an_imager_that_draws_control_pictures_is_warned_of(shared, red_neuron, noise_pictures, caplog):
    imager = tagged(60)
    pictures = [*noise_pictures, *imager.images[:60]] if shared else noise_pictures
    find(red_neuron, imager, Control(pictures, progress=False))
    warned = [record.getMessage() for record in caplog.records if "control" in record.getMessage()]
    assert len(warned) == shared
    if shared:
        number = warned[0].split(" of the ")
        assert number[0] == number[1].split()[0]  # all that were drawn


def test_copies_of_control_pictures_are_warned_of_once(red_neuron, noise_pictures, caplog):
    Control(noise_pictures, progress=False).activations(red_neuron)
    assert not caplog.records
    control = Control([*noise_pictures, *noise_pictures[:7]], progress=False)
    control.activations(red_neuron), control.activations(FunctionNeuron(lambda images: range(len(images)), "other"))
    (warned,) = [record.getMessage() for record in caplog.records]
    assert warned.startswith(f"7 of the {len(noise_pictures) + 7} control pictures are copies of others")
