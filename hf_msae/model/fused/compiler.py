"""Compiling `entries.c` at first use, if the machine has a C compiler."""

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

from huggingface_hub import constants

from ..._utils.atomic import atomic_path

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
    """Return the functions of `entries.c`, or None after a warning if they cannot be compiled.

    The environment variable HF_MSAE_COMPILE=0 turns compiling off, CC sets the compiler, and HF_MSAE_CACHE the cache
    folder, by default `hf_msae/compiled` in HF_HOME.
    """
    if os.environ.get("HF_MSAE_COMPILE") == "0":
        return None
    try:
        try:
            library = ctypes.CDLL(str(_built()))
        except OSError:  # a damaged file
            _built().unlink(missing_ok=True)
            library = ctypes.CDLL(str(_built()))
    except (OSError, ValueError, subprocess.SubprocessError) as error:  # ValueError: a CC that no shell can read
        reason = (getattr(error, "stderr", None) or str(error)).strip()
        logger.warning("training steps will be slower, because hf_msae cannot compile its C functions: %s", reason)
        return None
    for name, arguments in _ARGUMENTS.items():
        getattr(library, name).argtypes = arguments
    library.rank_rows.restype = ctypes.c_int
    for name in _ARGUMENTS.keys() - {"rank_rows"}:
        getattr(library, name).restype = None
    return library


def _built() -> Path:
    """Return the path of the shared library; compile it if it does not exist."""
    compiler = shlex.split(os.environ.get("CC", "")) or [shutil.which("cc") or shutil.which("gcc") or ""]
    if not shutil.which(compiler[0]):
        raise OSError(f"there is no C compiler {compiler[0] or 'cc or gcc'!r} on the PATH")
    source = _SOURCE.read_bytes()
    # Machines may share a home folder, and code compiled for one processor may not run on another.
    parts = [source, _processor().encode(), repr((compiler, _FLAGS)).encode()]
    name = f"entries-{hashlib.sha256(bytes(0).join(parts)).hexdigest()[:16]}.so"
    path = _folder() / name
    if path.exists():
        return path
    with atomic_path(path) as built:  # other processes may compile it at the same time
        # Not every compiler knows the optional flags; without OpenMP there is one thread. With it, the functions share
        # the runtime and threads of torch, which is already loaded.
        for optional in (["-march=native", "-fopenmp"], ["-march=native"], []):
            finished = _compile([*compiler, *_FLAGS, *optional], built)
            if not finished.returncode:
                break
        finished.check_returncode()
    return path


@lru_cache(maxsize=1)
def _folder() -> Path:
    """Return the cache folder, or a temporary one for this process if that cannot be written to."""
    folder = Path(os.environ.get("HF_MSAE_CACHE") or Path(constants.HF_HOME) / "hf_msae" / "compiled").expanduser()
    try:
        folder = folder.resolve()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if os.access(folder, os.W_OK):
            return folder
        reason = f"{folder} cannot be written to"
    except OSError as error:
        reason = str(error)
    logger.info("compiled functions are kept for this process only: %s", reason)
    folder = tempfile.mkdtemp(prefix="hf_msae-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _compile(command: list[str], built: Path) -> subprocess.CompletedProcess:
    command = [*command, str(_SOURCE), "-o", str(built)]
    return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=120)


def _processor() -> str:
    """Describe the instruction set of this processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return "\n".join(line for line in lines[:60] if line.startswith(("model name", "flags", "Features", "CPU ")))
