"""Gradio's page for strangers and their programs: it opens only uploads, and logs nothing they give."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import anyio
import gradio as gr
from gradio.utils import get_upload_folder
from gradio_client.utils import is_file_obj_with_meta, traverse

from .answers import log_kind_and_place
from .inputs import VisitorError

_FILES = "/gradio_api/file="
NO_UPLOAD = "This is not an uploaded picture: upload a file."


class Page(gr.Blocks):
    """Blocks for strangers."""

    async def process_api(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Answer a question; every error becomes one that gradio sends to the visitor without printing it."""
        try:
            return await super().process_api(*args, **kwargs)
        except gr.Error as error:
            error.print_exception = False
            raise
        except Exception as error:  # of any kind: gradio would print it
            if not isinstance(error, VisitorError):
                log_kind_and_place(error)
            raise gr.Error(str(error), print_exception=False) from None

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *args: Any, **kwargs: Any) -> list[Any]:
        """Refuse files that are not uploads, before gradio fetches whatever address a client names as a file."""
        checked = [_checked(block, value) for block, value in zip(block_fn.inputs, inputs, strict=False)]
        return await super().preprocess_data(block_fn, checked + inputs[len(checked) :], *args, **kwargs)

    def launch(self, *args: Any, mcp_server: bool | None = None, **kwargs: Any) -> Any:
        """Launch the page; raise ImportError if `mcp_server` is set, but the package mcp is not installed."""
        for each in self.fns.values():
            if each.api_visibility == "public" and isinstance(each.api_name, str):
                # Gradio names tools after functions, and describes an argument by the first line of its description.
                each.fn.__name__ = each.api_name
                each.fn.__doc__ = _unwrapped(each.fn.__doc__)
        wanted = os.environ.get("GRADIO_MCP_SERVER", "").lower() == "true" if mcp_server is None else mcp_server
        if wanted:
            check_mcp()
            _mend_mcp()
        return super().launch(*args, mcp_server=mcp_server, **kwargs)


def uploaded(path: str) -> Path:
    """Resolve the path of an upload, or its address on this page, which MCP clients give; refuse any other."""
    if path.startswith(("http://", "https://")):
        _, here, path = unquote(urlsplit(path).path).partition(_FILES)
        if not here:
            raise VisitorError(
                "Addresses are not fetched here: upload the picture to /gradio_api/upload and give the path that it "
                "returns, or give an MCP tool the picture itself as data:image/png;base64,..."
            )
    if "\0" in path or not (found := Path(path).resolve()).is_relative_to(Path(get_upload_folder()).resolve()):
        raise VisitorError(NO_UPLOAD)
    return found


def _unwrapped(doc: str | None) -> str:
    """Join the wrapped lines of a docstring, so that each argument and all of "Returns:" stand on one line."""
    head, returns, found = inspect.cleandoc(doc or "").partition("Returns:\n")
    return re.sub(r"\n {8,}", " ", head) + returns + " ".join(found.split())


def check_mcp() -> None:
    """Raise ImportError if the package mcp is missing; gradio would go on without tools."""
    if find_spec("mcp") is None:
        raise ImportError("tools for MCP need the package mcp: pip install 'hf_msae[mcp]'")


def _mend_mcp() -> None:
    """Make tools return the parts of an answer one by one, and leave out each `gr.State`.

    Gradio does that only for clients that ask for progress; for others it returns everything as one text, and fails
    if a part is a `gr.State`.
    """
    from gradio.mcp import GradioMCPServer

    async def all_parts(_: Any, job: Any) -> list[Any]:
        found = await anyio.to_thread.run_sync(job.result)
        return [*found] if isinstance(found, tuple) else [found]

    GradioMCPServer._execute_tool_without_progress = all_parts


def _checked(block: Any, value: Any) -> Any:
    """Replace every file in an input by the upload it names; refuse files that are no uploads."""
    if isinstance(block, gr.Image) and value is not None and not isinstance(value, Mapping):
        raise VisitorError(NO_UPLOAD)

    def replaced(file: dict[str, Any]) -> dict[str, Any]:
        return {**file, "path": str(uploaded(file["path"])), "url": None, "is_stream": False}

    return traverse(value, replaced, is_file_obj_with_meta)
