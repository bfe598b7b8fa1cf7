"""What visitors give is checked, and refused in words that are for them."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from hf_msae.explorer import inputs
from hf_msae.explorer.inputs import MAX_SIDE, VisitorError, read_number, read_picture, read_text


def picture(path, mode="RGB", size=(40, 30)):
    Image.new(mode, size, 200 if mode in ("L", "I;16") else None).save(path)
    return path


@pytest.mark.parametrize(
    ("name", "mode"), [("a.png", "RGB"), ("a.jpg", "CMYK"), ("a.png", "I;16"), ("a.webp", "RGBA"), ("a.png", "P")]
)
def test_pictures_of_every_kind_become_rgb(tmp_path, name, mode):
    found = read_picture(picture(tmp_path / name, mode))
    assert found.mode == "RGB" and found.size == (40, 30)


def test_of_an_animation_the_first_frame_is_taken(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert np.asarray(read_picture(tmp_path / "a.gif"))[0, 0].tolist()[0] > 200


def test_a_large_picture_is_brought_down(tmp_path):
    assert max(read_picture(picture(tmp_path / "a.png", "L", (3000, 40))).size) == MAX_SIDE


def test_a_picture_is_refused_by_its_header_before_it_is_decoded(tmp_path, monkeypatch):
    bomb = bytearray(picture(tmp_path / "bomb.png", "1").read_bytes())
    bomb[16:24] = struct.pack(">II", 30_000, 30_000)  # the size that its header claims
    bomb[29:33] = struct.pack(">I", zlib.crc32(bomb[12:29]))
    (tmp_path / "bomb.png").write_bytes(bomb)
    picture(tmp_path / "large.png", size=(41, 30))
    monkeypatch.setattr(inputs, "MAX_DECODED_PIXELS", 1200)
    assert read_picture(picture(tmp_path / "a.png", size=(40, 30))).size == (40, 30)
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("it was decoded"))
    for name in ("bomb.png", "large.png"):
        with pytest.raises(VisitorError, match="pixels"):
            read_picture(tmp_path / name)


def png_of_noise():
    stored = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(stored, "PNG")
    return stored.getvalue()


def tiff_of_floats():
    stored = io.BytesIO()
    Image.new("F", (8, 8), 0.5).save(stored, "TIFF")
    return stored.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        *[(content, "not a picture") for content in (b"no picture", b"", b"<svg></svg>")],
        (png_of_noise()[:2000], "damaged"),
        (tiff_of_floats(), "32-bit"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path, content, message):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(VisitorError, match=message):
        read_picture(tmp_path / "a.png")


def test_no_picture_a_gone_one_and_too_many_bytes_are_refused(tmp_path, monkeypatch):
    for nothing in (None, ""):
        with pytest.raises(VisitorError, match="Choose a picture"):
            read_picture(nothing)
    with pytest.raises(VisitorError, match="gone"):
        read_picture(tmp_path / "gone.png")
    monkeypatch.setattr(inputs, "MAX_BYTES", 10)
    with pytest.raises(VisitorError, match="larger than"):
        read_picture(picture(tmp_path / "a.png"))


def test_words_are_trimmed_and_bounded():
    assert read_text("  a \n red\0star ") == "a red star"
    assert read_text("x" * 500) == "x" * 500
    for bad in ("", "  ", None, "x" * 501, 5, ["a"]):
        with pytest.raises(VisitorError):
            read_text(bad)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 10**400, -0.1, 3.1, "1", None, True, [1]])
def test_numbers_are_finite_and_in_range(bad):
    assert read_number(0, 0, 3, "Strength") == 0 and read_number(3.0, 0, 3, "Strength") == 3
    with pytest.raises(VisitorError, match="Strength"):
        read_number(bad, 0, 3, "Strength")


def test_only_files_of_the_upload_folder_are_opened(tmp_path, monkeypatch):
    pytest.importorskip("gradio")
    from hf_msae.explorer import page
    from hf_msae.explorer.components import picture_input

    uploads, beside = tmp_path / "gradio", tmp_path / "gradio-other"
    for folder in (uploads, beside):
        folder.mkdir()
        picture(folder / "a.png")
    (uploads / "link.png").symlink_to(beside / "a.png")
    monkeypatch.setattr(page, "get_upload_folder", lambda: str(uploads))
    assert picture_input.read_upload({"path": str(uploads / "a.png")}).size == (40, 30)
    for path in (beside / "a.png", uploads / ".." / "gradio-other" / "a.png", uploads / "link.png"):
        with pytest.raises(VisitorError, match="upload a file"):
            picture_input.read_upload({"path": str(path)})
    for bad in ("a.png", {"path": None}, {"path": "a\0b"}, 5, [str(uploads / "a.png")]):
        with pytest.raises(VisitorError, match="upload a file"):
            picture_input.read_upload(bad)
