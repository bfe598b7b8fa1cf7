"""What a stream is made of: whether it can be continued and shared, and whether it is the one of the last time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset, IterableDataset

# Of the steps that a stream can consist of (private classes of datasets), those that keep rows in the order of the
# files, so that contiguous parts of the files make contiguous parts of the rows.
_IN_ORDER = {
    "ExamplesIterable",
    "ArrowExamplesIterable",
    "RebatchedArrowExamplesIterable",
    "SelectColumnsIterable",
    "VerticallyConcatenatedMultiSourcesExamplesIterable",
    "MappedExamplesIterable",
    "FilteredExamplesIterable",
    "FormattedExamplesIterable",
}


def check_continuable(stream: IterableDataset) -> None:
    """Raises:
    ValueError: the stream is shuffled: what waits in its buffer would be lost when it is continued.
    """
    if any("Shuffled" in name for name in _steps(stream._ex_iterable)):
        raise ValueError(
            "the stream is shuffled, so that an interrupted run could not be continued: leave out shuffle(); training "
            "shuffles embeddings anyway"
        )


def check_divisible(stream: IterableDataset, num_parts: int) -> None:
    """Raises:
    ValueError: parts of its files are no contiguous parts of its rows, or it has fewer files than that.
    """
    others = sorted(set(_steps(stream._ex_iterable)) - _IN_ORDER)
    if others:
        raise ValueError(
            f"a stream with {', '.join(others)} (from skip, take, interleave, ...) cannot be divided among "
            f"{num_parts} processes without changing its rows: start one"
        )
    if stream.num_shards < num_parts:
        raise ValueError(
            f"the stream has {stream.num_shards} files, too few for {num_parts} processes: start fewer, or load the "
            "data set without streaming"
        )


def fingerprint(stream: IterableDataset) -> str:
    """Changes with the stream's files, by name and size, and with the steps that it consists of."""
    content = [list(_steps(stream._ex_iterable)), [_identity(each) for each in _sources(stream._ex_iterable)]]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _within(step: Any) -> list[Any]:
    several = getattr(step, "ex_iterables", None)
    single = getattr(step, "ex_iterable", None)
    return list(several) if several is not None else [] if single is None else [single]


def _steps(step: Any) -> Iterator[str]:
    yield type(step).__name__
    for each in _within(step):
        yield from _steps(each)


def _sources(step: Any) -> Iterator[Any]:
    """The arguments of what reads the data."""
    inside = _within(step)
    if not inside:
        yield getattr(step, "kwargs", {})
    for each in inside:
        yield from _sources(each)


def _identity(value: Any) -> Any:
    if isinstance(value, str):
        path = Path(value)
        return [value, path.stat().st_size] if path.is_absolute() and path.is_file() else value
    if isinstance(value, Dataset):
        return value._fingerprint
    if isinstance(value, Mapping):
        return {str(key): _identity(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_identity(each) for each in value]
    return value if isinstance(value, int | float | bool | None) else type(value).__name__
