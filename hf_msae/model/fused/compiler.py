"""Compiles `entries.c` at its first use, with the C compiler of the machine, if there is one."""

from __future__ import annotations

import atexit
import ctypes
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

logger = logging.getLogger(__name__)

_SOURCE = Path(__file__).with_name("entries.c")
_FLAGS = ("-std=gnu11", "-O3", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
_INTEGER, _POINTER = ctypes.c_int64, ctypes.c_void_p
_TABLE = [_INTEGER, _INTEGER, _POINTER, _INTEGER, _INTEGER, _POINTER, _POINTER, _POINTER, _INTEGER, _INTEGER, _POINTER]
_ARGUMENTS = {
    "rank_rows": [_INTEGER, _POINTER, _INTEGER, _INTEGER, _POINTER, _INTEGER, _POINTER, _POINTER],
    "pack_rows": [_INTEGER, _POINTER, _INTEGER, _INTEGER, _POINTER, _POINTER, _POINTER, _POINTER],
    "decode": _TABLE,
    "add_products": [*_TABLE, _POINTER, _INTEGER],
    "add_outer": _TABLE,
    "add_entries": [_INTEGER, _INTEGER, _POINTER, _POINTER, _POINTER, _INTEGER, _INTEGER, _POINTER],
}


@lru_cache(maxsize=1)
def compiled_library() -> ctypes.CDLL | None:
    """The functions of `entries.c`, or None (which the log explains, once) where they can't be had.

    The environment variable HF_MSAE_COMPILE=0 forbids compiling, CC names another compiler, and HF_MSAE_CACHE another
    place than `~/.cache/hf_msae` to keep what was compiled.
    """
    if os.environ.get("HF_MSAE_COMPILE") == "0":
        return None
    try:
        try:
            library = ctypes.CDLL(str(_built()))
        except OSError:  # a file that a crash has left incomplete, say
            _built().unlink(missing_ok=True)
            library = ctypes.CDLL(str(_built()))
    except (OSError, ValueError, subprocess.SubprocessError) as error:  # ValueError: a CC that no shell can read
        reason = (getattr(error, "stderr", None) or str(error)).strip()
        logger.warning("training steps will be slower, since hf_msae can't compile its C functions: %s", reason)
        return None
    for name, arguments in _ARGUMENTS.items():
        getattr(library, name).argtypes = arguments
    library.rank_rows.restype = ctypes.c_int
    for name in _ARGUMENTS.keys() - {"rank_rows"}:
        getattr(library, name).restype = None
    return library


def _built() -> Path:
    """The path of the shared library, compiled if it isn't there."""
    compiler = shlex.split(os.environ.get("CC", "")) or [shutil.which("cc") or shutil.which("gcc") or ""]
    if not shutil.which(compiler[0]):
        raise OSError(f"there is no C compiler {compiler[0] or 'cc or gcc'!r} on the PATH")
    source = _SOURCE.read_bytes()
    # Homes are shared between machines: what is compiled for one processor may not run on another.
    parts = [source, _processor().encode(), repr((compiler, _FLAGS)).encode()]
    name = f"entries-{hashlib.sha256(bytes(0).join(parts)).hexdigest()[:16]}.so"
    path = _folder() / name
    if path.exists():
        return path
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:  # renamed when whole: other processes compile it too
        built = Path(scratch) / name
        # Not every compiler knows the first two; without OpenMP there is one thread. It finds torch's own runtime
        # loaded, and so torch's threads.
        for optional in (["-march=native", "-fopenmp"], ["-march=native"], []):
            finished = _compile([*compiler, *_FLAGS, *optional], built)
            if not finished.returncode:
                break
        finished.check_returncode()
        os.replace(built, path)
    return path


@lru_cache(maxsize=1)
def _folder() -> Path:
    """Where to keep what was compiled; for this process alone, where there is no home to write to."""
    try:
        folder = Path(os.environ.get("HF_MSAE_CACHE") or Path.home() / ".cache" / "hf_msae").expanduser().resolve()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if os.access(folder, os.W_OK):
            return folder
        reason = f"{folder} cannot be written to"
    except (OSError, RuntimeError) as error:  # the latter: nobody knows where home is
        reason = str(error)
    logger.info("compiled functions are kept for this process alone, not in a cache: %s", reason)
    folder = tempfile.mkdtemp(prefix="hf_msae-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _compile(command: list[str], built: Path) -> subprocess.CompletedProcess:
    command = [*command, str(_SOURCE), "-o", str(built)]
    return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=120)


def _processor() -> str:
    """What tells this processor's instruction set from others."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return "\n".join(line for line in lines[:60] if line.startswith(("model name", "flags", "Features", "CPU ")))
