"""The explorer as tools for language models, asked by a real MCP client."""

import asyncio
import base64
import json

import pytest

from tests.explorer.serving import serving

pytest.importorskip("gradio")
pytestmark = pytest.mark.slow

TOOLS = {
    *("see", "look_closer", "match_words", "match_pictures", "search", "concepts", "concept"),
    *("bias", "dose_response", "steer"),
}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    pytest.importorskip("mcp")
    with serving(tmp_path_factory.mktemp("explorer"), "scenes:test:60:7", options=["--mcp_server"]) as server:
        yield server


def ask(served, *questions):
    """The tools, and the results of each (name, arguments)."""
    from mcp import ClientSession
    from mcp.client.streamable_http import streamablehttp_client

    async def asked():
        async with (
            streamablehttp_client(f"{served.url}/gradio_api/mcp/") as (receive, send, _),
            ClientSession(receive, send) as session,
        ):
            await session.initialize()
            tools = (await session.list_tools()).tools
            return tools, [await session.call_tool(name, arguments) for name, arguments in questions]

    return asyncio.run(asked())


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    from hf_msae.scenes import load_scenes

    path = tmp_path_factory.mktemp("pictures") / "scene.png"
    load_scenes("test", 20, 7)[5]["image"].save(path)
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def texts(result):
    assert not result.isError, result.content
    return [each.text for each in result.content if each.type == "text"]


def test_every_public_function_is_a_tool_by_its_name_and_described(served):
    tools, _ = ask(served)
    assert {tool.name for tool in tools} == TOOLS
    for tool in tools:
        assert len(tool.description) > 40, tool.name
        for name, each in tool.inputSchema["properties"].items():
            assert each.get("description", "").endswith((".", '"')), (tool.name, name, each)
    steer = next(tool for tool in tools if tool.name == "steer")
    assert "as concepts are named" in steer.inputSchema["properties"]["prompt"]["description"]


def test_tools_answer(served, picture):
    edits = {f"{what}_{i}": value for i in range(1, 5) for what, value in (("concept", ""), ("amount", 1))}
    edits |= {f"how_{i}": "multiply" for i in range(1, 5)}
    _, (seen, closer, listed, steered) = ask(
        served,
        ("see", {"picture": picture, "granularity": "16"}),
        ("look_closer", {"picture": picture, "concept": "star"}),
        ("concepts", {"words": "star", "validated_only": True, "order": "name"}),
        ("steer", {"picture": picture, "labels": "a star, a circle", "prompt": "as it is", **edits}),
    )
    table, levels, numbers = texts(seen)
    assert "<table" in table and "<table" in levels and "not_reconstructed" in numbers
    assert texts(closer) and any(each.type == "image" for each in closer.content)
    assert "star" in texts(listed)[0] and len(texts(steered)) == 3


def test_no_address_is_fetched_for_a_tool(served):
    _, (found,) = ask(served, ("see", {"picture": "https://example.org/a.png", "granularity": "16"}))
    assert found.isError and "Addresses are not fetched here" in found.content[0].text


def test_nothing_is_written_beside_the_upload_folder(served, picture):
    """Pictures in base64 too, which gradio puts where it was told when it was imported."""
    ask(served, ("see", {"picture": picture, "granularity": "16"}))
    assert list((served.place / "gradio").iterdir())
    assert [each.name for each in (served.place / "tmp").iterdir() if each.name == "gradio"] == []
    assert json.dumps(served.log.read_text()).count("Traceback") == 0
