"""Which files are read as pictures: one list of formats, for what is stored in a dataset too."""

import io

import datasets
import pytest
from PIL import Image

from hf_msae._utils.images import readable_formats, thumbnail, to_rgb, undecoded

RED = Image.new("RGB", (4, 4), (255, 0, 0))


def encoded(format):
    stored = io.BytesIO()
    RED.save(stored, format)
    return stored.getvalue()


@pytest.mark.parametrize("format", ["PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG", "JPEG2000"])
def test_formats_that_are_read(tmp_path, format):
    file = tmp_path / "picture"
    file.write_bytes(encoded(format))
    for given in ({"bytes": encoded(format), "path": None}, {"bytes": None, "path": str(file)}, file):
        red, green, _ = to_rgb(given).getpixel((2, 2))
        assert red > 240 and green < 15


@pytest.mark.parametrize("format", ["EPS", "TGA", "PCX", "SGI", "ICNS"])
def test_formats_that_are_not(tmp_path, format):
    content = encoded(format)
    assert format not in readable_formats()
    (tmp_path / "picture.png").write_bytes(content)
    for given in ({"bytes": content, "path": None}, tmp_path / "picture.png"):
        with pytest.raises(ValueError, match=r"row 3.*cannot be decoded"):
            to_rgb(given, "row 3")


def test_a_file_that_does_not_exist(tmp_path):
    gone = str(tmp_path / "gone.png")
    for given in (gone, {"bytes": None, "path": gone}):
        with pytest.raises(FileNotFoundError, match=r"row 3.*gone\.png.*does not exist"):
            to_rgb(given, "row 3")


def test_pictures_of_a_dataset_are_left_to_to_rgb(monkeypatch):
    rows = [{"bytes": encoded("EPS"), "path": None}, {"bytes": encoded("PNG"), "path": None}, None]
    images = datasets.Dataset.from_dict({"image": rows}, features=datasets.Features({"image": datasets.Image()}))
    monkeypatch.setattr(datasets.Image, "decode_example", lambda *_: pytest.fail("decoded by datasets"))
    stored = undecoded(images, "image")
    assert to_rgb(stored[1]["image"]).getpixel((0, 0)) == (255, 0, 0)
    with pytest.raises(ValueError, match=r"cannot be decoded"):
        to_rgb(stored[0]["image"])
    with pytest.raises(ValueError, match=r"row 2 is missing"):
        to_rgb({}, "row 2")


def test_a_mode_is_left_to_datasets():
    images = datasets.Dataset.from_dict({"image": [RED]}).cast_column("image", datasets.Image(mode="L"))
    assert undecoded(images, "image").features == images.features


@pytest.mark.parametrize(("size", "expected"), [((32, 16), (160, 80)), ((81, 9), (81, 9)), ((640, 320), (160, 80))])
def test_small_pictures_are_enlarged_with_sharp_pixels_and_large_ones_shrunk(size, expected):
    picture = Image.new("RGB", size, "white")
    picture.putpixel((0, 0), (255, 0, 0))
    found = thumbnail(picture, 160)
    assert found.size == expected and picture.size == size
    if size[0] < 81:
        assert sorted(color for _, color in found.getcolors()) == [(255, 0, 0), (255, 255, 255)]
