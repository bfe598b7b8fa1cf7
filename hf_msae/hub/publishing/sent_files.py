"""The files that a release sends, and msae_files.json, which lists what earlier ones have sent.

Nothing but what is listed there is ever deleted, and in a Space nothing else is replaced.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete

from .repository import Snapshot

MANIFEST = "msae_files.json"
FORMAT_VERSION = 1


def refuse_foreign_links(folder: Path, names: Iterable[str | Path]) -> None:
    """Raise ValueError if one of these files is a link, or lies behind a link, to something outside the folder.

    The content of a file that nobody meant to publish would be published. In a snapshot of the Hub's cache, every file
    is a link to the blobs of its repository, which is fine.
    """
    inside = folder.resolve()
    caches = [path.parent for path in inside.parents if path.name == "snapshots"]
    blobs = [cache / "blobs" for cache in caches if cache.name.startswith(("models--", "datasets--", "spaces--"))]
    for name in names:
        target = (folder / name).resolve()
        if not (target.is_relative_to(inside) or target.parent in blobs):
            raise ValueError(
                f"{folder / name} is a link to {target}, outside the folder that is published: put a copy in its "
                "place, or move the link away"
            )


def additions(folder: Path, prefix: str = "") -> dict[str, CommitOperationAdd]:
    """What is sent of a folder: path in the folder -> file, which goes to `prefix` + path in the repository."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        name: CommitOperationAdd(prefix + name, path)
        for path in paths
        if (name := path.relative_to(folder).as_posix())
    }


def sha256_of(addition: CommitOperationAdd) -> str:
    """SHA-256 of the content of a file that is to be sent."""
    return addition.upload_info.sha256.hex()


def manifest(files: Mapping[str, CommitOperationAdd], prefix: str = "", card: str | None = None) -> CommitOperationAdd:
    """Make the list of files that are sent; `card` is the SHA-256 of a card that nobody has edited on the Hub."""
    content = {"format_version": FORMAT_VERSION, "files": {name: sha256_of(files[name]) for name in sorted(files)}}
    content |= {} if card is None else {"card": card}
    return CommitOperationAdd(prefix + MANIFEST, (json.dumps(content, indent=2) + "\n").encode())


def read_manifest(there: Snapshot, name: str, prefix: str = "") -> tuple[dict[str, str], str | None]:
    """Read the list in a folder of the repository `name`: path in the folder -> SHA-256, and SHA-256 of the card."""
    content = read_listing(there.read(prefix + MANIFEST), "files", str, f"{prefix}{MANIFEST} of {name}")
    return content["files"], content.get("card")


def read_listing(text: str | None, key: str, kind: type, name: str) -> dict[str, Any]:
    """Read one of our JSON files on the Hub, which maps names to values of one kind under `key`."""
    try:
        content = {key: {}} if text is None else json.loads(text)
        version = content.get("format_version", FORMAT_VERSION)
        if not all(isinstance(value, kind) for value in content[key].values()):
            raise TypeError(f"{key} holds something else than {kind.__name__}")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{name} is damaged ({error!r}): repair or delete it on the Hub") from error
    if version > FORMAT_VERSION:
        raise ValueError(f"{name} was written by a newer hf_msae (format {version}): install that")
    return content


def stale_files(
    there: Snapshot, sent: Mapping[str, str], kept: set[str], prefix: str = ""
) -> list[CommitOperationDelete]:
    """Files that were sent before, are unchanged, and are not among those that are `kept`."""
    stale = sorted(set(sent) - kept)
    return [CommitOperationDelete(prefix + name) for name in stale if there.holds(prefix + name, sent[name])]
