"""Whether a stream can be resumed and divided, and whether it is still the same stream."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset, IterableDataset

# The steps of a stream (private classes of datasets) that keep rows in the order of the files, so that contiguous
# parts of the files are contiguous parts of the rows.
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
    """Check that an interrupted run over a stream can be continued."""
    if any("Shuffled" in type(step).__name__ for step in _steps(stream._ex_iterable)):
        raise ValueError(
            "the stream is shuffled, so an interrupted run could not be continued: leave out shuffle(); training "
            "shuffles embeddings anyway"
        )


def check_divisible(stream: IterableDataset, num_parts: int) -> None:
    """Check that a stream can be divided among processes by its files."""
    others = sorted({type(step).__name__ for step in _steps(stream._ex_iterable)} - _IN_ORDER)
    if others:
        raise ValueError(
            f"a stream with {', '.join(others)} (from skip, take, interleave, ...) cannot be divided among "
            f"{num_parts} processes without changing its rows: start one process"
        )
    if stream.num_shards < num_parts:
        raise ValueError(
            f"the stream has {stream.num_shards} files, too few for {num_parts} processes: start fewer processes, or "
            "load the dataset without streaming"
        )


def fingerprint(stream: IterableDataset) -> str:
    """Return a hash of the steps of a stream and of its files' names and sizes."""
    steps = list(_steps(stream._ex_iterable))
    sources = [_identity(getattr(step, "kwargs", {})) for step in steps if not _inner(step)]
    content = [[type(step).__name__ for step in steps], sources]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _inner(step: Any) -> list[Any]:
    """The steps that a step reads from; none for one that reads files."""
    several, single = getattr(step, "ex_iterables", None), getattr(step, "ex_iterable", None)
    return list(several) if several is not None else [] if single is None else [single]


def _steps(step: Any) -> Iterator[Any]:
    yield step
    for each in _inner(step):
        yield from _steps(each)


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
