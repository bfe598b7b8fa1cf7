"""Limits on what strangers can make the server do besides answering: fetch nothing, keep little, and not for long."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
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
"""Bytes of a request with a picture and its envelope. Gradio's own limit is per file, and a request may have 1,000."""
MAX_ENCODED = MAX_UPLOAD * 4 // 3
"""Bytes of an MCP request, which may hold a picture in base64."""
MAX_QUESTION = 2**20
"""Bytes of any other request."""
MAX_DISK = 2**30
"""Bytes of all pictures on disk, sent and received. Gradio has no limit on them."""
MAX_SESSIONS = 500
"""Visitors whose choices gradio remembers, about 0.3 MB each; the others are forgotten."""
MAX_OPEN = 2000
"""Open requests at a time; a page holds two or three. Gradio builds its own uvicorn config, without this limit."""
SPARED = 600
"""Seconds for which a picture is kept even if the disk is full: somebody is looking at it."""
_FILE_COST = 2**16
"""Bytes that every file counts for at least, so that there cannot be too many tiny ones."""
_SERVED = frozenset(
    "api app_id call cancel file heartbeat info login_check mcp openapi.json queue reset run startup-events theme.css "
    "token upload upload_progress user".split()
)
"""The part of gradio's API that pages and clients use. The rest fetches addresses, keeps sessions, or cuts videos."""

_own: set[str] = set()


def own_upload_folder() -> Path:
    """Make a folder of this process for what visitors send and get; the same at every call, and removed at the end.

    It lies in the folder that GRADIO_TEMP_DIR names, or in that for temporary files; GRADIO_TEMP_DIR then names it.
    By default, gradio uses one folder for all pages of a machine: its files stay, and other pages may need old ones.
    Call this before gradio is imported, since parts of it read the variable only then.
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
    """Delete the files that are too old, and then the oldest while there are too many.

    Args:
        folder: A folder that holds nothing else.
        wanted: Bytes that are about to come.
        age: Seconds after which a file is deleted in any case.
        most: Bytes that all files may have together; by default `MAX_DISK`.

    Returns:
        Whether there is room now. No file younger than `SPARED` seconds is deleted to make room.
    """
    most, now, files = MAX_DISK if most is None else most, time.time(), []
    for path in folder.rglob("*"):
        try:
            found = path.lstat()
        except FileNotFoundError:  # deleted meanwhile
            continue
        if not path.is_dir():
            # The ctime says when it came: it is renewed when an upload moves to its place or is served again.
            files.append((found.st_ctime, max(found.st_size, _FILE_COST), path))
    total = wanted + sum(size for _, size, _ in files)
    for came, size, path in sorted(files):
        if now - came <= age and (total <= most or now - came <= SPARED):
            break
        path.unlink(missing_ok=True)
        total -= size
        if path.parent != folder:
            with suppress(OSError):  # it holds something else
                path.parent.rmdir()
    return total <= most


def forget_sessions(holder: Any, age: float) -> None:
    """Drop what gradio remembers of sessions that were idle for `age` seconds.

    Gradio keeps the last values of their inputs, words among them, until `MAX_SESSIONS` others have come.
    """
    oldest = datetime.now() - timedelta(seconds=age)
    with holder.lock:
        for session, used in [*holder.time_last_used.items()]:
            if used < oldest:
                holder.session_data.pop(session, None)
                holder.time_last_used.pop(session, None)


class Guard:
    """ASGI middleware that passes on only requests that pages and clients need, and none that is too large.

    Args:
        app: The application.
        folder: The folder in which it keeps what visitors send and get.
        age: Seconds after which files in it are deleted.
    """

    def __init__(self, app: ASGIApp, folder: Path, age: float) -> None:
        self.app, self.folder, self.age = app, folder, age
        self._coming = 0  # bytes of uploads that have begun
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or refuse it."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        if self._open >= MAX_OPEN:
            full = PlainTextResponse("Too many people are here at the moment: come back in a minute.", 503)
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
        length = dict(scope["headers"]).get(b"content-length", b"")
        length = int(length) if length.isdigit() else None
        if length is not None and length > most:
            await _discard(receive, 4 * most)
            return await PlainTextResponse(_too_large(most), 413)(scope, receive, send)
        if kind in ("queue", "call"):
            send = _friendly_when_full(scope, receive, send)
        if scope["method"] != "POST" or kind not in ("upload", "mcp"):
            return await self.app(scope, _bounded(receive, most), send)
        size = max(most if length is None else length, _FILE_COST)
        self._coming += size
        try:
            if not await asyncio.to_thread(make_room, self.folder, self._coming, self.age):
                await _discard(receive, most)
                full = PlainTextResponse("Too many pictures came at once: try again in a few minutes.", 503)
                return await full(scope, receive, send)
            await self.app(scope, _bounded(receive, most, kind == "upload"), send)
        finally:
            self._coming -= size


def _kind(path: str) -> str | None:
    """The part of gradio's API that a path asks for, "" for the page itself, and None for what is not served."""
    _, api, rest = path.partition("/gradio_api/")
    if not api:
        return ""
    kind = rest.split("/")[0].split("=")[0]
    # Gradio would fetch an address that stands in place of a file.
    return kind if kind in _SERVED and not (kind == "file" and "://" in rest) else None


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


def _bounded(receive: Receive, most: int, is_upload: bool = False) -> Receive:
    """Bound a body that does not say its length; an upload that breaks off or is too large leaves nothing on disk."""
    seen = 0

    async def bounded() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        # MultiPartException is the only error at which gradio deletes what it has written so far.
        if is_upload and message["type"] == "http.disconnect":
            raise MultiPartException("The client has hung up.")
        if seen > most:
            text = _too_large(most)
            raise MultiPartException(f"{text} (maximum allowed size)") if is_upload else HTTPException(413, text)
        return message

    return bounded


def _friendly_when_full(scope: Scope, receive: Receive, send: Send) -> Send:
    """Say what to do when the queue is full; gradio says only how long it is."""
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
    """Make a lifespan for the server that deletes and forgets, every so many seconds, what is older than `age`."""

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[Mapping[str, Any] | None]:
        async def tidy() -> None:
            while True:
                await asyncio.sleep(every)
                try:
                    await asyncio.to_thread(make_room, folder, 0, age)
                except OSError as error:  # the next time may do better; the message holds names of files
                    logger.error("old uploads could not be deleted: %s", type(error).__name__)
                forget_sessions(app.state_holder, age)

        task = asyncio.create_task(tidy())
        try:
            yield None
        finally:
            task.cancel()

    return lifespan
