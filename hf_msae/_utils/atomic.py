"""Writing files and folders atomically: under a temporary name, renamed when complete."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import psutil

_SUFFIX = ".tmp"
_STALE_SECONDS = 7 * 24 * 3600.0
"""Temporary files of other machines are removed only after a week: on a shared file system, their process may still
write them."""


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write a file or folder to, and rename it to `path` once the block ends.

    Readers see the old content or the new, never a part: the data is flushed to disk before the rename. If the block
    raises, the temporary file is removed and `path` is left unchanged. What killed processes of this machine left of
    the same path is removed first, and what other machines left after a week. A symbolic link is followed, not
    replaced; a folder that is there must be empty. A path that begins with ~ is in the home folder.
    """
    path = _target(path)
    _remove_leftovers(path)
    temporary = _temporary(path)
    try:
        yield temporary
        _open_up(temporary)
        _flush(temporary)
        os.replace(temporary, path)
        _flush_folder(path.parent)
    finally:
        remove(temporary)


def check_writable(path: str | os.PathLike) -> None:
    """Raise the OSError that writing to `path` would end in, before the work whose result belongs there."""
    temporary = _temporary(_target(path))
    try:
        temporary.touch()
    finally:
        temporary.unlink(missing_ok=True)


def _target(path: str | os.PathLike) -> Path:
    path = Path(path).expanduser()
    if path.is_symlink():
        path = path.resolve()
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(f"{path} is not a regular file: choose another path to write to")
    return path


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}-{_machine()}{_SUFFIX}")


@cache
def _machine() -> str:
    """Return what tells process numbers of this machine and container from those of others; "" if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        return hashlib.sha256(f"{boot} {os.readlink('/proc/self/ns/pid')}".encode()).hexdigest()[:12]
    except OSError:  # not Linux
        return ""


def make_folder(path: str | os.PathLike) -> Path:
    """Create the folder that results go to if it does not exist, and return it, with ~ as the home folder.

    At most one of its parents is created as well: where more are missing, the path is probably mistyped.
    """
    path = Path(path).expanduser()
    check_parents(path)
    path.mkdir(parents=True, exist_ok=True)
    return path


def check_parents(path: Path) -> None:
    """Raise FileNotFoundError if `make_folder` would."""
    missing = [each for each in (path, *path.parents) if not each.exists()]
    if len(missing) > 2:
        raise FileNotFoundError(f"{missing[-1]} does not exist: create it, or correct the path {path}")


def is_leftover(file: Path, of: Sequence[str]) -> bool:
    """Whether a file is what a killed process left while it was writing one whose name begins like one of these."""
    return file.name.endswith(_SUFFIX) and file.name.lstrip(".").startswith(tuple(of))


def remove(path: Path) -> None:
    """Remove a file or a folder with its contents; do nothing if there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _remove_leftovers(path: Path) -> None:
    prefix = f".{path.name}."
    if not path.parent.is_dir():
        return
    for other in path.parent.iterdir():
        if not (other.name.startswith(prefix) and other.name.endswith(_SUFFIX)):
            continue
        process, _, rest = other.name[len(prefix) : -len(_SUFFIX)].partition("-")
        if not process.isdecimal():
            continue
        try:
            if _machine() and rest.endswith(f"-{_machine()}"):
                is_left = not psutil.pid_exists(int(process))
            else:
                is_left = time.time() - other.stat().st_mtime > _STALE_SECONDS
            if is_left:
                remove(other)
        except FileNotFoundError:  # another process removed it meanwhile
            continue


def _files(path: Path) -> list[Path]:
    return [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]


def _open_up(path: Path) -> None:
    """Give files that safetensors has written for their owner alone the mode that other new files get."""
    private = [file for file in _files(path) if file.suffix == ".safetensors" or file == path]
    private = [file for file in private if stat.S_IMODE(file.stat().st_mode) == 0o600]
    if private:
        probe = path.with_name(f"{path.name}-mode{_SUFFIX}")  # reading the umask would change it for other threads
        probe.touch()
        mode = stat.S_IMODE(probe.stat().st_mode)
        probe.unlink()
        for file in private:
            file.chmod(mode)


def _flush(path: Path) -> None:
    for file in _files(path):
        with open(file, "rb+") as handle:
            os.fsync(handle.fileno())


def _flush_folder(folder: Path) -> None:
    if os.name != "posix":  # elsewhere a folder cannot be opened
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
