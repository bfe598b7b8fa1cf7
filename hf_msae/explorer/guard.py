"""Limits on what strangers can make the server do besides answering: fetch nothing, hold little, and not for long."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from pathlib import Path

import httpx
from gradio.route_utils import FnIndexInferError
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .answers import log_kind_and_place
from .housekeeping import FILE_COST, make_room
from .inputs import MAX_BYTES

MAX_UPLOAD = MAX_BYTES + 2**16
"""Bytes of a request with a picture and its envelope. Gradio's own limit is per file, and a request may have 1,000."""
MAX_ENCODED = MAX_UPLOAD * 4 // 3
"""Bytes of an MCP request, which may hold a picture in base64."""
MAX_QUESTION = 2**20
"""Bytes of any other request."""
MAX_SESSIONS = 500
"""Visitors whose choices gradio remembers, about 0.02 MB each; the others are forgotten."""
MAX_OPEN = 2000
"""Open requests at a time; a page holds two or three. Gradio builds its own uvicorn config, without this limit."""
MAX_UPLOADS_EACH = 8
"""Uploads at a time from one address, which may be that of a proxy."""
STALLED, TOO_SLOW = 20.0, 300.0
"""Seconds after which a body is cut off: without a byte, and in all."""
_SERVED = frozenset(
    "api app_id call cancel file heartbeat info login_check mcp openapi.json queue reset run startup-events theme.css "
    "token upload upload_progress user".split()
)
"""The part of gradio's API that pages and clients use. The rest fetches addresses, keeps sessions, or cuts videos."""
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class Guard:
    """ASGI middleware that passes on only requests that pages and clients need, and none that is too large or slow.

    What visitors send and get is in `folder`, where files are deleted after `age` seconds.
    """

    def __init__(self, app: ASGIApp, folder: Path, age: float) -> None:
        self.app, self.folder, self.age = app, folder, age
        self._coming = 0  # bytes of uploads that have begun
        self._open = 0
        self._uploads: Counter[str] = Counter()  # by address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or refuse it."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        has_begun = False

        async def noted(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        refused: HTTPException | None = None
        self._open += 1
        try:
            await self._serve(scope, _timely(receive), noted)
        except HTTPException as error:
            refused = error
        except Exception as error:  # gradio's own answer is a traceback in the log, which may quote a visitor
            log_kind_and_place(error)
            refused = _refusal(error)
        finally:
            self._open -= 1
        if refused is not None and not has_begun:
            text = PlainTextResponse(refused.detail, refused.status_code, refused.headers)
            await text(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._open > MAX_OPEN:
            raise HTTPException(503, "Too many people are here at the moment: come back in a minute.")
        kind = _kind(scope["path"])
        if kind is None:
            raise HTTPException(404, "This is not served here.")
        most = {"upload": MAX_UPLOAD, "mcp": MAX_ENCODED}.get(kind, MAX_QUESTION)
        length = dict(scope["headers"]).get(b"content-length", b"")
        length = int(length) if length.isdigit() else None
        if length is not None and length > most:
            await _discard(receive, 4 * most)
            raise HTTPException(413, _too_large(most))
        if kind in ("queue", "call"):
            send = _friendly_when_full(scope, receive, send)
        if scope["method"] != "POST" or kind not in ("upload", "mcp"):
            return await self.app(scope, _bounded(receive, most), send)
        client = (scope.get("client") or ("",))[0]
        if self._uploads[client] >= MAX_UPLOADS_EACH:
            await _discard(receive, most)
            raise HTTPException(429, "Many pictures come from you at once: wait until they have arrived.")
        size = max(most if length is None else length, FILE_COST)
        self._coming += size
        self._uploads[client] += 1
        try:
            if not await asyncio.to_thread(make_room, self.folder, self._coming, self.age):
                await _discard(receive, most)
                raise HTTPException(503, "Too many pictures came at once: try again in a few minutes.")
            await self.app(scope, _bounded(receive, most, kind == "upload"), send)
        finally:
            self._coming -= size
            self._uploads[client] -= 1
            self._uploads += Counter()  # forgets the addresses that send nothing


def _kind(path: str) -> str | None:
    """The part of gradio's API that a path asks for, "" for the page itself, and None for what is not served."""
    # Names that no file can have, and those that would forge lines of a log.
    if _CONTROL.search(path) or any(len(part.encode()) > 255 for part in path.split("/")):
        return None
    _, api, rest = path.partition("/gradio_api/")
    if not api:
        return ""
    kind = rest.split("/")[0].split("=")[0]
    # Gradio would fetch an address that stands in place of a file.
    return kind if kind in _SERVED and not (kind == "file" and "://" in rest) else None


def _refusal(error: Exception) -> HTTPException:
    """What a visitor hears of an error that gradio did not expect; most come from odd questions."""
    if isinstance(error, (KeyError, FnIndexInferError)):
        return HTTPException(404, "There is no such function here.")
    if isinstance(error, (TypeError, ValueError, RecursionError, httpx.InvalidURL)):
        return HTTPException(400, "This request cannot be read.")
    return HTTPException(500, "Something went wrong here; it is not your fault.")


def _too_large(most: int) -> str:
    what = f"{most >> 20} MB" if most > MAX_QUESTION else "1 MB, which no question needs"
    return f"This is larger than {what}: make it smaller."


async def _discard(receive: Receive, most: int) -> None:
    """Read a body that is not too long, and forget it: clients read no answer before they have sent everything."""
    seen, more = 0, True
    while more and seen <= most:
        message = await receive()
        seen += len(message.get("body", b""))
        more = message.get("more_body", False)


def _timely(receive: Receive) -> Receive:
    """Cut off a body that does not arrive: whoever sends it holds a slot meanwhile."""
    deadline, more = time.monotonic() + TOO_SLOW, True

    async def timely() -> Message:
        nonlocal more
        if not more:  # this waits until the client hangs up, after its answer
            return await receive()
        try:
            message = await asyncio.wait_for(receive(), min(STALLED, max(0.0, deadline - time.monotonic())))
        except asyncio.TimeoutError:
            more = False
            close = {"Connection": "close"}
            raise HTTPException(408, "The rest of this request did not arrive in time.", close) from None
        more = message.get("more_body", False)
        return message

    return timely


def _bounded(receive: Receive, most: int, is_upload: bool = False) -> Receive:
    """Bound a body that does not say its length; an upload that breaks off or is too large leaves nothing on disk."""
    seen = 0

    async def bounded() -> Message:
        nonlocal seen
        # MultiPartException is the only error at which gradio deletes what it has written so far.
        try:
            message = await receive()
        except HTTPException as error:
            raise MultiPartException(error.detail) if is_upload else error from None
        seen += len(message.get("body", b""))
        if is_upload and message["type"] == "http.disconnect":
            raise MultiPartException("The client has hung up.")
        if seen > most:
            text = _too_large(most)
            raise MultiPartException(f"{text} (maximum allowed size)") if is_upload else HTTPException(413, text)
        return message

    return bounded


def _friendly_when_full(scope: Scope, receive: Receive, send: Send) -> Send:
    """Say what to do when the queue is full; gradio says only how long it is."""
    is_full = False

    async def friendly(message: Message) -> None:
        nonlocal is_full
        if message["type"] == "http.response.start" and message["status"] == 503:
            is_full = True
            text = "Very many people are asking at the moment: ask again in a minute."
            await JSONResponse({"detail": text}, 503)(scope, receive, send)
        if not is_full:
            await send(message)

    return friendly
