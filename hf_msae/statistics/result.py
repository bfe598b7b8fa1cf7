"""The base of results: small frozen dataclasses that become tables, JSON, a figure and a sentence."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .._utils.atomic import make_folder
from .._utils.json_files import json_records, write_json

if TYPE_CHECKING:
    from typing import Self

    from matplotlib.figure import Figure


class Result:
    """Base of frozen dataclasses that hold what an analysis found.

    A subclass declares its fields, numbers and strings as well as DataFrames, and writes `verdict` and, if there is
    something to draw, `plot`. A field with `metadata={"key": "concepts"}` has that name in dictionaries and JSON; a
    table that may be empty needs `metadata={"columns": [...]}`, because JSON records do not keep its columns; or
    `metadata={"columns_if_empty": [...]}`, if only some results have all of its columns.

    Example:
        >>> @dataclass(frozen=True)
        ... class Accuracy(Result):
        ...     frame: pd.DataFrame
        ...     chance: float
        ...
        ...     def verdict(self) -> str:
        ...         return f"{(self.frame['value'] > self.chance).sum()} of {len(self.frame)} beat chance"
    """

    def verdict(self) -> str:
        """Say in one sentence what was found."""
        raise NotImplementedError(f"{type(self).__name__} has no verdict")

    def plot(self) -> Figure:
        """Draw what was found."""
        raise NotImplementedError(f"{type(self).__name__} has no figure")

    def to_pandas(self) -> pd.DataFrame:
        """Return a copy of the first table."""
        for field in dataclasses.fields(self):
            if isinstance(value := getattr(self, field.name), pd.DataFrame):
                return value.copy()
        raise NotImplementedError(f"{type(self).__name__} has no table")

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON can hold it: tables as lists of records, missing values as None."""
        return {_key(field): _as_json(getattr(self, field.name)) for field in dataclasses.fields(self)}

    def save(self, path: str | os.PathLike) -> None:
        """Write `to_dict` as JSON."""
        make_folder(Path(path).parent)
        write_json(path, self.to_dict())

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """Build a result from what `to_dict` returned; keys that are not fields are ignored.

        Raises:
            ValueError: A field is missing.
        """
        values = {}
        for field in dataclasses.fields(cls):
            key = _key(field)
            if key in content:
                is_table = field.type in ("pd.DataFrame", pd.DataFrame)
                value = content[key]
                columns = field.metadata.get("columns", None if value else field.metadata.get("columns_if_empty"))
                values[field.name] = pd.DataFrame(value, columns=columns) if is_table else value
            elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                raise ValueError(f"this is not a saved {cls.__name__}: it has no {key!r}")
        return cls(**values)

    @classmethod
    def load(cls, path: str | os.PathLike) -> Self:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file is not JSON, or not of this class.
        """
        try:
            content = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
            if not isinstance(content, dict):
                raise ValueError(f"it holds a {type(content).__name__}")
            return cls.from_dict(content)
        except ValueError as error:
            raise ValueError(f"{path} cannot be read as {cls.__name__}: {error}") from error

    def __str__(self) -> str:
        return self.verdict()


def _key(field: dataclasses.Field) -> str:
    return field.metadata.get("key", field.name)


def _as_json(value: Any) -> Any:
    if isinstance(value, pd.DataFrame):
        return json_records(value)
    if isinstance(value, np.ndarray | np.generic):
        return _as_json(value.tolist())
    if isinstance(value, dict):
        return {str(key): _as_json(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(each) for each in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
