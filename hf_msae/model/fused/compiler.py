"""Compiling `entries.c` at first use, if the machine has a C compiler."""

from __future__ import annotations

import _ctypes
import atexit
import ctypes
import hashlib
import logging
import os
import platform
import shlex
import shutil
import stat
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

from ..._utils.atomic import atomic_path, remove
from ..._utils.cache import cache_folder
from ..._utils.file_integrity import sha256_of
from ..._utils.json_files import write_text

logger = logging.getLogger(__name__)

_SOURCE = Path(__file__).with_name("entries.c")
_FLAGS = ("-std=gnu11", "-O3", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
_INTEGER, _POINTER = ctypes.c_int64, ctypes.c_void_p
_TABLE = [_INTEGER, _INTEGER, _INTEGER, _POINTER, _INTEGER, _INTEGER, _POINTER, _POINTER, _POINTER, _INTEGER, _INTEGER]
_ARGUMENTS = {
    "rank_rows": [_INTEGER, _POINTER, _INTEGER, _INTEGER, _POINTER, _INTEGER, _POINTER, _POINTER],
    "pack_rows": [_INTEGER, _POINTER, _INTEGER, _INTEGER, _POINTER, _POINTER, _POINTER, _POINTER],
    "cache_bytes": [],
    "pair_columns": [_INTEGER, _INTEGER, _POINTER, _INTEGER, _INTEGER, _INTEGER, _POINTER],
    "decode": [*_TABLE, _INTEGER, _POINTER],
    "add_products": [*_TABLE, _POINTER, _POINTER, _INTEGER],
    "turn_entries": [_INTEGER, _INTEGER, *[_POINTER] * 3, _INTEGER, _INTEGER, *[_POINTER] * 3],
    "add_entries": [_INTEGER, _INTEGER, _POINTER, _POINTER, _POINTER, _INTEGER, _INTEGER, _POINTER],
}
_RESULTS = {"cache_bytes": _INTEGER, "rank_rows": ctypes.c_int, "turn_entries": ctypes.c_int}


@lru_cache(maxsize=1)
def compiled_library() -> ctypes.CDLL | None:
    """Return the functions of `entries.c`, or None after a warning if they cannot be compiled.

    The environment variable HF_MSAE_COMPILE=0 turns compiling off, and CC sets the compiler.
    """
    if os.environ.get("HF_MSAE_COMPILE") == "0":
        return None
    try:
        try:
            return _loaded(_built())
        except (OSError, AttributeError):  # it cannot be loaded, or is another library
            remove(_built())
            return _loaded(_built())
    except (OSError, AttributeError, ValueError, subprocess.SubprocessError) as error:  # ValueError: an unreadable CC
        reason = (getattr(error, "stderr", None) or str(error)).strip()
        logger.warning("training steps will be slower, because hf_msae cannot compile its C functions: %s", reason)
        return None


def _loaded(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    try:
        for name, arguments in _ARGUMENTS.items():
            getattr(library, name).argtypes = arguments
            getattr(library, name).restype = _RESULTS.get(name)
    except AttributeError:
        if hasattr(_ctypes, "dlclose"):  # as long as it is open, its path stands for it
            _ctypes.dlclose(library._handle)
        raise
    return library


def _built() -> Path:
    """Return the path of the shared library; compile it if it does not exist or is not what was compiled."""
    compiler = shlex.split(os.environ.get("CC", "")) or [shutil.which("cc") or shutil.which("gcc") or ""]
    if not shutil.which(compiler[0]):
        raise OSError(f"there is no C compiler {compiler[0] or 'cc or gcc'!r} on the PATH")
    source = _SOURCE.read_bytes()
    # Machines may share a home folder, and code compiled for one processor may not run on another.
    parts = [source, _processor().encode(), repr((compiler, _FLAGS)).encode()]
    name = f"entries-{hashlib.sha256(bytes(0).join(parts)).hexdigest()[:16]}.so"
    path = _folder() / name
    checksum = path.with_suffix(".sha256")
    # A damaged library can end the process, and one of somebody else could do anything.
    if _is_own(path) and _is_own(checksum) and checksum.read_text() == sha256_of(path):
        return path
    remove(path)
    with atomic_path(path) as built:  # other processes may compile it at the same time
        # Not every compiler knows the optional flags; without OpenMP there is one thread. With it, the functions share
        # the runtime and threads of torch, which is already loaded.
        for optional in (["-march=native", "-fopenmp"], ["-march=native"], []):
            command = [*compiler, *_FLAGS, *optional, str(_SOURCE), "-o", str(built)]
            finished = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=120)
            if not finished.returncode:
                break
        finished.check_returncode()
        built.chmod(0o700)
        compiled = sha256_of(built)
    remove(checksum)
    write_text(checksum, compiled)
    checksum.chmod(0o600)
    return path


def _is_own(path: Path) -> bool:
    """Whether a file or folder, and no link, belongs to this user and nobody else can write to it."""
    try:
        found = path.lstat()
    except FileNotFoundError:  # not compiled yet
        return False
    if stat.S_ISLNK(found.st_mode):
        return False
    return os.name != "posix" or (found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


@lru_cache(maxsize=1)
def _folder() -> Path:
    """Return the cache folder, or a temporary one for this process if others can write to it."""
    folder = cache_folder("compiled", mode=0o700).resolve()
    if _is_own(folder):
        return folder
    logger.warning(
        "compiled functions are kept for this process only: %s is not a folder that this user, and nobody else, can "
        "write to; HF_MSAE_CACHE names another cache",
        folder,
    )
    temporary = tempfile.mkdtemp(prefix="hf_msae-")
    atexit.register(shutil.rmtree, temporary, ignore_errors=True)
    return Path(temporary)


def _processor() -> str:
    """Describe the instruction set of this processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return f"{platform.machine()} {platform.processor()}"
    return "\n".join(line for line in lines[:60] if line.startswith(("model name", "flags", "Features", "CPU ")))
