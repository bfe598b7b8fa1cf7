"""Checks that a file is what was published: not a Git LFS pointer, and with the published SHA-256.

Checksums that took long to compute are noted in the cache: one file for each folder, best effort.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from huggingface_hub.utils.sha import sha_fileobj

from .cache import cache_folder
from .json_files import write_json

_POINTER = b"version https://git-lfs"
_VERIFIED: set[tuple[str, int, int, str]] = set()
"""Files with a verified SHA-256, so that a process reads a large file only once for that."""


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    with open(path, "rb") as file:
        return sha_fileobj(file).hex()


def file_state(path: Path) -> list[int]:
    """What tells whether a file has changed without reading it: its size, time of change and inode."""
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ino]


def recall(folder: Path) -> dict[str, Any]:
    """Return what `remember` has noted of a folder; an empty dictionary if that is nothing, or damaged."""
    with suppress(OSError, ValueError, RecursionError):
        found = json.loads(_notes(folder).read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    return {}


def remember(folder: Path, notes: dict[str, Any]) -> None:
    """Note something about the files of a folder; where that cannot be written, it is computed again next time."""
    with suppress(OSError):
        write_json(_notes(folder), notes)


def _notes(folder: Path) -> Path:
    return cache_folder("checksums") / f"{hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()}.json"


def is_pointer(path: Path) -> bool:
    """Whether the file is a Git LFS pointer in place of a large file."""
    with open(path, "rb") as file:
        return file.read(len(_POINTER)) == _POINTER


def refuse_pointer(path: Path, name: str) -> None:
    """Raise ValueError if the file is a Git LFS pointer."""
    if is_pointer(path):
        raise ValueError(
            f"{name} is only a Git LFS pointer, not the file itself: run `git lfs pull` where it was cloned, or "
            "download it from the Hub"
        )


def verify_cached(path: Path, name: str, repo_id: str | None, inside: str) -> None:
    """Compare a large file in the Hub's cache with its SHA-256, which is its name in the cache.

    Files that are not in the folder of a commit in the cache are not checked. `inside` is the path in the repository.
    """
    expected = path.resolve().name if path.is_symlink() else ""
    if re.fullmatch("[0-9a-f]{64}", expected):
        place = f"{repo_id!r}, {inside!r}" if repo_id else "REPOSITORY, FILE"
        again = f"huggingface_hub.hf_hub_download({place}, force_download=True)"
        require_sha256(path, expected, name, f"the copy in the cache is damaged; {again} downloads it again")


def require_sha256(path: Path, expected: str, name: str, otherwise: str) -> None:
    """Check the SHA-256 of a file, once in a process; errors call it `name`, and end with `otherwise`."""
    state = path.stat()
    known = (str(path.resolve()), state.st_mtime_ns, state.st_size, expected)
    if known in _VERIFIED:
        return
    found = sha256_of(path)
    if found != expected:
        raise ValueError(f"{name} has the SHA-256 {found}, expected {expected}: {otherwise}")
    _VERIFIED.add(known)
