"""Tasks of data that people have: a dataset of images with columns of labels, and the recipes for known ones."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from PIL import Image

from ..._utils.images import to_rgb
from ...backbones import Backbone
from .networks import BackboneNetwork
from .pictures import TaskPictures
from .task import SPLITS, Task

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

_SPLIT_OF = {
    **{"train": "train", "test": "test", "0": "train", "2": "test"},
    **dict.fromkeys(("validation", "valid", "val", "1"), "left out"),
}


def task_from_dataset(
    dataset: Dataset | DatasetDict,
    backbone: Backbone | str | os.PathLike,
    target: str,
    bias: str,
    concepts: Sequence[str] = (),
    split_column: str | None = None,
    image_column: str = "image",
    hook_point: str = "image_embeds",
    name: str | None = None,
    num_rows: int | None = None,
    balance_test: bool = False,
    seed: int = 0,
) -> Task:
    """Make a task of a dataset of images with columns of labels; it has no counterfactuals.

    The features are computed once and kept on disk, as long as the dataset and its files stay the same.

    Args:
        dataset: A dataset with a column of splits, or one dataset for each of the splits "train" and "test".
        backbone: A backbone, or what `Backbone.from_pretrained` loads.
        target: Column of the label.
        bias: Column of the concept that the label is correlated with in training.
        concepts: Columns of other concepts. Those of concepts hold booleans, 0 and 1, or -1 and 1.
        split_column: Column of the splits: "train" and "test", or 0 and 2; rows of a validation split are left out.
            None if there is a dataset for each.
        image_column: Column of images, or of their paths.
        hook_point: Where the backbone is read; tokens of a block are averaged.
        name: Name of the task. Defaults to the target.
        num_rows: Number of rows at most, half of them of either split, drawn at random; None for all.
        balance_test: Draw as many test rows with and without the bias of each label, so that they are independent.
        seed: Random seed of what is drawn.

    Raises:
        ValueError: A column is missing, a value of it is unknown, or a split has no rows.
    """
    parts = {"": dataset} if split_column is not None else _of_splits(dataset)
    wanted = [image_column, target, bias, *concepts, *([split_column] if split_column is not None else [])]
    for part in parts.values():
        for column in wanted:
            if column not in part.column_names:
                raise ValueError(f"there is no column {column!r}, only {', '.join(part.column_names)}")
    if image_column in wanted[1:]:
        raise ValueError(f"{image_column!r} is the column of images, and cannot be one of labels too")
    labels = [column for column in dict.fromkeys(wanted) if column != image_column]
    table = pd.concat([part.select_columns(labels).to_pandas() for part in parts.values()], ignore_index=True)
    values, target_labels = labels_of(table[target], target, next(iter(parts.values())).features[target])
    split = np.repeat(list(parts), [len(part) for part in parts.values()]) if split_column is None else None
    split = splits_of(table[split_column], split_column) if split is None else split
    truth = {column: booleans_of(table[column], column) for column in dict.fromkeys((bias, *concepts))}
    chosen = _chosen(split, target_labels, truth[bias], num_rows, balance_test, seed)
    starts = np.cumsum([0, *(len(part) for part in parts.values())])
    images = [part.select_columns([image_column]) for part in parts.values()]
    pictures = TaskPictures(
        name=name or target,
        draw=partial(_draw, images, starts, image_column, chosen),
        sources=chosen.astype(str),
        concepts={column: found[chosen] for column, found in truth.items()},
        target=target_labels[chosen],
        bias=bias,
        split=split[chosen],
        settings={
            "label": target,
            "labels": [str(value) for value in values],
            "bias": bias,
            "num_rows": len(chosen),
            "seed": int(seed),
            "rows_sha256": hashlib.sha256(chosen.tobytes()).hexdigest(),
            "dataset": [part._fingerprint for part in images],
            "files": state_of_files(images, image_column),
        },
        paired=False,
    )
    return pictures.task(BackboneNetwork(backbone, hook_point))


def opened(source: str | os.PathLike | Dataset | DatasetDict) -> Dataset | DatasetDict:
    """Return a dataset with its splits, opened if only its folder or its id on the Hub is given."""
    if not isinstance(source, str | os.PathLike):
        return source
    from ...backbones.image_text_data import open_splits  # here, since datasets takes a second

    return open_splits(os.fspath(source))


def with_images(table: pd.DataFrame, files: Sequence[Path]) -> Dataset:
    """Return a table as a dataset with a column "image" of files, all of which must exist."""
    from datasets import Dataset

    for file in files:
        if not file.is_file():
            raise FileNotFoundError(f"{file} does not exist, although it is in the list of images")
    return Dataset.from_pandas(table.assign(image=[str(file) for file in files]), preserve_index=False)


def _of_splits(dataset: Dataset | DatasetDict) -> dict[str, Dataset]:
    if not isinstance(dataset, dict) or not set(SPLITS) <= set(dataset):
        known = f"the splits {', '.join(dataset)}" if isinstance(dataset, dict) else "no splits"
        raise ValueError(f"the dataset has {known}: name a column with the splits, or pass both train and test")
    return {split: dataset[split] for split in SPLITS}


def splits_of(column: pd.Series, name: str) -> np.ndarray:
    """Return "train", "test" or "left out" for each row of a column of splits; another value is a ValueError."""
    for value in column.unique():
        if str(value) not in _SPLIT_OF:
            raise ValueError(f"column {name!r} holds {value!r}, which is no split: use {', '.join(_SPLIT_OF)}")
    return column.astype(str).map(_SPLIT_OF).to_numpy()


def labels_of(column: pd.Series, name: str, feature: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of a column of labels in sorted order, and the number of each row's among them.

    A row without a value is a ValueError, and so are measurements, of which hardly a row has the same as another.
    """
    from datasets import ClassLabel

    unknown = -1 if isinstance(feature, ClassLabel) else ""
    if missing := int((column.isna() | (column == unknown)).sum()):
        raise ValueError(f"column {name!r} has no value in {missing} of {len(column)} rows: leave them out")
    values, labels = np.unique(column.to_numpy(), return_inverse=True)
    if len(values) > max(2, len(labels) / 2):
        raise ValueError(
            f"column {name!r} has {len(values):,} values in {len(labels):,} rows, such as {values[0]}: a label is a "
            "class of many rows, so cut measurements into classes"
        )
    return values, labels


def booleans_of(column: pd.Series, name: str) -> np.ndarray:
    """Return a column of 0 and 1, of -1 and 1, or of booleans as booleans; another value is a ValueError."""
    values = column.to_numpy()
    if not (np.isin(values, (0, 1)).all() or np.isin(values, (-1, 1)).all()):
        held = ", ".join(map(repr, column.unique()[:5].tolist()))
        raise ValueError(f"column {name!r} holds {held}: a concept is true or false, 0 or 1, or -1 or 1")
    return values == 1


def _chosen(
    split: np.ndarray, target: np.ndarray, biased: np.ndarray, num_rows: int | None, balance_test: bool, seed: int
) -> np.ndarray:
    random, chosen = np.random.default_rng(seed), []
    for part in SPLITS:
        rows = np.flatnonzero(split == part)
        if not len(rows):
            raise ValueError(f"no row is of the {part} split")
        if balance_test and part == "test":
            cells = [rows[(target[rows] == y) & (biased[rows] == b)] for y in np.unique(target) for b in (False, True)]
            size = min(len(cell) for cell in cells)
            if num_rows is not None:
                size = min(size, num_rows // 2 // len(cells))
            if not size:
                raise ValueError(
                    "the test split cannot be balanced: one label has no rows with the bias, or without it"
                )
            rows = np.concatenate([random.permutation(cell)[:size] for cell in cells])
        elif num_rows is not None:
            rows = random.permutation(rows)[: num_rows // 2]
        chosen.append(np.sort(rows))
    return np.concatenate(chosen)


def _draw(
    parts: Sequence[Dataset], starts: np.ndarray, column: str, chosen: np.ndarray, row: int, has: bool
) -> Image.Image:
    which = int(np.searchsorted(starts, chosen[row], "right")) - 1
    return to_rgb(parts[which][int(chosen[row] - starts[which])][column], f"image {chosen[row]}")


def state_of_files(parts: Sequence[Dataset], column: str) -> str | None:
    """SHA-256 of the size and the time of files that images are read from; None if the dataset holds the images."""
    from datasets import Image as ImageFeature

    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part.features[column], ImageFeature):
            part = part.cast_column(column, ImageFeature(decode=False))
        if not len(part) or not (path := _path_of(part[0][column])):
            return None
        for each in part[column]:
            if path := _path_of(each):
                state = os.stat(path)
                digest.update(f"{path} {state.st_size} {state.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _path_of(image: Any) -> str | None:
    if isinstance(image, dict):
        return None if image["bytes"] else image["path"]
    return image if isinstance(image, str) else None
