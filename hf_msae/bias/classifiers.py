"""Classifiers of embeddings: probes of columns, zero-shot classifiers, and linear layers from a file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from datasets import ClassLabel

from .._utils.wording import class_title
from ..concepts.vocabulary import check_template
from ..metrics import LinearClassifier
from ..metrics.label_columns import column_labels
from .analysis import bias_report

if TYPE_CHECKING:
    from ..backbones import Backbone
    from ..embeddings import EmbeddingDataset
    from ..model.modeling_msae import MSAEModel
    from .analysis import BiasReport


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
    of_train = {column: column_labels(train, column) for column in columns}
    for column, (_, classes) in of_train.items():  # all of them before the first probe is trained
        labels[f"probe {column}"] = column_labels(test, column, classes)[0]
    rows = train[np.arange(len(train))] if columns else None
    for column, (numbers, classes) in of_train.items():
        try:
            classifiers[f"probe {column}"] = LinearClassifier.fit(rows, numbers, classes, regularization)
        except ValueError as error:
            raise ValueError(f"column {column!r} of {train.source}: {error}") from None
    return classifiers, labels


def probe_report(
    msae: MSAEModel,
    train: EmbeddingDataset,
    test: EmbeddingDataset,
    column: str,
    positive: str | None = None,
    regularization: float | str = "cv",
    **options: Any,
) -> tuple[BiasReport, float]:
    """Train a linear probe for a column, and find the concepts that drive it.

    Args:
        msae: The MSAE.
        train: Embeddings to train the probe on.
        test: Embeddings to report on, with the same column.
        column: Name of the column of labels.
        positive: The class to explain. Defaults to the second of two classes.
        regularization: As for `LinearClassifier.fit`.
        options: Further arguments of `bias_report`.

    Returns:
        The report, and the share of the labels of `test` that the probe predicts.

    Raises:
        ValueError: As `probe_columns` and `bias_report`, or `positive` is missing for more than two classes.
    """
    classifiers, labels = probe_columns(train, test, [column], regularization)
    probe, truth = classifiers[f"probe {column}"], labels[f"probe {column}"]
    if positive is None and len(probe.classes) > 2:
        raise ValueError(f"{column} has the classes {', '.join(probe.classes)}: set positive to one of them")
    positive = probe.classes[-1] if positive is None else positive
    target = class_title(column, probe.classes, positive)
    predicted = torch.cat([probe.logits(x).argmax(dim=1) for x in test.batches(4096)]).numpy()
    report = bias_report(msae, test, probe, positive, target=target, **options)
    accuracy, counts = float((predicted == truth)[truth >= 0].mean()), np.bincount(truth[truth >= 0])
    return replace(report, accuracy=accuracy, accuracy_of_guessing=float(counts.max() / counts.sum())), accuracy


def zero_shot_classifier(
    backbone: Backbone, texts: Sequence[str], classes: Sequence[str] | None = None
) -> LinearClassifier:
    """Make a zero-shot classifier from one text per class, with the backbone's own logit scale (100 if it has none).

    Classes are named by their texts, unless `classes` has other names.
    """
    scale = getattr(backbone.model, "logit_scale", None)
    scale = 100.0 if scale is None else float(scale.detach().exp())
    embeds = backbone.text_embeds(list(texts)).cpu()
    return LinearClassifier.zero_shot(embeds, classes or texts, logit_scale=scale)


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
    check_template(template)
    classifiers, labels = {}, {}
    for column, (numbers, classes) in named_classes(test, columns).items():
        texts = [template.format(name) for name in classes]
        classifiers[f"zero-shot {column}"] = zero_shot_classifier(backbone, texts, classes)
        labels[f"zero-shot {column}"] = numbers
    return classifiers, labels


def named_classes(test: EmbeddingDataset, columns: Sequence[str]) -> dict[str, tuple[np.ndarray, tuple[str, ...]]]:
    """Read columns of labels as `column_labels`; raises ValueError if the labels of one have no names."""
    found = {}
    for column in columns:
        found[column] = column_labels(test, column)
        feature = test.dataset.features[column]
        if not isinstance(feature, ClassLabel) and "string" not in feature.dtype:
            raise ValueError(f"column {column!r} of {test.source} holds {feature}, not the names of classes")
    return found


def load_linear_layer(path: str | os.PathLike, width: int) -> torch.nn.Linear:
    """Load a linear layer from a safetensors file with `weight` (C, width) and, unless it has none, `bias` (C,)."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from error
    state = {name: tensors[name] for name in ("weight", "bias") if name in tensors}
    weight = state.get("weight")
    rows = len(weight) if weight is not None and weight.ndim else 1
    layer = torch.nn.Linear(width, rows, bias="bias" in state)
    try:
        layer.load_state_dict(state)
    except RuntimeError as error:
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        raise ValueError(f"{path} must hold weight (C, {width}) and bias (C,), but it holds {shapes}") from error
    return layer


def _same_rows(one: EmbeddingDataset, other: EmbeddingDataset) -> bool:
    """Whether two datasets hold the same embeddings, judged by their first and last rows."""
    ends = [0, len(one) - 1]
    return len(one) == len(other) and one.width == other.width and bool((one[ends] == other[ends]).all())
