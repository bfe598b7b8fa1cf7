"""Whether a file is what it should be: no pointer in its place, and of the SHA-256 that it was published with."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

_POINTER = b"version https://git-lfs"
_VERIFIED: set[tuple[str, int, int, str]] = set()
"""Files whose SHA-256 was found to be right, so that one of gigabytes is read for that once in a process."""


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def is_pointer(path: Path) -> bool:
    """Whether the file is what Git leaves in the place of a large one."""
    with open(path, "rb") as file:
        return file.read(len(_POINTER)) == _POINTER


def refuse_pointer(path: Path, name: str) -> None:
    """Raises:
    ValueError: the file is a pointer of Git LFS.
    """
    if is_pointer(path):
        raise ValueError(
            f"{name} is only a pointer of Git LFS, not the file itself: run `git lfs pull` where it was cloned, or "
            "download it from the Hub"
        )


def verify_cached(path: Path, name: str, repo_id: str | None, inside: str) -> None:
    """Compare a large file of the Hub's cache with its SHA-256, by which the cache calls it.

    Args:
        path: in the folder of a commit in the cache; of other files nothing is known, and nothing happens.
        name: of the file, for messages.
        repo_id: its repository; None where it is not known.
        inside: the file's path in it.

    Raises:
        ValueError: it is another file than the one that was published.
    """
    expected = path.resolve().name if path.is_symlink() else ""
    if re.fullmatch("[0-9a-f]{64}", expected):
        place = f"{repo_id!r}, {inside!r}" if repo_id else "REPOSITORY, FILE"
        again = f"huggingface_hub.hf_hub_download({place}, force_download=True)"
        require_sha256(path, expected, name, f"the copy in the cache is damaged; {again} loads it anew")


def require_sha256(path: Path, expected: str, name: str, otherwise: str) -> None:
    """Args:
        path: a file, which is not read again once it was found to be right.
        expected: its SHA-256, 64 hexadecimal digits.
        name: of the file, for messages.
        otherwise: what to say where it has another.

    Raises:
        ValueError: it has another.
    """
    state = path.stat()
    known = (str(path.resolve()), state.st_mtime_ns, state.st_size, expected)
    if known in _VERIFIED:
        return
    found = sha256_of(path)
    if found != expected:
        raise ValueError(f"{name} has the SHA-256 {found}, expected {expected}: {otherwise}")
    _VERIFIED.add(known)
