"""Concepts: a card for each latent shown, with its evidence, its histogram and examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import datasets
import numpy as np
import pandas as pd

from ...concepts.collectors import LatentColumns
from ...concepts.labels import Label, Labels
from ...concepts.line_labels import line_labels
from ..survey import Chosen

if TYPE_CHECKING:
    from datasets import Dataset

    from ..context import Context

OPEN = 4
"""Cards that are shown at once; the others are folded, and open to print."""

MIDDLE = (0.4, 0.6)
"""The middle of a latent's distribution lies between these shares of the rows in which it is active."""
BASES = {
    "labels": "the label that the activation detects best, tested on rows that had no part in choosing it",
    "pictures": "the word whose zero-shot scores agree best with the activations, tested on pictures that had no part "
    "in choosing it",
    "directions": "the word whose text embedding is closest in direction to the latent",
}
"""What names are based on -> what such a name is."""
_BINS = 32


@dataclass(frozen=True)
class Example:
    """A row in which a latent is active."""

    row: int
    activation: float
    percentile: float  # percentage of the latent's active rows in which it is weaker


@dataclass(frozen=True)
class Histogram:
    """A latent's activations in the rows in which it is active, in equal bins from 0 to the largest."""

    counts: list[int]  # rows in each bin
    true: list[int] | None  # those of them that have the concept; None if unknown
    middle: tuple[float, float]  # where the middle of the distribution lies, as shares of the largest activation


@dataclass(frozen=True)
class Card:
    """What is shown of a latent. It counts as active in a row in which it is among the k strongest."""

    label: Label
    evidence: dict[str, Any]  # what the table of names has of it, without missing values
    count: int  # rows in which it is active
    share: float  # the same as a share of all rows
    share_full: float  # share of rows in whose full code it is, however weakly
    largest: float  # largest activation
    median: float  # median activation where it is active
    top: list[Example]  # the rows in which it is strongest
    middle: list[Example]  # rows from the middle of the distribution
    histogram: Histogram
    auroc: float | None  # of the full code's activation and the dataset's column of that name; None if undefined
    share_true: float | None  # share of rows for which that column is true


@dataclass(frozen=True)
class Gallery:
    """The section: the latents shown and how they were chosen, and a card for each."""

    chosen: Chosen
    cards: list[Card]
    basis: str = BASES["directions"]  # what a name is
    line: dict[str, Any] | None = None  # labels by LINE, as `line_labels` returns them
    middle: tuple[float, float] = MIDDLE  # where the examples from the middle are from
    open: int = OPEN  # how many cards are not folded


def build(context: Context) -> Gallery:
    """Make the section."""
    survey, settings = context.survey, context.settings
    found = cards(context.labels, survey.columns, context.columns, settings.images_per_concept, settings.seed)
    concepts = context.labels.concepts
    if concepts is None:
        return Gallery(survey.chosen, found)
    line = line_labels(concepts, settings.num_concepts)
    return Gallery(survey.chosen, found, BASES[concepts.evidence], line)


def cards(
    labels: Labels, activations: LatentColumns, columns: Sequence[Dataset], number: int, seed: int
) -> list[Card]:
    """Make a card for each of the latents in `activations`, each of which is among the strongest of some row.

    Boolean columns of `columns`, datasets of the same rows, are compared with concepts of the same names. There are at
    most `number` examples of the strongest rows, and as many from the middle.
    """
    found = []
    table = pd.DataFrame(index=activations.latents)
    if labels.concepts is not None:
        table = labels.concepts.frame.set_index("latent")
    for place, latent in enumerate(activations.latents.tolist()):
        label, values = labels(latent), activations.values[:, place]
        active = np.flatnonzero(activations.strong[:, place])
        active = active[np.argsort(-values[active], kind="stable")]
        truth = None if label.name is None else _truth(columns, label.name)
        auroc, share_true = (None, None) if truth is None else _agreement(truth, values)
        found.append(
            Card(
                label=label,
                evidence=table.loc[latent].dropna().to_dict(),
                count=len(active),
                share=len(active) / len(values),
                share_full=float((values > 0).mean()),
                largest=float(values[active[0]]),
                median=float(np.median(values[active])),
                top=_examples(values, active, range(min(number, len(active)))),
                middle=_middle(values, active, number, np.random.default_rng([seed, latent])),
                histogram=_histogram(values, active, truth),
                auroc=auroc,
                share_true=share_true,
            )
        )
    return found


def _middle(values: np.ndarray, active: np.ndarray, number: int, rng: np.random.Generator) -> list[Example]:
    """Draw from the middle of the distribution, without the rows that are shown as the strongest."""
    low, high = (round(len(active) * (1 - share)) for share in reversed(MIDDLE))
    places = np.arange(max(low, number), max(high, number))
    places = places[places < len(active)]
    drawn = np.sort(rng.choice(places, min(number, len(places)), replace=False))
    return _examples(values, active, drawn)


def _examples(values: np.ndarray, active: np.ndarray, places: Sequence[int] | np.ndarray) -> list[Example]:
    ascending = np.sort(values[active])
    return [
        Example(
            int(active[place]),
            float(values[active[place]]),
            100 * float(np.searchsorted(ascending, values[active[place]])) / len(active),
        )
        for place in places
    ]


def _histogram(values: np.ndarray, active: np.ndarray, truth: np.ndarray | None) -> Histogram:
    strong = values[active].astype(np.float64)
    edges = np.linspace(0, strong.max(), _BINS + 1)
    counts = np.histogram(strong, edges)[0]
    true = None if truth is None else np.histogram(strong[truth[active] == 1], edges)[0].tolist()
    low, high = np.quantile(strong, MIDDLE) / strong.max()
    return Histogram(counts.tolist(), true, (float(low), float(high)))


def _truth(columns: Sequence[Dataset], name: str) -> np.ndarray | None:
    """Find the first boolean column of that name: 1 true, 0 false, NaN unknown; None where there is none."""
    for each in columns:
        if each.features.get(name) == datasets.Value("bool"):
            column = each.with_format(None).select_columns([name]).to_pandas()[name].astype("boolean")
            return column.to_numpy(dtype=np.float64, na_value=np.nan)
    return None


def _agreement(truth: np.ndarray, values: np.ndarray) -> tuple[float | None, float | None]:
    """Return AUROC and the share of rows with the concept, over the rows for which that is known."""
    from sklearn.metrics import roc_auc_score

    known = ~np.isnan(truth)
    if not known.any():
        return None, None
    truth, values = truth[known] == 1, values[known]
    share = float(truth.mean())
    return (None if share in (0.0, 1.0) else float(roc_auc_score(truth, values))), share
