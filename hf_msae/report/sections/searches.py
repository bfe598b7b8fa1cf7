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
_EXCHANGED = 5  # the concept removed is one of the row's five strongest
_STRONG = 0.9  # a concept is added at this quantile of its activations


@dataclass(frozen=True)
class Search:
    """The searches by one row. Rows found are dictionaries with row, score and, after an edit, rank_before."""

    query: int  # the row
    concepts: list[Label]  # its strongest
    alike: list[dict[str, float]]  # the nearest rows by embedding, without the row itself
    two: tuple[Label, Label] | None = None  # the two concepts searched for; None if the row has fewer
    by_two: list[dict[str, float]] | None = None  # the rows found by them
    exchanged: tuple[Label, Label] | None = None  # the concept removed from the embedding, and the one added to it
    edited: list[dict[str, float]] | None = None  # the nearest rows after that


def build(context: Context) -> list[Search]:
    """Search by rows drawn at random, preferring those with at least two of the concepts shown."""
    settings, labels, columns = context.settings, context.labels, context.survey.columns
    if not settings.num_searches:
        return []
    latents = context.survey.chosen.latents
    strong = np.where(columns.strong, columns.values, 0)
    with ExitStack() as stack:
        index = ConceptIndex.build(
            context.index_folder or stack.enter_context(tempfile.TemporaryDirectory()),
            context.msae,
            context.embeddings,
            k=settings.k,
            concepts=labels.concepts,
            progress=context.progress,
            codes=context.survey.codes,
        )
        rows = _queries(columns.strong, settings.num_searches, np.random.default_rng([settings.seed, 2]))
        together = _correlations(strong)
        return [_search(index, labels, latents, strong, together, row) for row in rows]


def _queries(strong: np.ndarray, number: int, rng: np.random.Generator) -> list[int]:
    """Draw rows at random; those with two of the latents that are among their strongest (N, m) come first."""
    drawn = rng.permutation(len(strong))[: max(number, _TRIES)].tolist()
    with_two = [row for row in drawn if strong[row].sum() >= 2][:number]
    return (with_two + [row for row in drawn if row not in with_two])[:number]


def _correlations(activations: np.ndarray) -> np.ndarray:
    """Correlate every two columns of activations (N, m), also columns of zeros: (m, m)."""
    mean = activations.mean(axis=0, dtype=np.float64)
    covariance = activations.T @ activations / max(len(activations), 1) - np.outer(mean, mean)
    spread = np.sqrt(np.maximum(np.diag(covariance), 1e-24))
    return covariance / np.outer(spread, spread)


def _search(
    index: ConceptIndex, labels: Labels, latents: list[int], strong: np.ndarray, together: np.ndarray, row: int
) -> Search:
    embedding, code = index.embeddings[row], index.code(row)

    def others(found: pd.DataFrame) -> list[dict[str, float]]:
        """The best rows found, without the one searched by."""
        found = found.rename(columns={"similarity": "score"})
        return found[found["row"] != row].head(_SHOWN).to_dict("records")

    shown = [labels(latent) for latent in code["latent"].head(_CONCEPTS)]
    search = Search(row, shown, others(index.by_embedding(embedding, _SHOWN + 1)))
    own = [latent for latent in code["latent"].tolist() if latent in latents]
    if len(own) < 2:
        return search
    one, other = own[:2]
    by_two = others(index.by_concepts({one: 1.0, other: 1.0}, _SHOWN + 1))
    search = replace(search, two=(labels(one), labels(other)), by_two=by_two)
    absent = [place for place, latent in enumerate(latents) if latent not in own and strong[:, place].any()]
    if not absent:
        return search
    # The least correlated pair: another background for a background, another color for a color.
    present = [latents.index(latent) for latent in own[:_EXCHANGED]]
    removed, added = min(product(present, absent), key=lambda pair: together[pair])
    values = strong[:, added]
    edits = {latents[removed]: 0.0, latents[added]: float(np.quantile(values[values > 0], _STRONG))}
    edited = index.by_edit(embedding, edits, mode="set", top=_SHOWN + 1).sort_values("rank")
    return replace(search, exchanged=tuple(map(labels, edits)), edited=others(edited))
