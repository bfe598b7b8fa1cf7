"""The explorer as programs use it: every endpoint, several users at once, and clients that mean it ill."""

import json
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from tests.explorer.serving import serving

gradio_client = pytest.importorskip("gradio_client")
pytestmark = pytest.mark.slow

NONE = ("", 0)
SECRET = "a secret word of a visitor"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    pytest.importorskip("gradio")
    with serving(tmp_path_factory.mktemp("explorer")) as server:
        yield server


@pytest.fixture(scope="module")
def client(served, tmp_path_factory):
    return gradio_client.Client(served.url, verbose=False, download_files=str(tmp_path_factory.mktemp("files")))


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    from hf_msae.scenes import load_scenes

    path = tmp_path_factory.mktemp("pictures") / "scene.png"
    load_scenes("test", 200, 7)[5]["image"].save(path)
    return path


def file(path):
    return gradio_client.handle_file(str(path))


def search(client, row, concept, strength):
    edits = [each for _ in range(3) for each in NONE]
    return client.predict("a picture of the collection", None, "", row, concept, strength, *edits, api_name="/search")


def steer(client, picture, labels, *edits):
    slots = [*edits, *(each for _ in range(4 - len(edits) // 3) for each in ("", "multiply", 1))]
    return client.predict(file(picture), labels, "as it is", *slots, api_name="/steer")[-1]


def refusal(call):
    with pytest.raises(gradio_client.exceptions.AppError) as caught:
        call()
    return str(caught.value)


def test_every_public_function_is_described(client):
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(endpoints) == {
        *("/see", "/look_closer", "/match_words", "/match_pictures", "/search", "/concepts", "/concept"),
        *("/bias", "/dose_response", "/steer"),
    }
    for name, each in endpoints.items():
        assert each.get("description"), name


def test_a_picture_is_seen_from_coarse_to_fine(client, picture):
    fvu = []
    for k in ("8", "64", "all"):
        bars, levels, numbers = client.predict(file(picture), k, api_name="/see")
        assert "<table" in bars and "<table" in levels
        fvu.append(json.dumps(numbers))
    assert len(set(fvu)) == 3
    _, note, gallery = client.predict(file(picture), "star", api_name="/look_closer")
    assert note and len(gallery) > 0


def test_a_match_adds_up(client, picture):
    _, table, numbers = client.predict(file(picture), "a red star", api_name="/match_words")
    assert "<table" in table
    _, _, same = client.predict(file(picture), file(picture), api_name="/match_pictures")
    assert same["cosine"] == pytest.approx(1, abs=1e-4)
    for each in (numbers, same):
        parts = sum(part["contribution"] for part in each["concepts"])
        rest = each["other_concepts"] + each["bias"] + each["not_reconstructed"]
        assert parts + rest == pytest.approx(each["cosine"], abs=1e-5)


def test_concepts_and_their_evidence(client):
    table, how_many = client.predict("star", True, "name", api_name="/concepts")
    assert "star" in json.dumps(table) and how_many
    evidence, activations, hierarchy, strongest, middle = client.predict("star", api_name="/concept")
    assert "star" in evidence and activations and hierarchy and strongest and middle


def test_what_drives_a_zero_shot_classifier_and_a_probe(client):
    html, numbers = client.predict("star", "", "", api_name="/bias")
    assert html and numbers
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]["/bias"]
    choices = endpoints["parameters"][0]["type"].get("enum") or []
    assert "star" in choices or not choices


def test_an_edit_changes_the_probabilities_and_none_does_not(client, picture):
    before = steer(client, picture, "a star, a circle")
    unchanged = steer(client, picture, "a star, a circle", "star", "multiply", 1)
    added = steer(client, picture, "a star, a circle", "star", "add", 2)
    assert json.dumps(before) == json.dumps(unchanged) or before.keys() == unchanged.keys()
    assert json.dumps(added) != json.dumps(before)


def test_no_edit_of_one_user_reaches_another(served, client):
    """Twenty users at once, each with an edit of their own: each gets what they get when alone."""
    concepts = ["star", "red", "night", "circle", "blue", "snow", "small", "frame", "green", "beach"]
    asked = [(row, concepts[row % 10], (-1, 1, 2)[row % 3]) for row in range(20)]

    def captions(answer):
        before, after, *_ = answer
        return [[each["caption"] for each in gallery] for gallery in (before, after)]

    alone = [captions(search(client, *each)) for each in asked]
    clients = [gradio_client.Client(served.url, verbose=False, download_files=False) for _ in asked]
    with ThreadPoolExecutor(len(asked)) as pool:
        together = list(pool.map(lambda user, each: captions(search(user, *each)), clients, asked))
    assert together == alone
    assert captions(search(client, 0, "", 1))[0] == alone[0][0]


def hostile_pictures(folder):
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8))
    noise.save(folder / "whole.png")
    (folder / "truncated.png").write_bytes((folder / "whole.png").read_bytes()[:900])
    (folder / "text.png").write_text("this is no picture")
    (folder / "empty.png").write_bytes(b"")
    (folder / "script.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>')
    Image.new("1", (30_000, 30_000)).save(folder / "bomb.png")
    return [folder / name for name in ("truncated.png", "text.png", "empty.png", "script.svg", "bomb.png")]


def odd_pictures(folder):
    rng = np.random.default_rng(1)
    noise = Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8))
    noise.convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(rng.integers(0, 65535, (64, 64), dtype=np.uint16)).save(folder / "deep.png")
    noise.save(folder / "animated.gif", save_all=True, append_images=[noise.rotate(90), noise.rotate(180)])
    noise.convert("RGBA").save(folder / "clear.webp")
    noise.convert("P").save(folder / "palette.png")
    return [folder / name for name in ("cmyk.jpg", "deep.png", "animated.gif", "clear.webp", "palette.png")]


def test_odd_pictures_are_seen_and_hostile_ones_refused_in_words(client, tmp_path, picture):
    for odd in odd_pictures(tmp_path):
        assert "<table" in client.predict(file(odd), "16", api_name="/see")[0], odd.name
    for hostile in hostile_pictures(tmp_path):
        message = refusal(lambda path=hostile: client.predict(file(path), "16", api_name="/see"))
        assert "picture" in message.lower() and "Traceback" not in message, (hostile.name, message)
    assert "<table" in client.predict(file(picture), "16", api_name="/see")[0]


@pytest.mark.parametrize("bad", [1e9, "many", None, [1], {"a": 1}])
def test_numbers_that_are_none_are_refused_in_words(client, picture, bad):
    assert "went wrong" not in refusal(lambda: search(client, 0, "star", bad))
    assert "went wrong" not in refusal(lambda: search(client, bad, "star", 1))
    assert "went wrong" not in refusal(lambda: steer(client, picture, "a, b", "star", "multiply", bad))


@pytest.mark.parametrize("bad", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_json_does_not_have_do_no_harm(served, client, bad):
    """gradio_client refuses to send them; other clients may not."""
    edits = ', "", 0' * 3
    body = f'{{"data": ["a picture of the collection", null, "", 0, "star", {bad}{edits}]}}'.encode()
    request = urllib.request.Request(
        f"{served.url}/gradio_api/call/search", body, {"Content-Type": "application/json"}
    )
    try:
        event = json.load(urllib.request.urlopen(request, timeout=20))["event_id"]
        answer = urllib.request.urlopen(f"{served.url}/gradio_api/call/search/{event}", timeout=20).read().decode()
        assert "event: error" in answer and "went wrong" not in answer
    except urllib.error.HTTPError as error:
        assert 400 <= error.code < 500
    assert search(client, 0, "star", 1)[0]


@pytest.mark.parametrize("bad", ["", "   ", "x" * 10_000, None, 5, ["a"], {"a": 1}])
def test_words_that_are_none_are_refused_in_words(client, picture, bad):
    for call in (
        lambda: client.predict(file(picture), bad, api_name="/match_words"),
        lambda: client.predict(bad, api_name="/concept"),
        lambda: client.predict(file(picture), bad, api_name="/see"),
        lambda: client.predict(bad, "", "", api_name="/bias"),
        lambda: steer(client, picture, bad),
    ):
        assert "went wrong" not in refusal(call)


def test_no_file_of_the_machine_can_be_had(served, client, picture):
    for path in ("/etc/passwd", str(served.log), "../../../../etc/passwd"):
        for message in (
            refusal(lambda path=path: client.predict({"path": path}, "16", api_name="/see")),
            refusal(
                lambda path=path: client.predict(
                    {"path": path, "meta": {"_type": "gradio.FileData"}}, "16", api_name="/see"
                )
            ),
        ):
            assert "root:" not in message
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{served.url}/gradio_api/file={path}", timeout=20)
        assert caught.value.code in (403, 404)


def test_a_file_that_is_too_large_is_refused(client, tmp_path):
    big = tmp_path / "big.png"
    big.write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * (21 * 2**20))
    with pytest.raises(Exception, match=r"(?i)large|size|exceed"):
        client.predict(file(big), "16", api_name="/see")


def test_the_log_holds_nothing_of_visitors_and_nothing_is_written_elsewhere(served, client, picture):
    """Runs last in this file: after all that was asked above."""
    client.predict(file(picture), SECRET, api_name="/match_words")
    refusal(lambda: client.predict(SECRET, api_name="/concept"))
    refusal(lambda: client.predict(SECRET, "16", api_name="/see"))
    refusal(lambda: client.predict({"path": SECRET}, "16", api_name="/see"))
    refusal(lambda: client.predict(file(picture), SECRET * 100, api_name="/match_words"))
    log = served.log.read_text()
    assert SECRET not in log and "scene.png" not in log and "Traceback" not in log
    assert not list((served.place / "cwd").rglob("*"))
    assert {path.name for path in served.place.iterdir()} <= {"cwd", "tmp", "gradio", "log.txt"}
