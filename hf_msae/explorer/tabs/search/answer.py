"""What resembles a picture or words, before and after some concepts are changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from ...components.concepts import Change, chosen_slots
from ...components.picture_input import read_upload
from ...explorer import Explorer
from ...inputs import VisitorError, read_choice, read_number, read_text, read_whole_number

PICTURE, WORDS, ROW, CONCEPTS = "my picture", "words", "a picture of the collection", "concepts alone"
KINDS = (ROW, PICTURE, WORDS, CONCEPTS)
"""What can be searched by."""
SHOWN = 12
LEAST, MOST = -2.0, 3.0
"""Range of strengths: -1 removes a concept, 1 adds as much of it as the pictures have that show it most."""
_STRONGEST = 10


@dataclass(frozen=True, eq=False)
class Found:
    """What a search found. Ranks count from 1."""

    # The pictures nearest to the query as it is, or that show the concepts: row, rank and score (the cosine, or the
    # sum of weighted activations).
    before: pd.DataFrame
    # The pictures nearest to the changed query: row, rank, rank_before and score; None if no concept was to be
    # changed.
    after: pd.DataFrame | None = None
    # The pictures of `before` and `after`, in the order of their ranks after: the same columns.
    moves: pd.DataFrame | None = None
    changes: tuple[Change, ...] = ()  # what was done to each concept
    by_concepts: bool = False  # whether pictures were searched by concepts alone

    @property
    def changed(self) -> bool:
        """Whether any activation of the query has changed."""
        return any(each.before != each.after for each in self.changes)

    @property
    def num_new(self) -> int:
        """How many pictures are in `after` but not in `before`."""
        return len(set(self.after["row"]) - set(self.before["row"]))


def search(
    explorer: Explorer,
    kind: object,
    picture: Any = None,
    words: object = None,
    row: object = None,
    wanted: Mapping[str, float] | None = None,
) -> Found:
    """Find pictures by a picture or words, before and after some concepts are changed, or by concepts alone.

    `kind`, one of `KINDS`, says which of the next three arguments counts; `wanted` is what `read_strengths` gives.
    """
    wanted = wanted or {}
    kind = read_choice(kind, KINDS, "way to search")
    if kind == CONCEPTS:
        return Found(by_concepts(explorer, wanted), by_concepts=True)
    if kind == PICTURE:
        return neighbors(explorer, explorer.embed_picture(read_upload(picture)), wanted)
    if kind == WORDS:
        return neighbors(explorer, explorer.embed_texts([read_text(words)])[0], wanted)
    number = read_row(explorer, row)
    return neighbors(explorer, explorer.embeddings[number], wanted, number)


def read_row(explorer: Explorer, row: object) -> int:
    """Read the number of a picture of the collection."""
    return read_whole_number(row, 0, len(explorer.images) - 1, "The number of the picture")


def read_strengths(explorer: Explorer, pairs: Sequence[tuple[object, object]]) -> dict[str, float]:
    """Read concepts and strengths from `LEAST` to `MOST`, leaving out those without a concept or of strength 0."""
    found = {
        name: read_number(strength, LEAST, MOST, "The strength")
        for name, _, (strength,) in chosen_slots(explorer, pairs)
    }
    return {name: strength for name, strength in found.items() if strength}


def neighbors(
    explorer: Explorer,
    embedding: torch.Tensor,
    wanted: Mapping[str, float],
    row: int | None = None,
    top: int = SHOWN,
) -> Found:
    """Find the `top` pictures nearest to a raw embedding (d,), and to the same with concepts changed.

    `wanted` has strengths s by concept. From 0 up, s times the mean activation of the concept's strongest pictures is
    added to its activation, scaled to the length of the query: embeddings of words are often shorter than those of
    pictures, and would be drowned out. From 0 down to -1, its activation is multiplied by 1 + s. Below -1, the
    activation starts from 0, and what is beyond -1 is subtracted in the same way. `row` is the query's own, if it is
    from the collection, so that it is not found.
    """
    if not wanted:
        found = explorer.index.by_embedding(embedding, top + 1).rename(columns={"similarity": "score"})
        return Found(_ranked(found[found["row"] != row].head(top)))
    changes = _changes(explorer, embedding, wanted)
    edits = {each.latent: each.after for each in changes}
    return moved(_without(explorer.index.by_edit(embedding, edits, mode="set", top=top + 1), row), top, changes)


def moved(table: pd.DataFrame, top: int = SHOWN, changes: tuple[Change, ...] = ()) -> Found:
    """Turn what `ConceptIndex.by_change` returns into the `top` pictures before and after, and their ranks."""
    moves = table[(table["rank"] <= top) | (table["rank_before"] <= top)].sort_values("rank")
    before = moves[moves["rank_before"] <= top].sort_values("rank_before")
    before = before[["row", "rank_before", "similarity_before"]].set_axis(["row", "rank", "score"], axis=1)
    moves = moves.rename(columns={"similarity": "score"})
    return Found(before, moves[moves["rank"] <= top], moves, changes)


def by_concepts(explorer: Explorer, wanted: Mapping[str, float], top: int = SHOWN) -> pd.DataFrame:
    """Find the pictures that show some concepts, and not those of negative strength: row, rank, score."""
    if not any(strength > 0 for strength in wanted.values()):
        raise VisitorError("Choose at least one concept with a strength above 0.")
    found = explorer.index.by_concepts({explorer.latent_of(name): value for name, value in wanted.items()}, top)
    found = found[found["score"] > 0]
    if found.empty:
        raise VisitorError("No picture of the collection shows these concepts: choose fewer, or others.")
    return _ranked(found)


def example_edit(explorer: Explorer, row: int) -> str:
    """A concept to show what an edit does: absent from a picture, but strong in others; "" if the picture has all."""
    absent = {name: each.latent for name, each in explorer.concepts.items() if explorer.codes[row, each.latent] == 0}
    # All at once: one by one takes a second if the collection is large.
    strongest = np.sort(explorer.codes[:, list(absent.values())], axis=0)[-_STRONGEST:].mean(axis=0)
    found = dict(zip(absent, strongest.tolist(), strict=True))
    best = max(found, key=lambda name: found[name], default="")
    return best if found.get(best) else ""


def _changes(explorer: Explorer, embedding: torch.Tensor, wanted: Mapping[str, float]) -> tuple[Change, ...]:
    code = explorer.code(embedding)
    lengths = torch.linalg.vector_norm(explorer.embeddings[0 : len(explorer.embeddings)], dim=1)
    size = float(torch.linalg.vector_norm(embedding) / lengths.median())
    found = []
    for name, strength in wanted.items():
        latent = explorer.latent_of(name)
        before = float(code[latent])
        typical = size * _typical(explorer, name, latent)
        if strength >= 0:
            after = before + strength * typical
        elif strength >= -1:
            after = before * (1 + strength)
        else:
            after = (1 + strength) * typical
        found.append(Change(name, latent, explorer.label(latent).validated, before, after))
    return tuple(found)


def _typical(explorer: Explorer, name: str, latent: int) -> float:
    """The mean activation of a concept in the pictures that show it most."""
    rows = explorer.strongest(latent, _STRONGEST)
    if not rows:
        raise VisitorError(f"No picture of the collection shows “{name}”: choose another concept.")
    return float(explorer.codes[rows, latent].mean())


def _ranked(found: pd.DataFrame) -> pd.DataFrame:
    return found.assign(rank=range(1, len(found) + 1))


def _without(table: pd.DataFrame, row: int | None) -> pd.DataFrame:
    """The ranks as they are without a row, which is in the table because it is nearest to itself."""
    own = table[table["row"] == row]
    if own.empty:
        return table
    others = table[table["row"] != row].copy()
    for column in ("rank", "rank_before"):
        others[column] -= others[column] > own[column].iloc[0]
    return others
