import numpy as np
import pytest
from PIL import Image

from hf_msae.neuron_labels import CannotDrawError, TagsImager, label_neuron
from hf_msae.neuron_labels.budget import Meter
from hf_msae.neuron_labels.gallery import Gallery
from tests.neuron_labels.color_world import ColorImager


class Placeholders(ColorImager):
    """Gives the same picture for every seed from a certain one on, as services that hold pictures back do."""

    def __init__(self, first):
        super().__init__()
        self.first = first

    def draw(self, concept, seeds):
        drawn = super().draw(concept, seeds)
        same = Image.new("RGB", (8, 8), "red")
        return [each if seed < self.first else same for seed, each in zip(seeds, drawn, strict=True)]


@pytest.mark.parametrize("first", [2, 6])
def test_the_same_picture_for_different_seeds_is_no_evidence(first, tmp_path):
    gallery = Gallery(Placeholders(first), Meter(), tmp_path)
    if first > 3:
        assert len(gallery.draw("red", [0, 1, 2])) == 3
    gallery.draw("red", [first])
    with pytest.raises(CannotDrawError, match="'red'"):
        gallery.draw("red", [first, first + 1])
    again = Gallery(Placeholders(first), Meter(), tmp_path)
    assert again.draw("red", [first]) == gallery.draw("red", [first])  # what was made before is still there
    with pytest.raises(CannotDrawError, match="'red'"):
        again.draw("red", [first + 2])
    assert again.meter.spent.images == 0


def test_other_pictures_with_the_same_tags_are_not_those_of_the_folder(tmp_path):
    for side in (8, 9):
        pictures = [Image.new("RGB", (side, side), color) for color in ("red", "blue", "green")]
        gallery = Gallery(TagsImager(pictures, [["dot"]] * 3), Meter(), tmp_path)
        assert {gallery.picture(name).width for name in gallery.draw("dot", range(3))} == {side}


def test_pictures_of_a_run_with_another_seed_are_drawn_again(tmp_path):
    colors = [Image.new("RGB", (8, 8), (shade, 0, 0)) for shade in range(10)]
    imager = TagsImager(colors, [["dot"]] * len(colors))
    first = Gallery(imager, Meter(), tmp_path).draw("dot", range(6))
    other = Gallery(imager, Meter(), tmp_path)
    assert other.draw("dot", range(1000, 1006)) == first  # a collection goes round and round
    assert set(other.draw("dot", range(1006, 1010))).isdisjoint(first)
    with pytest.raises(CannotDrawError, match="'dot'"):
        other.draw("dot", [1010])  # the first of this run again
    assert len(Gallery(imager, Meter(), tmp_path).draw("dot", range(1000, 1006))) == 6


def test_a_concept_that_is_refused_later_keeps_its_first_pictures(
    red_neuron, make_proposer, make_imager, noise_pictures, tmp_path
):
    class Refusing(make_imager):
        def draw(self, concept, seeds):
            if concept == "red" and min(seeds) >= 10:
                raise CannotDrawError("the service refuses it")
            return super().draw(concept, seeds)

    options = {"iterations": 2, "start": ["blue"], "progress": False}
    found, again = (
        label_neuron(
            red_neuron, make_proposer("red", "green"), Refusing(), noise_pictures, output_dir=folder, **options
        )
        for folder in (tmp_path / "run", None)
    )
    row = found.history.set_index("concept").loc["red"]
    assert (row["num_images"], row["score"], row["problem"]) == (10, 1.0, "the service refuses it")
    assert found.label == "red" and np.isnan(found.score) and "refuses" in found.verdict()
    assert again.history.equals(found.history)


def test_pictures_in_memory_are_limited_by_their_size(tmp_path, monkeypatch):
    monkeypatch.setattr("hf_msae.neuron_labels.gallery._MOST_PICTURE_BYTES", 3 * 8 * 8 * 4)
    gallery = Gallery(ColorImager(), Meter(), tmp_path)
    names = gallery.draw("red", range(10))
    assert list(gallery._pictures) == names[-4:]
    assert gallery.picture(names[0]).size == (8, 8) and list(gallery._pictures)[-1] == names[0]
    assert len(gallery._pictures) == 4
