"""JSON files that appear whole, and tables as JSON."""

from __future__ import annotations

import json
import os
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_type_hints

from .atomic import atomic_path

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")


def write_json(path: str | os.PathLike, content: Any) -> None:
    """Write `content` to `path` as indented JSON."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_text(path, text)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write `text` to `path` in UTF-8."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: Path) -> dict[str, Any] | None:
    """Read the object in a JSON file, None if there is no file; raise ValueError if it holds something else."""
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}; repair it or move it away") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds {type(content).__name__}, not an object; repair it or move it away")
    return content


def from_json(cls: type[T], values: Mapping[str, Any], source: str | os.PathLike) -> T:
    """Make a dataclass of what a JSON file holds; ValueError for a field that is unknown, missing, or of another type.

    Errors call the file `source`.
    """
    from huggingface_hub.dataclasses import type_validator  # slow to import, and commands write JSON before

    kinds = get_type_hints(cls)
    for name, value in values.items():
        if name not in kinds:
            raise ValueError(f"{source} has a field {name!r}, which this version does not know")
        try:
            type_validator(name, value, kinds[name])
        except TypeError:
            kind = getattr(kinds[name], "__name__", "") if not get_args(kinds[name]) else str(kinds[name])
            raise ValueError(f"{source}: {name} is {reprlib.repr(value)}, but must be of type {kind}") from None
    try:
        return cls(**values)
    except TypeError as error:
        raise ValueError(f"{source}: {error}") from None


def json_records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table as JSON records; missing values and NaN become None."""
    return table.astype(object).where(table.notna(), None).to_dict("records")
