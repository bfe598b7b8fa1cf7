import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

from hf_msae.clipart import load_clipart
from hf_msae.neuron_labels.imagers.base import CannotDrawError, image_sha256
from hf_msae.neuron_labels.imagers.collection import TagsImager
from hf_msae.neuron_labels.imagers.composition import CompositionImager, cut_out

pytestmark = pytest.mark.slow


def disc(color):
    image = Image.new("RGB", (40, 40), "white")
    ImageDraw.Draw(image).ellipse((8, 8, 32, 32), fill=color)
    return image


@pytest.fixture(scope="module")
def imager():
    """Red discs with a tag, and blue ones without it."""
    images = [disc((200 + row, 0, 0)) for row in range(6)] + [disc((0, 0, 200 + row)) for row in range(6)]
    return CompositionImager(TagsImager(images, [["red"]] * 6 + [["blue"]] * 6), size=80)


def reds(picture):
    values = np.asarray(picture, int)
    return int(((values[..., 0] > 180) & (values[..., 1] < 40) & (values[..., 2] < 40)).sum())


def blues(picture):
    values = np.asarray(picture, int)
    return int(((values[..., 2] > 180) & (values[..., 1] < 40) & (values[..., 0] < 40)).sum())


def test_pairs_differ_in_the_drawing_alone(imager):
    shown, without = imager.draw_pairs("red", range(6))
    for with_it, without_it in zip(shown, without, strict=True):
        assert with_it.size == without_it.size == (80, 80)
        assert reds(with_it) > 400 and reds(without_it) == 0
        assert blues(without_it) > 100  # the other drawing is in both
        changed = (np.asarray(with_it, int) != np.asarray(without_it, int)).any(axis=2)
        # What changes is the drawing and its edge.
        assert reds(with_it) <= changed.sum() <= 1.5 * reds(with_it) + 100


def test_the_other_drawing_is_none_that_is_excluded():
    images = [disc((200, 0, 0)), *(disc((0, 0, 200 + row)) for row in range(3)), disc((0, 200, 0))]
    tags = [["red"], *[["blue"]] * 3, ["green"]]
    excluded = [1, images[2], image_sha256(images[3])]
    imager = CompositionImager(TagsImager(images, tags, exclude=excluded), size=80, per_drawing=12)
    _, without = imager.draw_pairs("red", range(12))
    assert not any(map(blues, without))
    _, without = CompositionImager(TagsImager(images[:4], tags[:4], exclude=excluded), size=80).draw_pairs("red", [0])
    assert not blues(without[0]), "there is no other"


def test_draws_the_pictures_of_the_pairs(imager):
    shown, _ = imager.draw_pairs("red", [3, 1])
    assert [image_sha256(each) for each in imager.draw("red", [3, 1])] == [image_sha256(each) for each in shown]
    assert image_sha256(imager.draw("red", [1])[0]) == image_sha256(shown[1])


def test_places_sizes_and_backgrounds_vary(imager):
    pictures = CompositionImager(imager.drawings, size=80, per_drawing=4).draw("red", range(24))
    areas = [reds(picture) for picture in pictures]
    assert max(areas) > 1.5 * min(areas)
    centers = [np.argwhere(np.asarray(picture, int)[..., 0] - np.asarray(picture, int)[..., 1] > 150).mean(axis=0)
               for picture in pictures]  # fmt: skip
    assert np.std(centers, axis=0).min() > 5
    assert len({picture.getpixel((40, 2)) for picture in pictures}) > 15


def test_a_drawing_serves_for_as_many_pictures_as_allowed(imager):
    assert imager.most_pictures("red") == 6
    with pytest.raises(CannotDrawError, match="6 pictures of 'red'"):
        imager.draw("red", range(7))
    more = CompositionImager(imager.drawings, size=80, per_drawing=2)
    assert more.most_pictures("red") == 12
    assert len({image_sha256(picture) for picture in more.draw("red", range(12))}) == 12


def test_a_concept_without_drawings_is_named(imager):
    assert imager.most_pictures("hovercraft") == 0
    with pytest.raises(CannotDrawError, match="hovercraft"):
        imager.draw_pairs("hovercraft", [0])


def test_white_background_stays_white(imager):
    white = CompositionImager(imager.drawings, size=80, background="white")
    _, without = white.draw_pairs("red", range(6))
    for picture in without:
        assert (np.asarray(picture) == 255).all(axis=2).mean() > 0.6


def test_cuts_out_what_is_drawn_and_keeps_white_inside():
    image = disc("black")
    ImageDraw.Draw(image).ellipse((16, 16, 24, 24), fill="white")
    alpha = np.asarray(cut_out(image))[..., 3]
    assert alpha.shape == (42, 42)
    assert alpha[0].max() == 0 and alpha[4, 4] == 0
    assert alpha[21, 21] == 255 and alpha[21, 12] == 255
    assert np.asarray(cut_out(Image.new("RGB", (9, 9), "white")))[3:-3, 3:-3, 3].min() == 255  # nothing to cut out
    assert np.asarray(cut_out(Image.new("RGB", (9, 9), "navy")))[3:-3, 3:-3, 3].min() == 255


def test_clip_art_can_be_composed():
    drawings = load_clipart("sample")
    imager = CompositionImager(TagsImager(drawings["image"], drawings["tags"]))
    shown, without = imager.draw_pairs("flag", range(10))
    differing = [
        (np.asarray(one) != np.asarray(other)).any(axis=2).mean() for one, other in zip(shown, without, strict=True)
    ]
    assert 0.02 < min(differing) and max(differing) < 0.6


def test_settings_hold_those_of_the_drawings(imager):
    settings = json.loads(json.dumps(imager.settings))
    assert settings["drawings"] == imager.drawings.settings
    others = [{"size": 64}, {"per_drawing": 2}, {"background": "white"}, {"seed": 1}]
    different = [CompositionImager(imager.drawings, **options).settings for options in ({}, *others)]
    assert len({json.dumps(each) for each in different}) == 5


@pytest.mark.parametrize(
    ("options", "named"), [({"size": 3}, "3"), ({"per_drawing": 0}, "0"), ({"background": "red"}, "red")]
)
def test_refuses_options_out_of_range(imager, options, named):
    with pytest.raises(ValueError, match=named):
        CompositionImager(imager.drawings, **options)
