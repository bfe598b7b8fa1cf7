"""Searches: rows like a given one, rows with two of its concepts, and rows like it with one concept exchanged."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ...concepts.labels import Label, Labels
from ...search import ConceptIndex

if TYPE_CHECKING:
    from ..context import Context

_SHOWN, _TRIES, _CONCEPTS = 6, 500, 8
_EXCHANGED = 5  # the concept that is removed is one of so many of the row's strongest
_STRONG = 0.9  # a concept is added at this quantile of its activations


@dataclass(frozen=True)
class Hit:
    """A row that was found.

    Attributes:
        row: Number of the row.
        score: Its score.
        rank_before: Its rank before the edit; None for searches without one.
    """

    row: int
    score: float
    rank_before: int | None = None


@dataclass(frozen=True)
class Search:
    """The searches by one row.

    Attributes:
        query: The row searched by.
        concepts: Its strongest concepts.
        alike: The nearest rows by embedding, without the row itself.
        two: The two concepts searched for; None if the row has fewer.
        by_two: The rows found by them.
        out: The concept removed from the embedding; None as `two`.
        put_in: The concept added to it.
        edited: The nearest rows after the edit.
    """

    query: int
    concepts: list[Label]
    alike: tuple[Hit, ...]
    two: tuple[Label, Label] | None = None
    by_two: tuple[Hit, ...] = ()
    out: Label | None = None
    put_in: Label | None = None
    edited: tuple[Hit, ...] = ()


def build(context: Context) -> list[Search]:
    """Search by rows drawn at random, preferring those with at least two of the concepts shown."""
    number, k, seed = context.settings.num_searches, context.settings.k, context.settings.seed
    labels, columns, latents = context.labels, context.survey.columns, context.survey.chosen.latents
    if not number:
        return []
    with ExitStack() as stack:
        folder = context.index_folder or stack.enter_context(tempfile.TemporaryDirectory())
        index = ConceptIndex.build(
            folder,
            context.msae,
            context.embeddings,
            k=k,
            concepts=labels.concepts,
            progress=context.progress,
            codes=context.survey.codes,
        )
        rows = _queries(index, latents, number, np.random.default_rng([seed, 2]))
        strong = np.where(columns.strong, columns.values, 0)
        together = _correlations(strong)
        return [_search(index, labels, latents, strong, together, row) for row in rows]


def _queries(index: ConceptIndex, latents: list[int], number: int, rng: np.random.Generator) -> list[int]:
    """Draw rows at random; those with two of the latents in the index come first."""
    drawn = rng.permutation(len(index))[: max(number, _TRIES)].tolist()
    with_two = (row for row in drawn if index.code(row)["latent"].isin(latents).sum() >= 2)
    found = [row for _, row in zip(range(number), with_two, strict=False)]
    return (found + [row for row in drawn if row not in set(found)])[:number]


def _correlations(activations: np.ndarray) -> np.ndarray:
    """Correlate every two columns of activations (N, m): (m, m)."""
    mean = activations.mean(axis=0, dtype=np.float64)
    covariance = activations.T @ activations / max(len(activations), 1) - np.outer(mean, mean)
    spread = np.sqrt(np.maximum(np.diag(covariance), 1e-24))
    return covariance / np.outer(spread, spread)


def _search(
    index: ConceptIndex,
    labels: Labels,
    latents: list[int],
    strong: np.ndarray,
    together: np.ndarray,
    row: int,
) -> Search:
    embedding, code = index.embeddings[row], index.code(row)
    shown = [labels(latent) for latent in code["latent"].head(_CONCEPTS)]
    alike = index.by_embedding(embedding, _SHOWN + 1)
    alike = _hits(alike[alike["row"] != row], "similarity")
    own = [latent for latent in code["latent"].tolist() if latent in latents]
    if len(own) < 2:
        return Search(row, shown, alike)
    one, other = own[:2]
    by_two = index.by_concepts({one: 1.0, other: 1.0}, _SHOWN + 1)
    search = Search(row, shown, alike, (labels(one), labels(other)), _hits(by_two[by_two["row"] != row], "score"))
    absent = [place for place, latent in enumerate(latents) if latent not in own and strong[:, place].any()]
    if not absent:
        return search
    # The least correlated pair: another background for a background, another color for a color.
    present = [latents.index(latent) for latent in own[:_EXCHANGED]]
    out, put_in = min(product(present, absent), key=lambda pair: together[pair])
    values = strong[:, put_in]
    edits = {latents[out]: 0.0, latents[put_in]: float(np.quantile(values[values > 0], _STRONG))}
    edited = index.by_edit(embedding, edits, mode="set", top=_SHOWN + 1)
    hits = _hits(edited[edited["row"] != row].sort_values("rank"), "similarity")
    return replace(search, out=labels(latents[out]), put_in=labels(latents[put_in]), edited=hits)


def _hits(found: pd.DataFrame, score: str) -> tuple[Hit, ...]:
    before = found["rank_before"].tolist() if "rank_before" in found else [None] * len(found)
    rows = zip(found["row"], found[score], before, strict=True)
    return tuple(Hit(int(row), float(value), rank) for row, value, rank in rows)[:_SHOWN]
