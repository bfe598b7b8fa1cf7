"""What strangers leave behind is removed: pictures and answers after a while, at the latest at the next start."""

from __future__ import annotations

import asyncio
import ctypes
import inspect
import logging
import os
import shutil
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None

logger = logging.getLogger(__name__)

MAX_DISK = 2**30
"""Bytes of all pictures on disk, sent and received. Gradio has no limit on them."""
SPARED = 600
"""Seconds for which a picture is kept even if the disk is full: somebody is looking at it."""
FILE_COST = 2**16
"""Bytes that every file counts for at least, so that there cannot be too many tiny ones."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # as malloc.h numbers them
_MOST_KEPT = 2**20

_own: dict[str, tempfile.TemporaryDirectory] = {}
_making_room = threading.Lock()


def own_folder(prefix: str, parent: str | None = None) -> tempfile.TemporaryDirectory:
    """Make a temporary folder of this process, and remove those of its kind that killed processes have left.

    It is removed when nobody holds it any longer, or the process ends. Until then the process has a lock on it, which
    even a killed process gives up. `prefix` begins its name and tells the kind; `parent` is the folder it is made in.
    """
    made = tempfile.TemporaryDirectory(prefix=prefix, dir=parent)
    folder = Path(made.name)
    if fcntl is None:
        return made
    try:
        weakref.finalize(made, os.close, _lock(folder, fcntl.LOCK_EX))
    except FileNotFoundError:  # another process took it for one that was left, before it was locked
        return own_folder(prefix, parent)
    for other in folder.parent.glob(f"{prefix}*"):
        with suppress(OSError):  # it is used, or belongs to somebody else, or another process removes it too
            if other == folder or other.is_symlink() or other.stat().st_uid != os.getuid():
                continue
            descriptor = _lock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                shutil.rmtree(other)
            finally:
                os.close(descriptor)
    return made


def _lock(folder: Path, how: int) -> int:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, how)
    except OSError:
        os.close(descriptor)
        raise
    if not folder.exists():
        os.close(descriptor)
        raise FileNotFoundError(folder)
    return descriptor


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
        uploads = own_folder("msae-uploads-", named or None)
        _own[uploads.name] = uploads
        os.environ["GRADIO_TEMP_DIR"] = uploads.name
    return Path(os.environ["GRADIO_TEMP_DIR"])


@contextmanager
def gradio_without_stubs() -> Iterator[None]:
    """Context in which gradio is imported without making a stub of each component for editors, which takes 1.6 s."""
    getfile = inspect.getfile

    def no_file_of_a_component(thing: Any) -> str:
        if str(getattr(thing, "__module__", "")).startswith("gradio."):
            raise OSError  # as for a component without a file, of which gradio makes no stub
        return getfile(thing)

    inspect.getfile = no_file_of_a_component
    try:
        yield
    finally:
        inspect.getfile = getfile


def make_room(folder: Path, wanted: int, age: float, most: int | None = None) -> bool:
    """Delete the files below a folder that are too old, and then the oldest while there are too many.

    `wanted` bytes are about to come, files are deleted after `age` seconds in any case, and all of them may have
    `most` bytes together (by default `MAX_DISK`). No file younger than `SPARED` seconds is deleted to make room.
    Returns whether there is room now.
    """
    most, now, files = MAX_DISK if most is None else most, time.time(), []
    with _making_room:  # two at a time would both delete for what both want
        for parent, _, names in os.walk(folder):  # unlike rglob, it bears that a folder goes meanwhile
            for path in (Path(parent, name) for name in names):
                with suppress(FileNotFoundError):  # gradio moves files
                    found = path.lstat()
                    # The ctime says when it came: it is renewed when an upload moves to its place or is served again.
                    files.append((found.st_ctime, max(found.st_size, FILE_COST), path))
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

    Gradio keeps the last values of their inputs, words among them, until `MAX_SESSIONS` others have come. Of the other
    sessions, drop what it keeps for deep links, which are closed here: a description of the whole page for each.
    """
    oldest = datetime.now() - timedelta(seconds=age)
    with holder.lock:
        for state in holder.session_data.values():
            state.config_values.clear()
        for session, used in [*holder.time_last_used.items()]:
            if used < oldest:
                holder.session_data.pop(session, None)
                holder.time_last_used.pop(session, None)


def forget_answers(blocks: Any, finished: dict[str, float], age: float) -> None:
    """Drop the answers that nobody has fetched for `age` seconds, and the names of files that are gone.

    Gradio keeps a queue of answers for every session, and for every question of a program, for ever. `finished` says
    when each session was first seen without a question that waits, and is kept up to date here.
    """
    queue, now = blocks._queue, time.monotonic()
    waiting = {event.session_hash for event in [*queue.event_ids_to_events.values()]}
    for session in waiting & finished.keys():
        del finished[session]
    for session in [*queue.pending_messages_per_session]:
        if session not in waiting and now - finished.setdefault(session, now) > age:
            for kept in (finished, queue.pending_messages_per_session, queue.pending_event_ids_session):
                kept.pop(session, None)
    for names in blocks.temp_file_sets:
        names.difference_update([name for name in [*names] if not os.path.exists(name)])


def keep_heaps_small() -> None:
    """Let threads give memory back as soon as they free it, where the C library is glibc.

    By default, glibc raises two limits when it frees a larger block than before: the size of blocks that come from its
    heaps (up to 32 MB), and the free memory that it keeps at the end of each heap (up to 64 MB). Threads have up to
    eight heaps for each core, and `malloc_trim` gives back the end of the first heap only: on two cores, up to 1 GB
    stays. Whoever sets glibc's own variables knows better.
    """
    chosen = {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"} & os.environ.keys()
    if sys.platform == "linux" and not chosen and hasattr(library := ctypes.CDLL(None), "mallopt"):
        for limit in (_MMAP_THRESHOLD, _TRIM_THRESHOLD):
            library.mallopt(limit, _MOST_KEPT)


def give_back_memory() -> None:
    """Give the memory that is free amid the heaps back to the system, where the C library is glibc."""
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(0)


def keeping(folder: Path, every: float, age: float) -> Any:
    """Make a lifespan for the server that deletes and forgets, every so many seconds, what is older than `age`."""

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[Mapping[str, Any] | None]:
        async def tidy() -> None:
            finished: dict[str, float] = {}
            while True:
                await asyncio.sleep(every)
                try:
                    await asyncio.to_thread(make_room, folder, 0, age)
                except OSError as error:  # the next time may do better; the message holds names of files
                    logger.error("old uploads could not be deleted: %s", type(error).__name__)
                forget_sessions(app.state_holder, age)
                forget_answers(app.get_blocks(), finished, age)
                await asyncio.to_thread(give_back_memory)

        keep_heaps_small()
        task = asyncio.create_task(tidy())
        try:
            yield None
        finally:
            task.cancel()

    return lifespan
