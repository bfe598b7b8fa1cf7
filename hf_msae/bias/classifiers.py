"""Classifiers of embeddings from the columns that lie beside them: linear probes, and zero-shot ones from texts."""

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
    """Class numbers (N,), -1 where the column is empty, and class names, of a column with labels.

    Tokens have the label of their row.

    Args:
        data: embeddings with other columns beside them.
        column: one of these: class labels, integers, booleans or strings.
        classes: names of the classes; by default those the column declares, or else its distinct values.

    Raises:
        ValueError: there is no such column, or it holds something else.
    """
    if data.dataset is None:
        raise ValueError(f"{data.source} is a plain array without columns, so there are no labels in {column!r}")
    if column not in data.dataset.column_names:
        others = [name for name in data.dataset.column_names if name != data.column]
        raise ValueError(
            f"{data.source} has no column {column!r}; beside embeddings it has {', '.join(others) or 'none'}"
        )
    feature = data.dataset.features[column]
    values = data.dataset.select_columns([column]).to_pandas()[column]
    known = values.notna()
    if _is_integer(feature):
        known &= values != -1  # how class labels say that there is none
        given = values[known].astype(int)
    elif feature in (Value("string"), Value("large_string"), Value("bool")):
        given = values[known]
    else:
        raise ValueError(f"column {column!r} of {data.source} holds {feature}, which are no class labels")
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
    """Whether two data sets hold the same embeddings, as far as their ends tell."""
    ends = [0, len(one) - 1]
    return len(one) == len(other) and one.width == other.width and bool((one[ends] == other[ends]).all())


def _is_integer(feature: Any) -> bool:
    return isinstance(feature, ClassLabel) or (isinstance(feature, Value) and feature.dtype.lstrip("u")[:3] == "int")


def probe_columns(
    train: EmbeddingDataset, test: EmbeddingDataset, columns: Sequence[str], regularization: float | str = 1.0
) -> tuple[dict[str, LinearClassifier], dict[str, np.ndarray]]:
    """A linear probe for each column, trained on `train`; and the class numbers of `test`, to measure it by.

    Args:
        train: embeddings with these columns, that nothing is measured on.
        test: embeddings with the same columns.
        columns: names of columns with labels.
        regularization: as for `LinearClassifier.fit`.

    Returns:
        Classifiers and labels, as `evaluate_msae` takes them, both by "probe COLUMN".

    Raises:
        ValueError: a column is missing from either, `test` has a class that `train` has not, or both are the same.
    """
    classifiers, labels = {}, {}
    if columns and _same_rows(train, test):
        raise ValueError(f"probes cannot be trained on the data that they are measured on, {test.source}")
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
    """A zero-shot classifier for each column, from the names of its classes; and the class numbers of `test`.

    Args:
        backbone: that `test` was embedded with, with a text tower.
        test: embeddings with these columns.
        columns: names of columns whose labels have names.
        template: what is said of a class, with one {} for its name.

    Returns:
        Classifiers and labels, as `evaluate_msae` takes them, both by "zero-shot COLUMN".

    Raises:
        ValueError: a column is missing or holds no names, or the template has no {}.
    """
    if template.count("{}") != 1:
        raise ValueError(f"the template needs one {{}} where the name of the class goes, got {template!r}")
    classifiers, labels = {}, {}
    for column in columns:
        numbers, classes = column_labels(test, column)
        feature = test.dataset.features[column]
        if not isinstance(feature, ClassLabel) and "string" not in feature.dtype:
            raise ValueError(
                f"column {column!r} of {test.source} holds {feature}: there are no names to make texts of"
            )
        texts = backbone.text_embeds([template.format(name) for name in classes])
        scale = getattr(backbone.model, "logit_scale", None)
        scale = 100.0 if scale is None else float(scale.detach().exp())
        classifiers[f"zero-shot {column}"] = LinearClassifier.zero_shot(texts.cpu(), classes, logit_scale=scale)
        labels[f"zero-shot {column}"] = numbers
    return classifiers, labels
