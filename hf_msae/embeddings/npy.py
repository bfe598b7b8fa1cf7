"""Embeddings in .npy files: one matrix, or numbered parts of one as clip-retrieval writes them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
from datasets.fingerprint import generate_random_fingerprint
from transformers.utils import logging

from .._utils.checks import refuse_masked

logger = logging.get_logger(__name__)

PART_FOLDERS = {"img_emb": "image_embeds", "text_emb": "text_embeds"}
"""Folder of clip-retrieval -> name of the column."""
Numbered = dict[int, Path]


def open_npy(path: Path) -> np.ndarray:
    """Map a matrix of floating-point numbers into memory."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        # Not np.load, which would take a zip of arrays; a header can ask for more than the file, or memory, holds.
        array = np.lib.format.open_memmap(path, mode="r")
    except (ValueError, EOFError, OSError, OverflowError, TypeError, SyntaxError) as error:
        raise ValueError(f"{path} cannot be read as a .npy file of numbers: {error}") from error
    return checked_matrix(array, str(path))


def checked_matrix(array: np.ndarray, name: str) -> np.ndarray:
    """Return the array, or raise ValueError if it is no matrix of floating-point numbers."""
    refuse_masked(name, array)
    if array.ndim != 2:
        raise ValueError(f"{name} must be 2-D (embeddings, width), got shape {array.shape}")
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"{name} must hold floating point numbers, got {array.dtype}")
    if 0 in array.shape:
        raise ValueError(f"{name} is empty: it has shape {array.shape}")
    return array


def find_parts(folder: Path) -> dict[str, Numbered]:
    """Return the numbered .npy files of each column of a folder, in numeric order; {} if there are none."""
    columns = {column: numbered(folder / name, ".npy") for name, column in PART_FOLDERS.items()}
    columns = {column: parts for column, parts in columns.items() if parts}
    if not columns and (parts := numbered(folder, ".npy")):
        return {PART_FOLDERS.get(folder.name, folder.name): parts}
    first = next(iter(columns), None)
    for column, parts in columns.items():
        if odd := sorted(parts.keys() ^ columns[first].keys()):
            raise ValueError(f"{folder} has part {odd[0]} of only one of {first} and {column}: copy the folder again")
    return columns


def numbered(folder: Path, suffix: str) -> Numbered:
    """Return the files of a folder with this suffix by the number at the end of their names, in numeric order.

    Raises:
        ValueError: A file has no number, a number is there twice, or names differ in more than the number.
    """
    found: Numbered = {}
    files = sorted(file for file in folder.iterdir() if file.suffix == suffix) if folder.is_dir() else []
    if len(files) == 1 and not files[0].stem[-1].isdecimal():
        return {0: files[0]}
    for file in files:
        match = re.fullmatch(r"(.*?)(\d+)", file.stem)
        if match is None:
            raise ValueError(f"{file} has no number at the end of its name, so its place among the others is unknown")
        other = next(iter(found.values()), file)
        if not re.fullmatch(re.escape(match[1]) + r"\d+", other.stem):
            raise ValueError(f"{folder} holds parts of different data, such as {other.name} and {file.name}")
        if int(match[2]) in found:
            raise ValueError(f"{found[int(match[2])]} and {file.name} have the same number")
        found[int(match[2])] = file
    found = dict(sorted(found.items()))
    if gap := next((each for each in range(min(found, default=0), max(found, default=0)) if each not in found), None):
        logger.warning(f"{folder} has no part {gap}: its rows are missing")
    return found


def join_parts(columns: Mapping[str, Numbered]) -> tuple[datasets.Dataset, list[tuple[str, int]]]:
    """Return a dataset of the mapped files, which are not copied, and the rows of each file of the first column.

    Raises:
        ValueError: A file is damaged, or has another width, dtype or number of rows than it must have.
    """
    counts: dict[int, tuple[Path, int]] = {}
    chunked, features = {}, {}
    for column, parts in columns.items():
        arrays = {number: open_npy(file) for number, file in parts.items()}
        first = next(iter(arrays.values()))
        for number, array in arrays.items():
            if array.shape[1] != first.shape[1] or array.dtype != first.dtype:
                raise ValueError(
                    f"{parts[number]} has width {array.shape[1]} and dtype {array.dtype}, but the part before has "
                    f"{first.shape[1]} and {first.dtype}"
                )
            other, rows = counts.setdefault(number, (parts[number], len(array)))
            if rows != len(array):
                raise ValueError(f"{parts[number]} has {len(array)} rows, but {other} has {rows}")
        native = first.dtype.newbyteorder("=")
        flat = (np.ascontiguousarray(array, native).reshape(-1) for array in arrays.values())
        vectors = [pa.FixedSizeListArray.from_arrays(pa.array(values), first.shape[1]) for values in flat]
        chunked[column] = pa.chunked_array(vectors)
        features[column] = datasets.List(datasets.Value(native.name), length=first.shape[1])
    table = datasets.table.InMemoryTable(pa.table(chunked))
    info = datasets.DatasetInfo(features=datasets.Features(features))
    # Its own fingerprint would be a hash of all rows.
    dataset = datasets.Dataset(table, info=info, fingerprint=generate_random_fingerprint())
    return dataset, [(str(file), rows) for file, rows in counts.values()]
