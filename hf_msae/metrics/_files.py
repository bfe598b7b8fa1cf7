"""Writing small JSON files so that a reader never meets half of one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def write_json(path: str | os.PathLike, content: Any) -> None:
    """Write `content` as indented JSON to `path` by way of a temporary neighbour that is renamed into place.

    Raises:
        ValueError: `content` holds NaN or infinity, which JSON cannot express (use None).
    """
    path = Path(path)
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def json_records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table as JSON can hold them: what is missing or NaN is None."""
    return table.astype(object).where(table.notna(), None).to_dict("records")
