"""Images of every kind are read alike, and those that cannot be read are named."""

import struct

import datasets  # noqa: F401  (first, so that its import time is nobody's test)
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from hf_msae._utils.images import to_rgb
from tests.tiny_backbones import pictures


def test_images_of_every_kind_are_embedded_like_their_rgb_form(clip, tmp_path):
    grey = Image.fromarray(np.linspace(0, 255, 20 * 24).reshape(20, 24).astype(np.uint8))
    pictures()[0].save(tmp_path / "a.png")
    kinds = [pictures()[0], tmp_path / "a.png", str(tmp_path / "a.png"), np.asarray(pictures()[0])]
    embeddings = clip.image_embeds([*kinds, grey, np.asarray(grey)])
    for row in embeddings[1:4]:
        torch.testing.assert_close(row, embeddings[0])
    torch.testing.assert_close(embeddings[5], embeddings[4])
    assert clip.image_embeds(tmp_path / "a.png").shape == (1, 24)


def test_the_rule_by_which_images_become_rgb(tmp_path):
    grey = np.linspace(0, 255, 256).round().astype(np.uint8).reshape(16, 16)
    as_rgb = np.repeat(grey[..., None], 3, axis=2)
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    assert deep.mode == "I;16"
    for image in (Image.fromarray(grey), deep, Image.fromarray(grey.astype(np.int32) * 257), grey[..., None]):
        np.testing.assert_array_equal(np.asarray(to_rgb(image)), as_rgb)

    colour = pictures(1)[0]
    # What lies under transparency is arbitrary and must not be seen: white is.
    hidden = colour.copy()
    hidden.putalpha(Image.new("L", colour.size, 0))
    np.testing.assert_array_equal(np.asarray(to_rgb(hidden)), 255)
    np.testing.assert_array_equal(np.asarray(to_rgb(np.asarray(hidden))), 255)
    half = Image.new("RGBA", (2, 2), (255, 0, 0, 128))
    assert to_rgb(half).getpixel((0, 0)) == (255, 127, 127)
    assert to_rgb(Image.new("LA", (2, 2), (0, 0))).getpixel((0, 0)) == (255, 255, 255)
    assert to_rgb(Image.new("RGBA", (2, 2), (255, 0, 0, 0)).convert("RGBa")).getpixel((0, 0)) == (255, 255, 255)

    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putdata([0, 1])
    assert np.asarray(to_rgb(palette)).tolist() == [[[10, 20, 30], [200, 100, 50]]]
    palette.save(tmp_path / "transparent.png", transparency=1)
    assert np.asarray(to_rgb(tmp_path / "transparent.png")).tolist() == [[[10, 20, 30], [255, 255, 255]]]
    Image.new("RGB", (2, 2), (1, 2, 3)).save(tmp_path / "keyed.png", transparency=(1, 2, 3))
    assert to_rgb(tmp_path / "keyed.png").getpixel((0, 0)) == (255, 255, 255)

    assert to_rgb(Image.new("CMYK", (2, 2), (0, 255, 255, 0))).getpixel((0, 0)) == (255, 0, 0)
    assert to_rgb(Image.new("1", (2, 2), 1)).getpixel((0, 0)) == (255, 255, 255)

    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees
    colour.save(tmp_path / "turned.png", exif=exif)
    turned = np.asarray(to_rgb(tmp_path / "turned.png"))
    np.testing.assert_array_equal(turned, np.rot90(np.asarray(colour), -1))
    np.testing.assert_array_equal(np.asarray(to_rgb(colour)), np.asarray(colour))


def exif_with(tag, kind, value):
    """EXIF data with orientation 6 and another entry of a type that Pillow reads, but cannot write."""
    entries = [(0x0112, 3, struct.pack("<HH", 6, 0)), (tag, kind, value)]
    body = b"".join(struct.pack("<HHI", tag, kind, 1) + value for tag, kind, value in entries)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + body + struct.pack("<I", 0) + struct.pack("<ii", -5, 1)


@pytest.mark.parametrize("odd", [(0x0100, 8, struct.pack("<hh", -5, 0)), (0x011A, 10, struct.pack("<I", 38))])
def test_odd_entries_of_exif_do_not_matter(clip, tmp_path, odd):
    """A width stored as a signed number, a resolution as a negative fraction: the orientation is applied."""
    picture = pictures(1)[0]
    picture.save(tmp_path / "odd.jpg", exif=exif_with(*odd), quality=95)
    with Image.open(tmp_path / "odd.jpg") as plain:
        expected = np.rot90(np.asarray(plain), -1)
        with pytest.raises(struct.error):
            ImageOps.exif_transpose(plain)
    turned = to_rgb(tmp_path / "odd.jpg")
    np.testing.assert_array_equal(np.asarray(turned), expected)
    np.testing.assert_array_equal(np.asarray(to_rgb(turned)), expected)  # only once
    assert torch.equal(clip.image_embeds(tmp_path / "odd.jpg"), clip.image_embeds(Image.fromarray(expected)))


def test_an_orientation_that_cannot_be_read_is_ignored_with_a_warning(tmp_path, caplog):
    picture = pictures(1)[0]
    picture.save(tmp_path / "odd.png", exif=b"Exif\0\0no tiff")
    np.testing.assert_array_equal(np.asarray(to_rgb(tmp_path / "odd.png")), np.asarray(picture))
    assert "odd.png" in caplog.text and "orientation" in caplog.text


def test_a_picture_is_never_handed_to_ghostscript(tmp_path):
    pictures(1)[0].save(tmp_path / "drawing.eps")
    (tmp_path / "drawing.eps").rename(tmp_path / "drawing.png")
    with pytest.raises(ValueError, match=r"drawing\.png.*UnidentifiedImageError"):
        to_rgb(tmp_path / "drawing.png")


def test_images_that_cannot_be_read_are_named(clip, tmp_path):
    good, broken, truncated = tmp_path / "good.png", tmp_path / "broken.jpg", tmp_path / "cut.png"
    pictures(1, (200, 200))[0].save(good)
    broken.write_bytes(b"no image")
    truncated.write_bytes(good.read_bytes()[:5000])
    for path, error, message in (
        (broken, ValueError, "image 1 .*broken.jpg"),
        (truncated, ValueError, "image 1 .*cut.png"),
        (tmp_path / "none.png", FileNotFoundError, "image 1 .*none.png"),
        (np.zeros((4, 4, 3)), ValueError, r"image 1 .*float64.*\(4, 4, 3\).*uint8"),
        (np.zeros((3, 9, 9), np.uint8), ValueError, r"image 1 .*\(3, 9, 9\)"),
        (Image.new("F", (4, 4)), ValueError, "image 1 .*32-bit.*F"),
        (Image.new("I", (4, 4), 70000), ValueError, "image 1 .*32-bit.*I"),
        (None, TypeError, "image 1 .*NoneType"),
    ):
        with pytest.raises(error, match=message):
            clip.image_embeds([good, path])
    lazy = Image.open(truncated)  # opened, but not decoded yet
    with pytest.raises(ValueError, match="image 0 "):
        clip.image_embeds([lazy])
