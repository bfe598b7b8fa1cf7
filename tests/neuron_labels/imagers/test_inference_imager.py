"""Against a real server on this machine that fails as services fail; what proposers share is tested with theirs."""

import io
import json
import logging
import struct
import threading
import zlib

import numpy as np
import pytest
from huggingface_hub import constants, get_token
from PIL import Image

from hf_msae.neuron_labels import Budget, label_neuron
from hf_msae.neuron_labels.budget import Meter
from hf_msae.neuron_labels.gallery import Gallery
from hf_msae.neuron_labels.imagers.base import CannotDrawError
from hf_msae.neuron_labels.imagers.inference import InferenceImager
from hf_msae.neuron_labels.services import ServiceError
from tests.neuron_labels.color_world import ColorImager, ListProposer
from tests.neuron_labels.imagers.drawing_server import Handler, drawing_server, picture_bytes

KEY = "secret-0123456789-key"


def bomb(width, height):
    """A small PNG that claims to be huge."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


@pytest.fixture(autouse=True)
def online(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.fixture
def server():
    with drawing_server() as server:
        yield server


@pytest.fixture
def waits():
    return []


@pytest.fixture
def imager(server, waits, monkeypatch):
    monkeypatch.setenv("DRAWING_KEY", KEY)
    return InferenceImager(
        "some/model", base_url=server.url, api_key_variable="DRAWING_KEY", retries=3, sleep=waits.append
    )


def error(status, said="", **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, json.dumps({"error": said}).encode(), headers


def test_asks_for_a_picture_of_each_seed(server, imager):
    pictures = imager.draw("red star", [7, 200])
    assert {(picture.mode, picture.size) for picture in pictures} == {("RGB", (6, 5))}
    assert [picture.getpixel((0, 0)) for picture in pictures] == [(7, 0, 9), (200, 0, 9)]
    path, body, headers = max(server.requests, key=lambda request: request[1]["parameters"]["seed"])
    assert path == "/draw"
    assert body == {"inputs": "a picture of red star", "parameters": {"seed": 200}}
    assert headers["authorization"] == f"Bearer {KEY}"


def test_options_reach_the_service(server):
    options = {"num_inference_steps": 4, "guidance_scale": 2.5, "height": 64, "width": 32, "negative_prompt": "cloud"}
    InferenceImager("some/model", base_url=server.url, style="a {}!", **options).draw("star", [1])
    assert server.requests[0][1] == {"inputs": "a star!", "parameters": {"seed": 1, **options}}


@pytest.mark.parametrize(
    "failure",
    [
        error(503, "loading"),
        (200, picture_bytes("red"), {"Content-Length": 5000}),  # cut off
        (200, b"<html>busy</html>", {}),
        (200, picture_bytes("red", size=(300, 300))[:200], {}),  # begins like a picture
        (200, b"", {}),
    ],
    ids=["503", "cut off", "no picture", "half a picture", "nothing"],
)
def test_failures_that_pass_are_waited_for(server, imager, waits, failure):
    server.failures = [failure, failure]
    (picture,) = imager.draw("star", [3])
    assert picture.getpixel((0, 0)) == (3, 0, 9)
    assert len(server.requests) == 3
    assert 0.5 <= waits[0] <= 1 <= waits[1] <= 2
    assert {body["parameters"]["seed"] for _, body, _ in server.requests} == {3}


def test_a_slow_service_times_out(server, waits):
    server.failures = ["hang"]
    imager = InferenceImager("some/model", base_url=server.url, timeout=0.3, sleep=waits.append)
    assert imager.draw("star", [3])[0].getpixel((0, 0)) == (3, 0, 9)
    assert len(waits) >= 1  # a busy machine may be late again


@pytest.mark.parametrize(
    ("status", "kind"),
    [*((status, CannotDrawError) for status in (400, 422)), *((status, ServiceError) for status in (401, 403, 404))],
)
def test_a_refused_prompt_and_what_is_wrong_with_the_service_are_not_repeated(server, imager, waits, status, kind):
    server.failures = [error(status, "not this")]
    with pytest.raises(kind, match="not this") as caught:
        imager.draw("star", [3])
    assert (len(server.requests), waits) == (1, [])
    assert "star" in str(caught.value) if kind is CannotDrawError else caught.value.status == status


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (picture_bytes("red", "EPS"), "EPS"),
        (picture_bytes("red", "TGA"), "TGA"),
        (bomb(9000, 9000), "9000 x 9000"),
        (bomb(30_000, 30_000), "large"),
    ],
    ids=["EPS", "TGA", "large", "bomb"],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_pictures_that_are_not_decoded(server, imager, waits, content, named):
    server.failures = [(200, content, {})]
    with pytest.raises(ServiceError, match=named):
        imager.draw("star", [3])
    assert waits == []


def test_other_formats_become_rgb(server, imager):
    stored = io.BytesIO()
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(stored, "WEBP", lossless=True)
    server.failures = [(200, stored.getvalue(), {})]
    (picture,) = imager.draw("star", [3])
    assert picture.mode == "RGB"
    assert (np.asarray(picture) == 255).all()  # what is transparent is white


def test_the_key_is_nowhere(server, imager, caplog, monkeypatch):
    from transformers.utils import logging as transformers_logging

    monkeypatch.setattr(transformers_logging.get_logger("hf_msae"), "propagate", True)
    said = f"the key {KEY} has no credit"
    server.failures = [error(500, said), error(503, said), error(401, said)]
    with caplog.at_level(logging.DEBUG), pytest.raises(ServiceError) as caught:
        imager.draw("star", [3])
    assert "has no credit" in caplog.text
    shown = [repr(imager), str(imager), json.dumps(imager.settings), repr(vars(imager))]
    shown += [str(caught.value), repr(caught.value), caplog.text]
    assert not any(KEY in text for text in shown)
    assert caught.value.__cause__ is None and caught.value.__context__ is None


def test_an_endpoint_does_not_get_the_token_of_the_hub(server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_hub")
    assert get_token() == "hf_of_the_hub"
    InferenceImager("some/model", base_url=server.url).draw("star", [1])
    assert "hf_of_the_hub" not in json.dumps(server.requests[0])


def test_settings_tell_what_pictures_depend_on(server):
    def settings(**options):
        return json.dumps(InferenceImager(**{"model": "a", "base_url": server.url, **options}).settings)

    different = [settings(), settings(model="b"), settings(style="photo"), settings(height=64)]
    different += [settings(base_url=None, provider="fal-ai"), settings(num_inference_steps=2)]
    assert len(set(different)) == len(different)
    assert settings(timeout=3, retries=1) == settings()  # change nothing about pictures


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"base_url": "ftp://host"}, "ftp"),
        ({"base_url": "http://host", "provider": "fal-ai"}, "fal-ai"),
        ({"timeout": 0}, "0"),
        ({"retries": -1}, "-1"),
        ({"style": "cartoon"}, "cartoon"),
    ],
)
def test_refuses_options_out_of_range(options, named):
    with pytest.raises(ValueError, match=named):
        InferenceImager("some/model", **options)


def test_pictures_are_made_at_the_same_time_and_come_in_the_order_of_seeds(server, monkeypatch):
    together, most = threading.Barrier(3), []
    make = Handler.do_POST

    def slow(handler):
        most.append(threading.active_count())
        together.wait(10)  # breaks unless three requests are under way
        make(handler)

    monkeypatch.setattr(Handler, "do_POST", slow)
    imager = InferenceImager("some/model", base_url=server.url, concurrency=3, retries=0)
    seeds = [9, 2, 7, 4, 5, 1]
    assert [picture.getpixel((0, 0))[0] for picture in imager.draw("star", seeds)] == seeds
    assert len(server.requests) == 6


def test_after_a_refusal_no_further_picture_is_asked_for_and_those_before_it_are_paid(server, waits):
    server.failures = [None, None, error(422, "no")]
    imager = InferenceImager("some/model", base_url=server.url, concurrency=1, price=0.5, sleep=waits.append)
    gallery = Gallery(imager, meter := Meter(Budget(cost=2.6)))
    with pytest.raises(CannotDrawError, match="422"):
        gallery.draw("star", range(5))
    assert (meter.spent.images, meter.spent.cost) == (2, 1.0)
    assert len(server.requests) == 3 and waits == []


def test_pictures_cost_what_the_price_says_and_never_more_than_the_budget(red_neuron, noise_pictures):
    class Priced(ColorImager):
        price = 0.01

    options = {"iterations": 1, "start": ["blue"], "progress": False}
    found = label_neuron(red_neuron, ListProposer("red"), Priced(), noise_pictures, **options)
    assert found.spent["cost"] == pytest.approx(0.01 * found.spent["images"])
    short = label_neuron(red_neuron, ListProposer("red"), Priced(), noise_pictures, budget=Budget(cost=0.4), **options)
    assert short.spent["cost"] <= 0.4 and "cost" in short.stopped and np.isfinite(short.score)
    with pytest.raises(ValueError, match="price"):
        InferenceImager("m", price=-1)
