"""Gradio's page for strangers and their programs: only uploads are opened, and tools are what they are called."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import anyio
import gradio as gr
from gradio.utils import get_upload_folder
from gradio_client.utils import is_file_obj_with_meta, traverse

from .inputs import VisitorError

_FILES = "/gradio_api/file="


class Page(gr.Blocks):
    """Blocks for strangers.

    Gradio downloads whatever address stands where a file can stand, in any input and before any function of ours is
    called, whole and of any size. All ways to ask (page, API, MCP) come through this method.
    """

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *args: Any, **kwargs: Any) -> list[Any]:
        try:
            found = [_checked(block, value) for block, value in zip(block_fn.inputs, inputs, strict=False)]
        except VisitorError as error:
            raise gr.Error(str(error), print_exception=False) from None
        return await super().preprocess_data(block_fn, found + inputs[len(found) :], *args, **kwargs)

    def launch(self, *args: Any, mcp_server: bool | None = None, **kwargs: Any) -> Any:
        """Raises:
        ImportError: MCP is asked for, but its package is not installed.
        """
        for each in self.fns.values():
            if each.api_visibility == "public" and isinstance(each.api_name, str):
                # Tools are called as functions are, and described by the first line of each argument.
                each.fn.__name__ = each.api_name
                each.fn.__doc__ = _one_line_each(each.fn.__doc__)
        asked_for = os.environ.get("GRADIO_MCP_SERVER", "").lower() == "true" if mcp_server is None else mcp_server
        if asked_for:
            check_mcp()
            _mend_mcp()
        return super().launch(*args, mcp_server=mcp_server, **kwargs)


def uploaded(path: str) -> Path:
    """The upload at a path, or at this page's address of it, which MCP clients have to give.

    Raises:
        VisitorError: it is none.
    """
    if path.startswith(("http://", "https://")):
        _, here, file = unquote(urlsplit(path).path).partition(_FILES)
        if not here:
            raise VisitorError(
                "Addresses are not fetched here: upload the picture to /gradio_api/upload and give what that answers, "
                "or, to an MCP tool, the picture itself as data:image/png;base64,..."
            )
        path = file
    if "\0" in path:
        raise VisitorError("This is no picture: upload a file.")
    found = Path(path).resolve()
    if not found.is_relative_to(Path(get_upload_folder()).resolve()):
        raise VisitorError("This is no uploaded picture: upload a file.")
    return found


def _one_line_each(doc: str | None) -> str:
    """A docstring in which each argument, and all that is returned, stands on one line: gradio drops the others."""
    lines: list[str] = []
    returns = False
    for line in inspect.cleandoc(doc or "").splitlines():
        further = line.startswith(" " * 8) or (returns and line.strip() and lines[-1] != "Returns:")
        returns = returns or line == "Returns:"
        if further and lines:
            lines[-1] += f" {line.strip()}"
        else:
            lines.append(line)
    return "\n".join(lines)


def check_mcp() -> None:
    """Raises:
    ImportError: the package mcp is not installed; gradio would go on without tools.
    """
    if find_spec("mcp") is None:
        # Not gradio[mcp]: that asks for an older pydantic too, which it does not need.
        raise ImportError("tools for MCP need the package mcp: pip install 'mcp>=1.21,<2'")


def _mend_mcp() -> None:
    """Gradio's tools give all that a function returns as one text, and fail where a part of it is a `gr.State`.

    So it is as long as their client does not ask to be told of the progress; with that, they give part by part.
    """
    from gradio.mcp import GradioMCPServer

    async def all_parts(_: Any, job: Any) -> list[Any]:
        found = await anyio.to_thread.run_sync(job.result)
        return [*found] if isinstance(found, tuple) else [found]

    GradioMCPServer._execute_tool_without_progress = all_parts


def _checked(block: Any, value: Any) -> Any:
    """An input in which every file is an upload.

    Raises:
        VisitorError: one is not.
    """
    if isinstance(block, gr.Image) and value is not None and not isinstance(value, Mapping):
        raise VisitorError("This is no picture: upload a file.")

    def replaced(file: dict[str, Any]) -> dict[str, Any]:
        return {**file, "path": str(uploaded(file["path"])), "url": None, "is_stream": False}

    return traverse(value, replaced, is_file_obj_with_meta)
