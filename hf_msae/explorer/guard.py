"""What strangers can make the page's server do, beside asking: fetch nothing, keep little, and not for long."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .inputs import MAX_BYTES

logger = logging.getLogger(__name__)

MAX_UPLOAD = MAX_BYTES + 2**16
"""Bytes of a request with a picture: one, and what stands around it. Gradio's own limit is for each of 1,000 files."""
MAX_ENCODED = MAX_UPLOAD * 4 // 3
"""Of an MCP request, which may hold a picture in base64."""
MAX_QUESTION = 2**20
"""Of any other request."""
MAX_DISK = 2**30
"""Of all pictures together that are kept, sent and received."""
MAX_SESSIONS = 500
"""Visitors of whom gradio remembers what they have chosen, some 0.3 MB each; the rest is forgotten."""
MAX_OPEN = 2000
"""Requests at a time, of which a page that is open holds two or three."""
SPARED = 600
"""Seconds for which a picture is kept even when the disk is full: somebody is looking at it."""
_FILE_COST = 2**16
"""Bytes that a file counts at least as, so that many tiny ones are too many as well."""
_SERVED = frozenset(
    "api app_id call cancel file heartbeat info login_check mcp openapi.json queue reset run startup-events theme.css "
    "token upload upload_progress user".split()
)
"""What page and clients use of gradio's API. The rest fetches addresses, keeps sessions, or cuts videos."""
_ELSEWHERE = ("monitoring",)


_own: set[str] = set()


def own_upload_folder() -> Path:
    """A folder of this process for what visitors send and are sent, which goes when it ends; the same at every call.

    It lies in the folder that GRADIO_TEMP_DIR names, or in that for temporary files; then GRADIO_TEMP_DIR names it.
    Gradio's own default is one folder for all pages of a machine, in which nothing may be deleted that is old, and
    files stay. To be called before gradio is imported, parts of which read the variable only then.
    """
    named = os.environ.get("GRADIO_TEMP_DIR")
    if named not in _own:
        if named:
            Path(named).mkdir(parents=True, exist_ok=True)
        uploads = tempfile.TemporaryDirectory(prefix="msae-uploads-", dir=named or None)
        atexit.register(uploads.cleanup)
        _own.add(uploads.name)
        os.environ["GRADIO_TEMP_DIR"] = uploads.name
    return Path(os.environ["GRADIO_TEMP_DIR"])


def make_room(folder: Path, wanted: int, age: float, most: int | None = None) -> bool:
    """Delete files that are too old, and then the oldest while there is too much.

    Args:
        folder: with nothing else in it.
        wanted: bytes that are to come.
        age: seconds after which a file is deleted in any case.
        most: bytes that all may have together; by default `MAX_DISK`.

    Returns:
        Whether there is room now. None is made by deleting what is younger than `SPARED` seconds.
    """
    most, now, files = MAX_DISK if most is None else most, time.time(), []
    for path in folder.rglob("*"):
        try:
            found = path.lstat()
        except FileNotFoundError:  # gone meanwhile
            continue
        if not path.is_dir():
            # When it came: renaming an upload into its place, and handing it out again, renew this time.
            files.append((found.st_ctime, max(found.st_size, _FILE_COST), path))
    total = wanted + sum(size for _, size, _ in files)
    for came, size, path in sorted(files):
        if now - came <= age and (total <= most or now - came <= SPARED):
            break
        path.unlink(missing_ok=True)
        if path.parent != folder:
            try:
                path.parent.rmdir()
            except OSError:  # it holds something else
                pass
        total -= size
    return total <= most


def forget_sessions(holder: Any, age: float) -> None:
    """Drop what gradio remembers of sessions that have been still for so many seconds.

    It keeps the last values of their inputs, words among them, until so many others have come.
    """
    oldest = datetime.now() - timedelta(seconds=age)
    with holder.lock:
        for session, used in [*holder.time_last_used.items()]:
            if used < oldest:
                holder.session_data.pop(session, None)
                holder.time_last_used.pop(session, None)


class Guard:
    """ASGI middleware that lets only those requests through that page and clients need, and none that is too large.

    Args:
        app: what is guarded.
        folder: where it keeps what visitors send and are sent.
        age: seconds after which that is deleted.
    """

    def __init__(self, app: ASGIApp, folder: Path, age: float) -> None:
        self.app, self.folder, self.age = app, folder, age
        self._coming = 0  # bytes of uploads that have begun
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        if self._open >= MAX_OPEN:
            full = PlainTextResponse("Very many people are here at the moment: come back in a minute.", 503)
            return await full(scope, receive, send)
        self._open += 1
        try:
            await self._serve(scope, receive, send)
        finally:
            self._open -= 1

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = _kind(scope["path"])
        if kind is None:
            return await PlainTextResponse("This is not served here.", 404)(scope, receive, send)
        most = {"upload": MAX_UPLOAD, "mcp": MAX_ENCODED}.get(kind, MAX_QUESTION)
        said = _length(scope)
        if said is not None and said > most:
            await _read_away(receive, 4 * most)
            return await _too_large(most)(scope, receive, send)
        if kind in ("queue", "call"):
            send = _friendly_when_full(scope, receive, send)
        if scope["method"] != "POST" or kind not in ("upload", "mcp"):
            return await self.app(scope, _bounded(receive, most), send)
        size = max(most if said is None else said, _FILE_COST)
        self._coming += size
        try:
            if not await asyncio.to_thread(make_room, self.folder, self._coming, self.age):
                full = PlainTextResponse("Too many pictures have come at once: try again in some minutes.", 503)
                await _read_away(receive, most)
                return await full(scope, receive, send)
            await self.app(scope, _bounded(receive, most, kind == "upload"), send)
        finally:
            self._coming -= size


def _kind(path: str) -> str | None:
    """What part of gradio's API a path asks for; "" for what is none, as the page itself; None if it is not served."""
    _, api, rest = path.partition("/gradio_api/")
    if not api:
        return None if path.strip("/").split("/")[0] in _ELSEWHERE else ""
    kind = rest.split("/")[0].split("=")[0]
    if kind not in _SERVED:
        return None
    # Gradio would fetch an address and hand it on.
    return None if kind == "file" and "://" in rest else kind


def _length(scope: Scope) -> int | None:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return None


def _too_large(most: int) -> PlainTextResponse:
    what = f"{most >> 20} MB" if most > MAX_QUESTION else "1 MB, which no question needs"
    return PlainTextResponse(f"This is larger than {what}: make it smaller.", 413)


async def _read_away(receive: Receive, most: int) -> None:
    """Read a body and forget it: clients read an answer only when they have sent all. Not of those that never end."""
    seen, more = 0, True
    while more and seen <= most:
        message = await receive()
        seen += len(message.get("body", b""))
        more = message.get("more_body", False)


def _bounded(receive: Receive, most: int, is_upload: bool = False) -> Receive:
    """The same for a body that does not say beforehand how large it is; half an upload does not stay on the disk."""
    seen = 0

    async def bounded() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        # Of all errors, only at this one does gradio delete what it has written so far.
        if is_upload and message["type"] == "http.disconnect":
            raise MultiPartException("The client has hung up.")
        if seen > most:
            text = _too_large(most).body.decode()
            raise MultiPartException(f"{text} (maximum allowed size)") if is_upload else HTTPException(413, text)
        return message

    return bounded


def _friendly_when_full(scope: Scope, receive: Receive, send: Send) -> Send:
    """Gradio says of a queue that is full how long it is, which tells nobody what to do."""
    full = False

    async def friendly(message: Message) -> None:
        nonlocal full
        if message["type"] == "http.response.start" and message["status"] == 503:
            full = True
            text = "Very many people are asking at the moment: ask again in a minute."
            await JSONResponse({"detail": text}, 503)(scope, receive, send)
        if not full:
            await send(message)

    return friendly


def keeping(folder: Path, every: float, age: float) -> Any:
    """A lifespan for the server: every so many seconds, what is older than `age` seconds is deleted and forgotten."""

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[Mapping[str, Any] | None]:
        async def tidy() -> None:
            while True:
                await asyncio.sleep(every)
                try:
                    await asyncio.to_thread(make_room, folder, 0, age)
                    forget_sessions(app.state_holder, age)
                except OSError as error:  # the next time may do better; what it says holds names of files
                    logger.error("old uploads could not be deleted: %s", type(error).__name__)

        task = asyncio.create_task(tidy())
        try:
            yield None
        finally:
            task.cancel()

    return lifespan
