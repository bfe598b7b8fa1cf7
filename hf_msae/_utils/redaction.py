"""Removing the folders of this machine from what is published."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

# An absolute path, or one in a home folder, inside a longer text; but not a fraction or part of a URL.
_PATH = re.compile(r"(?<![\w./~])(?:file://)?(?:~[\w.-]*/|[A-Za-z]:\\|/(?![/\s]))[^\s'\"`,;()\[\]{}<>|]*")


def public(value: Any) -> Any:
    """Replace local paths in JSON content, including dicts and lists, by their last component.

    "/home/me/runs/a" becomes "a", also inside a longer text such as a command.
    """
    if isinstance(value, dict):
        return {key: public(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [public(each) for each in value]
    if not isinstance(value, str):
        return value
    if _is_absolute(value):
        return _name(value)
    return _PATH.sub(lambda found: _name(found.group()), value)


def local_paths(text: str) -> list[str]:
    """Find the absolute paths in a text that lead into folders of this machine, such as /home/me, sorted."""
    found = {each.group().removeprefix("file://").rstrip(".:!?") for each in _PATH.finditer(text)}
    # What a path leads to may have been moved; its first two folders say whose machine it is.
    firsts = {path: Path(path).parts[:3] for path in found if Path(path).is_absolute()}
    return sorted(path for path, parts in firsts.items() if len(parts) == 3 and os.path.exists(Path(*parts)))


def public_model_name(name: str | None, is_local: bool | None = None) -> str | None:
    """Return the Hub id of a model unchanged, and only the name of an existing or (`is_local`) former folder."""
    if name is None or "://" in name:
        return name
    if is_local or Path(name).expanduser().is_dir():
        return Path(name).expanduser().resolve().name
    return public(name)


def _is_absolute(value: str) -> bool:
    one_line = "\n" not in value and not re.search(r"\s/|\s~", value)
    return one_line and (value.startswith(("/", "~/")) or PureWindowsPath(value).is_absolute())


def _name(path: str) -> str:
    kind = PureWindowsPath if re.match(r"[A-Za-z]:\\", path) else PurePosixPath
    return kind(path.removeprefix("file://")).name
