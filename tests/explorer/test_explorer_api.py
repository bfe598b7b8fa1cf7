"""The explorer as programs use it: every endpoint and tool, several users at once, and clients that mean it ill."""

import asyncio
import base64
import json
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

gradio_client = pytest.importorskip("gradio_client")
pytestmark = pytest.mark.slow

NAMES = {
    *("see", "look_closer", "match_words", "match_pictures", "search", "concepts", "concept"),
    *("bias", "dose_response", "steer"),
}
SECRET = "a secret word of a visitor"


@pytest.fixture(scope="module")
def client(served, tmp_path_factory):
    return gradio_client.Client(served.url, verbose=False, download_files=str(tmp_path_factory.mktemp("files")))


def file(path):
    return gradio_client.handle_file(str(path))


def search(client, row, concept, strength):
    edits = ["", 0] * 3
    return client.predict("a picture of the collection", None, "", row, concept, strength, *edits, api_name="/search")


def steer(client, picture, labels, *edit):
    slots = [*edit, *["", "multiply", 1] * (4 - len(edit) // 3)]
    return client.predict(file(picture), labels, "as it is", *slots, api_name="/steer")[-1]


def refusal(call):
    with pytest.raises(gradio_client.exceptions.AppError) as caught:
        call()
    return str(caught.value)


def test_every_public_function_is_described(client):
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert {name.removeprefix("/") for name in endpoints} == NAMES
    assert all(each.get("description") for each in endpoints.values())


def test_a_picture_is_seen_from_coarse_to_fine(client, picture):
    found = [client.predict(file(picture), k, api_name="/see") for k in ("8", "64", "all")]
    assert all("<table" in bars and "<table" in levels for bars, levels, _ in found)
    assert len({numbers["not_reconstructed"] for *_, numbers in found}) == 3
    _, note, gallery = client.predict(file(picture), "star", api_name="/look_closer")
    assert note and len(gallery) == 8


def test_a_match_adds_up(client, picture):
    *_, numbers = client.predict(file(picture), "a red star", api_name="/match_words")
    *_, same = client.predict(file(picture), file(picture), api_name="/match_pictures")
    assert same["cosine"] == pytest.approx(1, abs=1e-4)
    for each in (numbers, same):
        parts = sum(part["contribution"] for part in each["concepts"])
        rest = each["other_concepts"] + each["bias"] + each["not_reconstructed"]
        assert parts + rest == pytest.approx(each["cosine"], abs=1e-5)


def test_concepts_and_their_evidence(client):
    table, how_many = client.predict("star", True, "name", api_name="/concepts")
    assert "star" in json.dumps(table) and how_many
    evidence, *others = client.predict("star", api_name="/concept")
    assert "star" in evidence and all(others)


def test_what_drives_a_probe_and_by_which_dose(client):
    html, numbers = client.predict("star", "", "", api_name="/bias")
    assert "star" in html and {each["name"] for each in numbers["concepts"] if each["drives"]} >= {"star"}
    (curve,) = client.predict("star", "", "", ["star"], api_name="/dose_response")
    assert curve["name"] == "star" and curve["probabilities"][-1] > curve["probabilities"][0]


def test_an_edit_changes_the_probabilities_and_none_does_not(client, picture):
    unchanged = steer(client, picture, "a star, a circle", "star", "multiply", 1)
    assert unchanged["before"] == unchanged["after"]
    added = steer(client, picture, "a star, a circle", "star", "add", 2)
    assert added["before"] == unchanged["before"] and added["after"][0] > added["before"][0]


def test_no_edit_of_one_user_reaches_another(served, client):
    """Six users at once, each with edits of their own: each gets what they get when alone."""
    concepts = ["star", "red", "night", "circle", "blue", "snow"]
    asked = [(row, concept, (-1, 1, 2)[row % 3]) for row, concept in enumerate(concepts)]

    def captions(answer):
        before, after, *_ = answer
        return [[each["caption"] for each in gallery] for gallery in (before, after)]

    alone = [captions(search(client, *each)) for each in asked]
    clients = [gradio_client.Client(served.url, verbose=False, download_files=False) for _ in asked]
    with ThreadPoolExecutor(len(asked)) as pool:
        together = list(pool.map(lambda user, each: captions(search(user, *each)), clients, asked))
    assert together == alone and len({str(each) for each in alone}) == len(asked)


def test_no_file_of_the_machine_can_be_had(served, client):
    for path in ("/etc/passwd", str(served.log), "../../../../etc/passwd"):
        for asked in ({"path": path}, {"path": path, "meta": {"_type": "gradio.FileData"}}):
            assert "root:" not in refusal(lambda asked=asked: client.predict(asked, "16", api_name="/see"))
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{served.url}/gradio_api/file={path}", timeout=20)
        assert caught.value.code in (403, 404)


def use_tools(served, *questions):
    """The tools that an MCP client is offered, and the results of each (name, arguments)."""
    pytest.importorskip("mcp")
    from mcp import ClientSession
    from mcp.client.streamable_http import streamablehttp_client

    async def use():
        async with (
            streamablehttp_client(f"{served.url}/gradio_api/mcp/") as (receive, send, _),
            ClientSession(receive, send) as session,
        ):
            await session.initialize()
            tools = (await session.list_tools()).tools
            return tools, [await session.call_tool(name, arguments) for name, arguments in questions]

    return asyncio.run(use())


def test_every_public_function_is_a_tool_by_its_name_and_described(served):
    tools, _ = use_tools(served)
    assert {tool.name for tool in tools} == NAMES
    for tool in tools:
        assert len(tool.description) > 40, tool.name
        for name, each in tool.inputSchema["properties"].items():
            assert each.get("description", "").endswith((".", '"')), (tool.name, name, each)


def test_tools_answer_and_fetch_no_address(served, picture):
    sent = "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()
    edits = {f"{what}_{i}": value for i in range(1, 5) for what, value in (("concept", ""), ("amount", 1))}
    edits |= {f"how_{i}": "multiply" for i in range(1, 5)}
    _, (*found, fetched) = use_tools(
        served,
        ("see", {"picture": sent, "granularity": "16"}),
        ("look_closer", {"picture": sent, "concept": "star"}),
        ("concepts", {"words": "star", "validated_only": True, "order": "name"}),
        ("steer", {"picture": sent, "labels": "a star, a circle", "prompt": "as it is", **edits}),
        ("see", {"picture": "https://example.org/a.png", "granularity": "16"}),
    )
    assert fetched.isError and "not fetched" in fetched.content[0].text
    assert not any(each.isError for each in found), found
    seen, closer, listed, steered = ([part.text for part in each.content if part.type == "text"] for each in found)
    assert "<table" in seen[0] and "<table" in seen[1] and "not_reconstructed" in seen[2]
    assert closer and any(part.type == "image" for part in found[1].content)
    assert "star" in listed[0] and len(steered) == 3


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
    assert "gradio" not in {path.name for path in (served.place / "tmp").iterdir()}
