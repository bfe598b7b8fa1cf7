"""What is like a picture or words, and what is like them with some concepts changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from ...components.concepts import Change
from ...components.picture_input import read_upload
from ...inputs import VisitorError, read_choice, read_number, read_text, read_whole_number

if TYPE_CHECKING:
    from ...explorer import Explorer

PICTURE, WORDS, ROW, CONCEPTS = "my picture", "words", "a picture of the collection", "concepts alone"
KINDS = (ROW, PICTURE, WORDS, CONCEPTS)
"""What may be searched by."""
SHOWN = 12
LEAST, MOST = -2.0, 3.0
"""Strengths: -1 takes a concept out, 1 brings it in as strongly as pictures have it."""
_STRONGEST = 10


@dataclass(frozen=True, eq=False)
class Query:
    """What is searched by.

    Attributes:
        embedding: raw, (d,).
        row: of the collection, which is then not among what is found.
    """

    embedding: torch.Tensor
    row: int | None = None


@dataclass(frozen=True)
class Hit:
    """A picture that was found.

    Attributes:
        row: its number.
        score: cosine similarity; of a search by concepts alone the sum of their activations.
        rank: place among all pictures, from 1.
        rank_before: the same before concepts were changed; None where none were.
    """

    row: int
    score: float
    rank: int
    rank_before: int | None = None


@dataclass(frozen=True)
class Found:
    """What a search gives.

    Attributes:
        before: the nearest of the query as it is, nearest first; what concepts alone find.
        after: the nearest of the changed query; None where nothing was to be changed.
        moves: all that are in one of them, by what they are after.
        changes: what was done.
        by_concepts: whether there was no query but concepts.
    """

    before: tuple[Hit, ...]
    after: tuple[Hit, ...] | None = None
    moves: tuple[Hit, ...] = ()
    changes: tuple[Change, ...] = ()
    by_concepts: bool = False

    @property
    def changed(self) -> bool:
        """Whether anything about the query is another than before."""
        return any(each.before != each.after for each in self.changes)


def search(
    explorer: Explorer,
    kind: object,
    picture: Any = None,
    words: object = None,
    row: object = None,
    wanted: Mapping[str, float] | None = None,
) -> Found:
    """What is like a picture or words, before and after some concepts are changed; or what shows some concepts.

    Args:
        kind: one of `KINDS`.
        picture: what a `picture_input` hands over.
        words: to search by.
        row: of the collection.
        wanted: concepts and strengths, as `read_strengths` gives them.

    Raises:
        VisitorError: something is missing or cannot be used.
    """
    wanted = wanted or {}
    if read_choice(kind, KINDS, "way to search") == CONCEPTS:
        return Found(by_concepts(explorer, wanted), by_concepts=True)
    return neighbours(explorer, read_query(explorer, str(kind), picture, words, row), wanted)


def read_query(explorer: Explorer, kind: str, picture: Any, words: object, row: object) -> Query:
    """The embedding of what a visitor searches by.

    Raises:
        VisitorError: it is missing or cannot be used.
    """
    if kind == PICTURE:
        return Query(explorer.embed_picture(read_upload(picture)))
    if kind == WORDS:
        return Query(explorer.embed_texts([read_text(words)])[0])
    number = read_whole_number(row, 0, len(explorer.images) - 1, "The number of the picture")
    return Query(explorer.embeddings[number], number)


def read_strengths(explorer: Explorer, pairs: Sequence[tuple[object, object]]) -> dict[str, float]:
    """Concepts and strengths; those without a name or with strength 0 are left out.

    Raises:
        VisitorError: an unknown concept, one chosen twice, or no number.
    """
    found: dict[str, float] = {}
    latents = set()
    for name, strength in pairs:
        if name is None or name == "":
            continue
        latent = explorer.latent_of(name)
        strength = read_number(strength, LEAST, MOST, "The strength")
        if latent in latents:
            raise VisitorError(f"{name} is chosen twice: set it back to none in one place.")
        latents.add(latent)
        if strength:
            found[str(name)] = strength
    return found


def neighbours(explorer: Explorer, query: Query, wanted: Mapping[str, float], top: int = SHOWN) -> Found:
    """The pictures nearest to a query, and to the query with concepts changed.

    Args:
        query: what is searched by.
        wanted: concepts and strengths s. From 0 up, s times the mean activation of the concept's strongest pictures
            is added to its activation, for a query of their length: embeddings of words are often shorter than those
            of pictures, and would be drowned. From 0 to -1 its activation is multiplied by 1 + s; below, what is
            beyond -1 is taken from 0.
        top: how many.
    """
    if not wanted:
        found = explorer.index.by_embedding(query.embedding, top + 1)
        rows = found[found["row"] != query.row].head(top)
        pairs = zip(rows["row"], rows["similarity"], strict=True)
        return Found(tuple(Hit(int(row), float(value), rank) for rank, (row, value) in enumerate(pairs, 1)))
    changes = _changes(explorer, query.embedding, wanted)
    edits = {each.latent: each.after for each in changes}
    table = _without(explorer.index.by_edit(query.embedding, edits, mode="set", top=top + 1), query.row)
    table = table[(table["rank"] <= top) | (table["rank_before"] <= top)].sort_values("rank")
    before = table[table["rank_before"] <= top].sort_values("rank_before")
    moves = tuple(
        Hit(int(row.row), float(row.similarity), int(row.rank), int(row.rank_before)) for row in table.itertuples()
    )
    return Found(
        before=tuple(
            Hit(int(row.row), float(row.similarity_before), int(row.rank_before)) for row in before.itertuples()
        ),
        after=tuple(hit for hit in moves if hit.rank <= top),
        moves=moves,
        changes=tuple(changes),
    )


def by_concepts(explorer: Explorer, wanted: Mapping[str, float], top: int = SHOWN) -> tuple[Hit, ...]:
    """The pictures that show some concepts, and not those of negative strength.

    Raises:
        VisitorError: no concept is wanted.
    """
    if not any(strength > 0 for strength in wanted.values()):
        raise VisitorError("Choose at least one concept with a strength above 0.")
    found = explorer.index.by_concepts({explorer.latent_of(name): value for name, value in wanted.items()}, top)
    found = found[found["score"] > 0]
    if found.empty:
        raise VisitorError("No picture of the collection shows these concepts: choose fewer, or others.")
    pairs = zip(found["row"], found["score"], strict=True)
    return tuple(Hit(int(row), float(value), rank) for rank, (row, value) in enumerate(pairs, 1))


def example_edit(explorer: Explorer, row: int) -> str:
    """A concept that shows what an edit does: not in a picture of the collection, but very much in others.

    Returns:
        Its name; "" where the picture has all concepts that pictures show.
    """
    absent = {name: each.latent for name, each in explorer.concepts.items() if explorer.codes[row, each.latent] == 0}
    # All at once: one by one takes a second where a collection is large.
    strongest = np.sort(explorer.codes[:, list(absent.values())], axis=0)[-_STRONGEST:].mean(axis=0)
    found = dict(zip(absent, strongest.tolist(), strict=True))
    best = max(found, key=lambda name: found[name], default="")
    return best if found.get(best) else ""


def _changes(explorer: Explorer, embedding: torch.Tensor, wanted: Mapping[str, float]) -> list[Change]:
    with torch.no_grad():
        code = explorer.msae.encode(embedding[None].to(explorer.msae.device))[0].float().cpu()
    lengths = torch.linalg.vector_norm(explorer.embeddings[np.arange(len(explorer.embeddings))], dim=1)
    size = float(torch.linalg.vector_norm(embedding) / lengths.median())
    found = []
    for name, strength in wanted.items():
        latent = explorer.latent_of(name)
        now = float(code[latent])
        if strength >= -1:
            after = now * (1 + min(strength, 0)) + max(strength, 0) * size * _strong(explorer, name, latent)
        else:
            after = (1 + strength) * size * _strong(explorer, name, latent)
        found.append(Change(name, latent, explorer.label(latent).validated, now, after))
    return found


def _strong(explorer: Explorer, name: str, latent: int) -> float:
    """How active a concept is in the pictures that show it most."""
    rows = explorer.strongest(latent, _STRONGEST)
    if not rows:
        raise VisitorError(f"No picture of the collection shows {name}: choose another concept.")
    return float(explorer.codes[rows, latent].mean())


def _without(table: pd.DataFrame, row: int | None) -> pd.DataFrame:
    """Ranks as they are when a row is left out; it is in the table, being nearest to itself."""
    own = table[table["row"] == row]
    if own.empty:
        return table
    others = table[table["row"] != row].copy()
    for column in ("rank", "rank_before"):
        others[column] -= (others[column] > own[column].iloc[0]).astype(others[column].dtype)
    return others
