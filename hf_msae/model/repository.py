"""What lies where models lie: a folder of this machine, or a repository on the Hub, or what is cached of it."""

from __future__ import annotations

import os
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError, LocalEntryNotFoundError

_DEPTH = 3


def subfolders_of(name: str | os.PathLike, revision: str | None = None, token: str | None = None) -> list[str]:
    """Folders inside a folder or repository that hold a model, sorted; for messages.

    Empty where there are none, and where the Hub cannot be asked: then another error says so.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        found = [
            path.parent.relative_to(folder).as_posix()
            for depth in range(1, _DEPTH + 1)
            for path in folder.glob("*/" * depth + "config.json")
            if any(path.parent.glob("*.safetensors"))
        ]
        return sorted(found)
    try:
        files = HfApi(token=token).list_repo_files(str(name), revision=revision)
    except (HfHubHTTPError, HFValidationError, HTTPError, OSError):
        return []
    folders = {file.removesuffix("/config.json") for file in files if file.endswith("/config.json")}
    return sorted(each for each in folders if any(file.startswith(f"{each}/model") for file in files))


def concept_tables(
    name: str | os.PathLike, revision: str | None = None, subfolder: str | None = None, token: str | None = None
) -> list[Path]:
    """The files of names beside a model, which are downloaded where it lies on the Hub; sorted.

    Offline, those that an earlier call has downloaded.

    Raises:
        huggingface_hub.errors.HfHubHTTPError: there is no such repository or revision.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        if folder.exists() or str(name).count("/") != 1:
            return []
        pattern = f"{subfolder}/concepts/*.parquet" if subfolder else "concepts/*.parquet"
        try:
            folder = Path(snapshot_download(str(name), revision=revision, token=token, allow_patterns=[pattern]))
        except LocalEntryNotFoundError:  # offline, and nothing of it was ever downloaded
            return []
    return sorted((folder / (subfolder or "")).glob("concepts/*.parquet"))
