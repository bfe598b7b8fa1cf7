"""The files that a release sends, and msae_files.json, which lists what earlier ones have sent.

Nothing but what is listed there is ever deleted, and in a Space nothing else is replaced.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete

from .repository import Snapshot

MANIFEST = "msae_files.json"
_VERSION = 1


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
    """Make the list of the files that are sent.

    Args:
        files: Path in the folder -> file.
        prefix: The folder in the repository, with a slash at its end.
        card: SHA-256 of the card, if it holds no edits that were made on the Hub.
    """
    content = {"format_version": _VERSION, "files": {name: sha256_of(files[name]) for name in sorted(files)}}
    content |= {} if card is None else {"card": card}
    return CommitOperationAdd(prefix + MANIFEST, (json.dumps(content, indent=2) + "\n").encode())


def read_manifest(there: Snapshot, name: str, prefix: str = "") -> tuple[dict[str, str], str | None]:
    """Read the list in a folder of the repository `name`: path in the folder -> SHA-256, and SHA-256 of the card.

    Raises:
        ValueError: The list is damaged, or was written by a newer version.
    """
    text, file = there.read(prefix + MANIFEST), f"{prefix}{MANIFEST} of {name}"
    if text is None:
        return {}, None
    try:
        content = json.loads(text)
        version, files = content["format_version"], content["files"]
        if not all(isinstance(each, str) for item in files.items() for each in item):
            raise TypeError("files does not map paths to digests")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{file} is damaged ({error!r}): repair or delete it on the Hub") from error
    if version > _VERSION:
        raise ValueError(f"{file} was written by a newer hf_msae (format {version}): install that")
    return files, content.get("card")


def stale_files(
    there: Snapshot, sent: Mapping[str, str], kept: set[str], prefix: str = ""
) -> list[CommitOperationDelete]:
    """Files that were sent before, are unchanged, and are not among those that are `kept`."""
    stale = sorted(set(sent) - kept)
    return [CommitOperationDelete(prefix + name) for name in stale if there.holds(prefix + name, sent[name])]
