"""Searches of the data set: like a row, by two of its concepts, and like the row with a concept exchanged."""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..concepts.labels import Label, Labels
from ..search import ConceptIndex
from .survey import Activations

if TYPE_CHECKING:
    from ..embeddings import EmbeddingDataset
    from ..model.modeling_msae import MSAEModel

_SHOWN, _TRIES, _CONCEPTS = 6, 500, 8
_EXCHANGED = 5  # of the row's concepts, the strongest of which one is taken out
_STRONG = 0.9  # the quantile of its activations that a concept is set to where it is put in


@dataclass(frozen=True)
class Hit:
    """Attributes:
    row: found.
    score: by which.
    rank_before: of an edit: its rank before it.
    """

    row: int
    score: float
    rank_before: int | None = None


@dataclass(frozen=True)
class Search:
    """Attributes:
    query: the row searched by.
    concepts: its strongest, as labels.
    alike: nearest by embedding, without the row itself.
    two: the concepts searched for; None where there are fewer than two.
    by_two: what they find.
    out, put_in: the concept taken out of the embedding, and the one put in; None as `two`.
    edited: what is nearest then.
    """

    query: int
    concepts: list[Label]
    alike: tuple[Hit, ...]
    two: tuple[Label, Label] | None = None
    by_two: tuple[Hit, ...] = ()
    out: Label | None = None
    put_in: Label | None = None
    edited: tuple[Hit, ...] = ()


def search_examples(
    msae: MSAEModel,
    acts: EmbeddingDataset,
    labels: Labels,
    latents: list[int],
    activations: Activations,
    number: int,
    k: int,
    seed: int,
    index_folder: str | os.PathLike | None,
    progress: bool,
) -> list[Search]:
    """Searches by rows drawn at random among those with at least two of the gallery's concepts.

    Args:
        msae: the MSAE.
        acts: its embeddings.
        labels: of its latents.
        latents: those of the gallery.
        activations: theirs in all rows.
        number: of searches.
        k: latents that the index keeps of each row.
        seed: of the draw.
        index_folder: where the index is built or continued; None: in a temporary folder.
        progress: show a progress bar.
    """
    if not number:
        return []
    with ExitStack() as stack:
        folder = index_folder or stack.enter_context(tempfile.TemporaryDirectory())
        index = ConceptIndex.build(folder, msae, acts, k=k, concepts=labels.concepts, progress=progress)
        rows = _queries(index, latents, number, np.random.default_rng([seed, 2]))
        strong = np.where(activations.strong, activations.values, 0)
        together = _correlations(strong)
        return [_search(index, labels, latents, strong, together, row) for row in rows]


def _queries(index: ConceptIndex, latents: list[int], number: int, rng: np.random.Generator) -> list[int]:
    """Rows at random; those first that have two of the latents in what the index keeps of them."""
    drawn = rng.permutation(len(index))[: max(number, _TRIES)].tolist()
    with_two = (row for row in drawn if index.code(row)["latent"].isin(latents).sum() >= 2)
    found = [row for _, row in zip(range(number), with_two, strict=False)]
    return (found + [row for row in drawn if row not in set(found)])[:number]


def _correlations(activations: np.ndarray) -> np.ndarray:
    """Of every two columns of activations (N, m); (m, m)."""
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
    # What goes along least: another background for a background, another colour for a colour.
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
