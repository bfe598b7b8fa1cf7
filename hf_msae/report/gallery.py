"""The concept gallery: which latents are shown, and what there is to say about each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import datasets
import numpy as np
import pandas as pd

from ..concepts.labels import MAX_Q, Label, Labels
from .survey import Activations, Firing

if TYPE_CHECKING:
    from datasets import Dataset

MIDDLE = (0.4, 0.6)
"""Of the rows in which a latent is active: between which shares the middle of its distribution lies."""
_BINS = 32


@dataclass(frozen=True)
class Chosen:
    """Attributes:
    latents: to show, best first.
    rule: "validated", "similarity" or "activation": by what they were chosen.
    note: how, in a sentence or two.
    """

    latents: list[int]
    rule: str
    note: str


@dataclass(frozen=True)
class Example:
    """A row in which a latent is active.

    Attributes:
        row: its number.
        activation: of the latent in it.
        percentile: share of the rows in which the latent is active where it is less so, in percent.
    """

    row: int
    activation: float
    percentile: float


@dataclass(frozen=True)
class Histogram:
    """Of a latent's activations where it is active, in bins of one width from 0 to the largest.

    Attributes:
        counts: rows in each bin.
        true: those of them of which the concept is true; None where that is not known.
        middle: where the middle of the distribution begins and ends, as shares of the largest activation.
    """

    counts: list[int]
    true: list[int] | None
    middle: tuple[float, float]


@dataclass(frozen=True)
class Card:
    """What is shown of a latent. It counts as active in a row where it is among the k strongest of it.

    Attributes:
        label: number and name.
        similarity, runner_up, runner_up_similarity, q_value, activation_name: as in the `ConceptTable`; None where it
            has none.
        count: rows in which it is active.
        share: the same as a share of all.
        share_full: share of rows in whose full code it is, however weakly.
        largest: activation.
        median: activation where it is active.
        top: the rows in which it is strongest.
        middle: rows drawn from the middle of the distribution.
        histogram: of its activations.
        auroc: of its activation in the full code for the data set's own column of that name; None where there is no
            such column, or the column is true (or false) of all rows.
        share_true: share of rows of which that column is true.
    """

    label: Label
    similarity: float | None
    runner_up: str | None
    runner_up_similarity: float | None
    q_value: float | None
    activation_name: str | None
    count: int
    share: float
    share_full: float
    largest: float
    median: float
    top: list[Example]
    middle: list[Example]
    histogram: Histogram
    auroc: float | None
    share_true: float | None


def choose(labels: Labels, firing: Firing, number: int) -> Chosen:
    """The latents to show: of validated names the best latent each; else by similarity; else by activation."""
    alive = firing.strong > 0
    concepts, validated = labels.concepts, labels.validated
    if concepts is None:
        order = np.argsort(-firing.mean, kind="stable")
        order = order[alive[order]][:number]
        note = "The latents of this model have no names; these are the ones with the highest mean activation."
        return Chosen(order.tolist(), "activation", note)
    if validated is not None and len(validated):
        best = validated.drop_duplicates("name")
        shown = best[alive[best["latent"]]].head(number)
        note = (
            f"The {len(shown)} most similar of {len(best):,} names that are more than chance at a false discovery "
            f"rate of {MAX_Q:.0%}, each with its best latent."
        )
        if (silent := int((~alive[best["latent"]]).sum())) > 0:
            note += f" The latents of {silent:,} of these names are among the {firing.k} strongest of no row."
        return Chosen(shown["latent"].tolist(), "validated", note)
    best = concepts.best()
    shown = best[alive[best["latent"]]].head(number)
    why = "the table of names has no q-values" if validated is None else f"none has a q-value of at most {MAX_Q}"
    note = f"No validated names: {why}. These are the names with the highest similarity, which may all be chance."
    return Chosen(shown["latent"].tolist(), "similarity", note)


def cards(
    labels: Labels,
    latents: Sequence[int],
    activations: Activations,
    columns: Sequence[Dataset],
    number: int,
    seed: int,
) -> list[Card]:
    """A card for each latent.

    Args:
        labels: of all latents.
        latents: which are shown; each is among the strongest of some row.
        activations: theirs.
        columns: data sets of the same rows, whose boolean columns are compared with concepts of the same names.
        number: of examples in a row.
        seed: of the draw from the middle.
    """
    found = []
    evidence = None if labels.concepts is None else labels.concepts.frame.set_index("latent")
    for place, latent in enumerate(latents):
        label, values = labels(latent), activations.values[:, place]
        row = {} if evidence is None else evidence.loc[latent].to_dict()
        active = np.flatnonzero(activations.strong[:, place])
        active = active[np.argsort(-values[active], kind="stable")]
        truth = None if label.name is None else _truth(columns, label.name)
        auroc, share_true = (None, None) if truth is None else _agreement(truth, values)
        found.append(
            Card(
                label=label,
                similarity=_number(row.get("similarity")),
                runner_up=_text(row.get("runner_up")),
                runner_up_similarity=_number(row.get("runner_up_similarity")),
                q_value=_number(row.get("q_value")),
                activation_name=_text(row.get("activation_name")),
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
    """Drawn from the middle of the distribution, without those that are shown as the strongest already."""
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
    """The first boolean column of that name: 1 true, 0 false, NaN unknown; None where there is none."""
    for each in columns:
        if each.features.get(name) == datasets.Value("bool"):
            column = each.with_format(None).select_columns([name]).to_pandas()[name].astype("boolean")
            return column.to_numpy(dtype=np.float64, na_value=np.nan)
    return None


def _agreement(truth: np.ndarray, values: np.ndarray) -> tuple[float | None, float | None]:
    """AUROC, and the share of rows of which the concept is true; over the rows of which that is known."""
    from sklearn.metrics import roc_auc_score

    known = ~np.isnan(truth)
    if not known.any():
        return None, None
    truth, values = truth[known] == 1, values[known]
    share = float(truth.mean())
    return (None if share in (0.0, 1.0) else float(roc_auc_score(truth, values))), share


def _number(value: float | None) -> float | None:
    return None if value is None or pd.isna(value) else float(value)


def _text(value: str | None) -> str | None:
    return None if pd.isna(value) else str(value)
