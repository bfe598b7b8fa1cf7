"""Labels of rows, read from columns, and how the rows are halved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from datasets import ClassLabel

from ..metrics.label_columns import column_labels

if TYPE_CHECKING:
    from ..embeddings import EmbeddingDataset

MIN_ROWS = 10
"""Rows with a label, and rows without it, that each half of the data needs."""

MOST_CLASSES = 10_000
"""Different values that a column of labels may have."""

_MOST_LISTED = 10
_TRUE, _FALSE = {"1", "true", "yes"}, {"0", "false", "no"}


@dataclass(frozen=True)
class RowLabel:
    """Something that is true of some rows."""

    name: str  # what the latents are named by
    column: str  # the column that it is read from
    classes: np.ndarray  # of each row, the number of its class, -1 if that is unknown
    number: int  # the class of the rows that have the label
    is_one_of_two: bool  # whether the column's only other class has a label too

    def truth(self, rows: np.ndarray) -> np.ndarray:
        """Return 1 for rows that have the label, 0 for those that do not, -1 where it is unknown."""
        classes = self.classes[rows]
        return np.where(classes < 0, -1, classes == self.number).astype(np.int8)

    def counts(self, rows: np.ndarray) -> tuple[int, int]:
        """Return how many of these rows have the label, and how many do not."""
        truth = self.truth(rows)
        return int((truth == 1).sum()), int((truth == 0).sum())


def read_labels(embeddings: EmbeddingDataset, columns: Sequence[str]) -> list[RowLabel]:
    """Read labels from columns next to embeddings.

    A column of booleans, of 0 and 1, or of such text, "yes" and "no" included, is one label with the column's name. In
    another column of strings or classes, every value is a label.
    """
    found = []
    for column in dict.fromkeys(columns):
        classes, names = column_labels(embeddings, column)
        feature = embeddings.dataset.features[column]
        if {name.lower() for name in names} <= _TRUE | _FALSE:  # also as text, which is no name for a latent
            is_true = np.isin([name.lower() for name in names], list(_TRUE))
            found.append(RowLabel(column, column, np.where(classes < 0, -1, is_true[classes]), 1, False))
        elif isinstance(feature, ClassLabel) or "string" in feature.dtype:
            if len(names) > MOST_CLASSES:
                raise ValueError(
                    f"column {column!r} of {embeddings.source} has {len(names):,} different values, more than "
                    f"{MOST_CLASSES:,}: it holds texts, not labels"
                )
            found += [RowLabel(name, column, classes, number, len(names) == 2) for number, name in enumerate(names)]
        else:
            raise ValueError(
                f"column {column!r} of {embeddings.source} holds the numbers {', '.join(names[:_MOST_LISTED])}: "
                "a label is a boolean, 0 or 1, or the name of a class"
            )
    return found


def stratified_half(labels: Sequence[RowLabel], seed: int) -> np.ndarray:
    """Choose the half of the rows that names are tested on, with half of the rows of every class: booleans (rows,).

    Of each column, one label is enough.

    Rows may have classes in many columns, so the strata are of the rarest class that a row has among those with enough
    rows for both halves. Classes that are common are halved nearly evenly by chance.
    """
    from sklearn.model_selection import train_test_split  # takes half a second to import

    columns = {label.column: label.classes for label in labels}
    number = len(labels[0].classes)
    strata, rarity = np.zeros(number, dtype=np.int64), np.full(number, np.inf)
    for classes in columns.values():
        counts = np.bincount(classes[classes >= 0])
        count = np.where(classes >= 0, counts[classes], 0)
        rarer = (count >= 2 * MIN_ROWS) & (count < rarity)
        strata[rarer] = strata.max() + 1 + classes[rarer]
        rarity[rarer] = count[rarer]
    sizes = np.bincount(strata)
    strata[sizes[strata] == 1] = sizes.argmax()  # a single row cannot be halved
    held_out = np.zeros(number, dtype=bool)
    if number > 1:
        _, tested = train_test_split(np.arange(number), test_size=number // 2, stratify=strata, random_state=seed)
        held_out[tested] = True
    return held_out
