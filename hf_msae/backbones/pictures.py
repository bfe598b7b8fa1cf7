"""The rows of a dataset that embeddings were extracted from."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from datasets import Dataset, IterableDataset
from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder

from .._utils.paths import is_saved_dataset
from ..embeddings import EmbeddingDataset
from .image_text_data import are_splits, in_split, open_dataset

_NOT_READ = {".arw", ".avif", ".cr2", ".cr3", ".dng", ".heic", ".heif", ".jxl", ".nef", ".svg", ".svgz"}
_NOT_READ -= set(ImageFolder.EXTENSIONS)
"""Endings of pictures that datasets passes over."""


def remarks(source: str, columns: Sequence[str]) -> list[str]:
    """Say what a folder of pictures may be thought to give, but does not: some pictures, or labels.

    Args:
        source: The dataset, as `open_dataset` takes it; nothing is said unless it is a folder of pictures.
        columns: The columns of the dataset.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir() or is_saved_dataset(folder):
        return []
    found, files = [], [file.relative_to(folder) for file in folder.rglob("*")]
    pictures = [file for file in files if file.suffix.lower() in ImageFolder.EXTENSIONS]
    not_read = Counter(file.suffix.lower() for file in files if file.suffix.lower() in _NOT_READ)
    if not_read:
        kinds = ", ".join(f"{number} {kind}" for kind, number in not_read.most_common())
        found.append(f"{source} holds pictures of kinds that are not read ({kinds}): save them as PNG to include them")
    is_described = "label" in columns or any(file.name.startswith("metadata.") for file in files)
    linked = [
        name for place, below, _ in os.walk(folder) for name in below if os.path.islink(os.path.join(place, name))
    ]
    if linked:
        found.append(
            f"{source} holds links to folders ({', '.join(linked[:5])}{', ...' * (len(linked) > 5)}), which are not "
            "followed: link or copy the pictures themselves to include them"
        )
    outside = [file for file in pictures if not in_split(file.parts[:-1])]
    if outside and are_splits({file.parts[:-1] for file in pictures}):
        found.append(
            f"the folders of {source} are splits, so {len(outside)} of its pictures are left out, which lie in none "
            f"({outside[0]}, ...): move them into a split, or rename train and test if these are classes"
        )
    depths = {len(file.parts) - 1 for file in pictures}
    if not is_described and len(depths) > 1 and len({file.parts[0] for file in pictures}) > 1:
        found.append(
            f"the folders of {source} give no labels, since the pictures lie at different depths (in {min(depths)} to "
            f"{max(depths)} folders): give each label a folder, or write the labels to a metadata.csv"
        )
    folders = {file.parts[:-1] for file in pictures}
    if not is_described and len(depths) == 1 < len(folders) and len({each[-1] for each in folders}) == 1:
        if not are_splits(folders):
            found.append(
                f"the folders of {source} give no labels, since the pictures lie in folders that are all called "
                f"{next(iter(folders))[-1]}: give each label a folder with pictures in it, or write the labels to a "
                "metadata.csv"
            )
    return found


def spread_rows(dataset: Dataset | IterableDataset, number: int) -> Dataset | IterableDataset:
    """Return at most this many rows of a dataset, evenly spread over it; of a stream, the first ones."""
    if isinstance(dataset, IterableDataset):
        return dataset.take(number)
    number = min(number, len(dataset))
    return dataset.select([place * len(dataset) // number for place in range(number)])


def open_pictures(
    embeddings: EmbeddingDataset, source: str | None = None, split: str | None = None, flag: str = "--images"
) -> Dataset | None:
    """Open the dataset that embeddings were extracted from, with its rows in the order of the embeddings.

    Rows that the extraction left out (`--test_size`, `--max_rows`, unreadable ones) are left out again. `source` and
    `split` are by default those that the embeddings name; errors tell people to name them with `flag`. None if there
    is no `source` and the embeddings are not of pictures or name no dataset.
    """
    recorded = embeddings.provenance
    own = recorded.get("dataset") if recorded.get("image_column") is not None else None
    source = source or own
    if not source:
        return None
    chosen = {}
    if source == own and not source.startswith(("scenes:", "clipart:")):  # whose names hold the split
        split = split or recorded.get("dataset_split")
        chosen = {
            "config_name": recorded.get("dataset_config_name"),
            "revision": recorded.get("dataset_revision"),
            "test_size": recorded.get("test_size"),
        }
    try:
        rows = open_dataset(source, split, **chosen)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"pictures of {embeddings.source}: {error}; name their dataset with {flag}") from error
    if number := recorded.get("max_rows"):
        is_first = recorded.get("streaming", False)
        rows = rows.select(range(min(number, len(rows)))) if is_first else spread_rows(rows, number)
    if embeddings.skipped:  # rows that the extraction could not read
        rows = rows.select(np.setdiff1d(np.arange(len(rows)), embeddings.skipped))
    number = len(embeddings if embeddings.dataset is None else embeddings.dataset)
    if len(rows) != number:
        raise ValueError(
            f"{source} has {len(rows)} rows, but {embeddings.source} has embeddings of {number}: name the dataset of "
            f"their pictures with {flag}"
        )
    return rows
