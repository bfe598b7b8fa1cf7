"""JSON files that appear whole, and tables as JSON."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from .atomic import atomic_path

if TYPE_CHECKING:
    import pandas as pd


def write_json(path: str | os.PathLike, content: Any) -> None:
    """Write `content` to `path` as indented JSON.

    Raises:
        ValueError: `content` holds NaN or infinity, which JSON cannot express; use None instead.
    """
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_text(path, text)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write `text` to `path` in UTF-8."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def json_records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table as JSON records; missing values and NaN become None."""
    return table.astype(object).where(table.notna(), None).to_dict("records")
