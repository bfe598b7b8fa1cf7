"""What of a run's files may be published: everything but where on this machine things lie."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

# An absolute path, or one from a home folder, that a longer text holds. Not a fraction, nor what follows in a URL.
_PATH = re.compile(r"(?<![\w./~])(?:file://)?(?:~[\w.-]*/|[A-Za-z]:\\|/(?![/\s]))[^\s'\"`,;()\[\]{}<>|]*")


def public(value: Any) -> Any:
    """JSON content with the folders of this machine by their names alone; dicts and lists are gone through.

    "/home/me/runs/a" becomes "a", and so does such a path inside a longer text, a command for one.
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


def public_model_name(name: str | None, is_local: bool | None = None) -> str | None:
    """A model's Hub id as it is, a folder by its name alone: one that is there, or is known to have been one."""
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
