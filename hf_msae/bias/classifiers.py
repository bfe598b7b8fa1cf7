"""Classifiers of embeddings from a data set's other columns: linear probes, and zero-shot classifiers from texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import ClassLabel, Value

from ..metrics import LinearClassifier
from ..metrics.classification import number_labels

if TYPE_CHECKING:
    from ..backbones import Backbone
    from ..embeddings import EmbeddingDataset


def column_labels(
    data: EmbeddingDataset, column: str, classes: Sequence[str] | None = None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Read a column of labels. Tokens have the label of their row.

    Args:
        data: Embeddings stored with other columns.
        column: Name of a column of class labels, integers, booleans or strings.
        classes: Names of the classes. Default: those the column declares, or else its distinct values.

    Returns:
        Class numbers (N,), -1 where the column is empty, and the names of the classes.

    Raises:
        ValueError: There is no such column, or it holds something else.
    """
    if data.dataset is None:
        raise ValueError(f"{data.source} is a plain array without columns, so it has no labels {column!r}")
    if column not in data.dataset.column_names:
        others = [name for name in data.dataset.column_names if name != data.column]
        raise ValueError(
            f"{data.source} has no column {column!r}; its other columns are {', '.join(others) or 'none'}"
        )
    feature = data.dataset.features[column]
    values = data.dataset.select_columns([column]).to_pandas()[column]
    known = values.notna()
    if _is_integer(feature):
        known &= values != -1  # an unknown class label
        given = values[known].astype(int)
    elif feature in (Value("string"), Value("large_string"), Value("bool")):
        given = values[known]
    else:
        raise ValueError(f"column {column!r} of {data.source} holds {feature}, not class labels")
    if isinstance(feature, ClassLabel):
        given, classes = given.map(lambda number: feature.names[number]), classes or feature.names
    try:
        found, classes = number_labels([str(value) for value in given], classes)
    except ValueError as error:
        raise ValueError(f"column {column!r} of {data.source}: {error}") from None
    labels = np.full(len(values), -1)
    labels[known.to_numpy()] = found
    return labels[data.dataset_rows()] if data.has_tokens else labels, classes


def _same_rows(one: EmbeddingDataset, other: EmbeddingDataset) -> bool:
    """Whether two data sets hold the same embeddings, judged by their first and last rows."""
    ends = [0, len(one) - 1]
    return len(one) == len(other) and one.width == other.width and bool((one[ends] == other[ends]).all())


def _is_integer(feature: Any) -> bool:
    return isinstance(feature, ClassLabel) or (isinstance(feature, Value) and feature.dtype.lstrip("u")[:3] == "int")


def probe_columns(
    train: EmbeddingDataset, test: EmbeddingDataset, columns: Sequence[str], regularization: float | str = 1.0
) -> tuple[dict[str, LinearClassifier], dict[str, np.ndarray]]:
    """Train a linear probe for each column, and read the labels to test it with.

    Args:
        train: Embeddings to train on, with these columns.
        test: Embeddings to test on, with the same columns.
        columns: Names of columns with labels.
        regularization: As for `LinearClassifier.fit`.

    Returns:
        Classifiers, and class numbers of `test`, as `evaluate_msae` takes them; the keys of both are "probe COLUMN".

    Raises:
        ValueError: A column is missing, `test` has a class that `train` lacks, or both are the same data.
    """
    classifiers, labels = {}, {}
    if columns and _same_rows(train, test):
        raise ValueError(f"probes cannot be trained on the data that they are tested on, {test.source}")
    rows = train[np.arange(len(train))] if columns else None
    for column in columns:
        numbers, classes = column_labels(train, column)
        labels[f"probe {column}"] = column_labels(test, column, classes)[0]
        try:
            classifiers[f"probe {column}"] = LinearClassifier.fit(rows, numbers, classes, regularization)
        except ValueError as error:
            raise ValueError(f"column {column!r} of {train.source}: {error}") from None
    return classifiers, labels


def zero_shot_columns(
    backbone: Backbone, test: EmbeddingDataset, columns: Sequence[str], template: str = "a photo of a {}."
) -> tuple[dict[str, LinearClassifier], dict[str, np.ndarray]]:
    """Make a zero-shot classifier for each column from the names of its classes, and read the labels to test it with.

    Args:
        backbone: The backbone of the embeddings, with a text tower.
        test: Embeddings to test on, with these columns.
        columns: Names of columns whose labels have names.
        template: Prompt for a class, with one {} for its name.

    Returns:
        Classifiers, and class numbers of `test`, as `evaluate_msae` takes them; the keys of both are
        "zero-shot COLUMN".

    Raises:
        ValueError: A column is missing or its labels have no names, or the template does not have exactly one {}.
    """
    if template.count("{}") != 1:
        raise ValueError(f"the template needs one {{}} where the name of the class goes, got {template!r}")
    classifiers, labels = {}, {}
    for column in columns:
        numbers, classes = column_labels(test, column)
        feature = test.dataset.features[column]
        if not isinstance(feature, ClassLabel) and "string" not in feature.dtype:
            raise ValueError(
                f"column {column!r} of {test.source} holds {feature}: its labels have no names to make texts of"
            )
        texts = backbone.text_embeds([template.format(name) for name in classes])
        scale = getattr(backbone.model, "logit_scale", None)
        scale = 100.0 if scale is None else float(scale.detach().exp())
        classifiers[f"zero-shot {column}"] = LinearClassifier.zero_shot(texts.cpu(), classes, logit_scale=scale)
        labels[f"zero-shot {column}"] = numbers
    return classifiers, labels
