"""Append-only files of JSON records, which survive a process that is killed while it writes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from transformers.utils import logging

logger = logging.get_logger(__name__)


class JsonLines:
    """A file with one JSON record a line, read once and appended to; the first line says its format.

    A last line without its end was cut off by a kill: it is dropped, and overwritten by the next record.
    """

    def __init__(self, path: str | os.PathLike, version: int = 1) -> None:
        self.path, self.version = Path(path), version
        self.records: list[dict[str, Any]] = []
        self._end = 0
        if self.path.exists():
            self._read()

    def _read(self) -> None:
        content = self.path.read_bytes()
        whole, _, rest = content.rpartition(b"\n")
        self._end = len(content) - len(rest)
        if rest:
            logger.warning(f"{self.path} ends in the middle of a record, which is dropped")
        for number, line in enumerate(whole.split(b"\n") if self._end else (), start=1):
            try:
                record = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{self.path}, line {number} is not JSON ({error}): remove the line") from error
            if not isinstance(record, dict):
                raise ValueError(f"{self.path}, line {number} is not a JSON object: remove the line")
            self.records.append(record)
        if self.records and (found := self.records.pop(0).get("format")) != self.version:
            raise ValueError(
                f"{self.path} has the format {found}, and this version of hf_msae reads {self.version}: use another "
                "folder, or remove the file"
            )

    def append(self, *records: dict[str, Any]) -> None:
        """Write records to the end of the file, on the disk when this returns."""
        written = records if self._end else ({"format": self.version}, *records)
        lines = b"".join(json.dumps(each, ensure_ascii=False, allow_nan=False).encode() + b"\n" for each in written)
        with open(self.path, "r+b" if self.path.exists() else "x+b") as file:
            file.seek(self._end)
            file.truncate()
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())
        self._end += len(lines)
        self.records.extend(records)
