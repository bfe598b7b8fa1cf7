"""Paths: mistyped ones are refused at once, with what may have been meant, instead of being taken for Hub ids."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable
from itertools import takewhile
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name


def common_depth(files: Iterable[str | None]) -> int:
    """Return the number of folders that the paths of all files begin with; those of files without a path are None."""
    folders = [Path(folder).parts for folder in {os.path.dirname(file) for file in files if file}]
    return len(list(takewhile(lambda names: len(set(names)) == 1, zip(*folders, strict=False))))


def file_name(text: str) -> str:
    """Return a text as part of the name of a file, of at most 100 bytes."""
    return re.sub(r"[^\w., -]", "_", text).encode()[:100].decode(errors="ignore")


def is_saved_dataset(folder: Path) -> bool:
    """Whether `save_to_disk` wrote this folder, of a dataset or of its splits."""
    return (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file()


def did_you_mean(path: Path) -> str:
    """Suggest what exists next to the first part of a path that does not; "" if nothing is similar."""
    while not path.parent.is_dir():
        path = path.parent
    near = difflib.get_close_matches(path.name, os.listdir(path.parent), n=1)
    return f"; did you mean {path.parent / near[0]}?" if near else ""


def refuse_missing_path(name: str | os.PathLike, repo_type: str = "model") -> None:
    """Refuse a name that does not exist, if it looks like a path.

    It does if it is absolute, begins with . or ~, has several slashes, or its first part is a folder, unless a
    repository of that name is in the cache.
    """
    text, path = os.fspath(name), Path(name).expanduser()
    if path.exists():
        return
    way_out = ""
    if not (path.is_absolute() or text.startswith((".", "~")) or text.count("/") > 1):
        in_cache = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=text, repo_type=repo_type)
        if "/" not in text or not Path(path.parts[0]).is_dir() or in_cache.is_dir():
            return
        way_out = f" (for {text} on the Hub, run this where there is no folder {path.parts[0]})"
    raise FileNotFoundError(f"there is no such file or folder: {text}{did_you_mean(path)}{way_out}")
