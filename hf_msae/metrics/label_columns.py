"""Columns of labels next to embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from datasets import ClassLabel, Dataset, Value

from .classification import number_labels

if TYPE_CHECKING:
    from ..embeddings import EmbeddingDataset


def column_labels(
    data: EmbeddingDataset, column: str, classes: Sequence[str] | None = None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Read a column of class labels, whole numbers, booleans or strings. Tokens have the label of their row.

    Returns class numbers (N,), -1 where the column is empty or a number is -1, and the names of the classes: by
    default those the column declares, or else its distinct values.
    """
    if data.dataset is None:
        raise ValueError(f"{data.source} is a plain array without columns, so it has no labels {column!r}")
    if column not in data.dataset.column_names:
        others = [name for name in data.dataset.column_names if name != data.column]
        raise ValueError(f"{data.source} has no column {column!r}, only {', '.join(others) or 'the embeddings'}")
    labels, classes = dataset_labels(data.dataset, column, classes, str(data.source))
    return labels[data.dataset_rows()] if data.has_tokens else labels, classes


def dataset_labels(
    dataset: Dataset, column: str, classes: Sequence[str] | None = None, source: str = "the dataset"
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Read a column of labels of a dataset, as `column_labels` does; `source` is what errors call the dataset."""
    feature = dataset.features[column]
    dtype = feature.dtype if isinstance(feature, ClassLabel | Value) else ""
    refusal = ValueError(f"column {column!r} of {source} holds {feature}, not class labels")
    if not dtype:  # maybe pictures, too large to be read in vain
        raise refusal
    values = dataset.select_columns([column]).to_pandas()[column]
    known = values.notna()
    # Whole numbers with gaps become floats on their way through a CSV file.
    if dtype.lstrip("u").startswith("int") or (dtype.startswith("float") and (values[known] % 1 == 0).all()):
        known &= values != -1  # an unknown class label
        given = values[known].astype(int)
    elif dtype == "bool" or "string" in dtype:
        known &= values != ""
        given = values[known]
    else:
        raise refusal
    if given.empty:
        raise ValueError(f"column {column!r} of {source} holds no label in any row")
    places, distinct = pd.factorize(given)  # a page asks for dozens of columns, and there are few labels to name
    if isinstance(feature, ClassLabel):
        distinct, classes = [feature.names[number] for number in distinct], classes or feature.names
    try:
        found, classes = number_labels([str(value) for value in distinct], classes)
    except ValueError as error:
        raise ValueError(f"column {column!r} of {source}: {error}") from None
    labels = np.full(len(values), -1)
    labels[known.to_numpy()] = found[places]
    return labels, classes
