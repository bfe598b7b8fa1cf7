"""All concepts with what their names rest on, how active they are, and what is above and below them."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd

from ....concepts.collectors import LatentColumns
from ....concepts.labels import Label
from ....report.sections.concepts import Card, cards
from ....report.wording import DASH, number, share, small
from ...explorer import INDEX_K
from ...inputs import VisitorError, read_choice, read_text

if TYPE_CHECKING:
    from ...explorer import Explorer

MAX_ROWS = 300
"""Rows of the table that are sent to the page."""
EXAMPLES = 8
ORDERS = {"name": "by name", "similarity": "most similar first", "share": "most often active first"}
COLUMNS = ("name", "latent", "similarity", "q-value", "by pictures", "agree", "strong in")
_SEED = 0
_strong: WeakKeyDictionary[Explorer, np.ndarray] = WeakKeyDictionary()
_lock = threading.Lock()


@dataclass(frozen=True)
class Listing:
    """Concepts that fit what was asked.

    Attributes:
        frame: the first `MAX_ROWS` of them: `COLUMNS`.
        number: how many fit.
        names: how many names these have; several latents may have the same.
        total: latents of the model.
    """

    frame: pd.DataFrame
    number: int
    names: int
    total: int


@dataclass(frozen=True)
class Relative:
    """A parent or child of a concept.

    Attributes:
        label: of the latent.
        share: of the child's pictures in which the parent is active too.
        low: lower end of its 95% interval.
        together: pictures in which both are active.
    """

    label: Label
    share: float
    low: float
    together: int


@dataclass(frozen=True)
class Place:
    """Where a concept stands among the others.

    Attributes:
        looked_at: whether it was compared with others: only the concepts of the list are, if they are active in
            enough pictures.
        number: concepts that were.
        parents, children: found.
    """

    looked_at: bool
    number: int
    parents: tuple[Relative, ...] = ()
    children: tuple[Relative, ...] = ()


@dataclass(frozen=True)
class Evidence:
    """What there is to say about a latent.

    Attributes:
        label: number and name.
        p_value, agrees, similarity, runner_up, runner_up_similarity, q_value, activation_name: as in the
            `ConceptTable`; None where it has none.
        card: pictures and activations; None where the latent is among the strongest of no picture.
        place: in the hierarchy.
    """

    label: Label
    similarity: float | None
    runner_up: str | None
    runner_up_similarity: float | None
    p_value: float | None
    q_value: float | None
    activation_name: str | None
    agrees: bool | None
    card: Card | None
    place: Place


def strong(explorer: Explorer) -> np.ndarray:
    """Where a latent is active and among the `INDEX_K` strongest of a picture, bool (N, n). Found once."""
    with _lock:
        if explorer not in _strong:
            codes = explorer.codes
            k = min(INDEX_K, codes.shape[1])
            found = np.zeros(codes.shape, dtype=bool)
            np.put_along_axis(found, np.argpartition(-codes, k - 1, axis=1)[:, :k], True, axis=1)
            _strong[explorer] = found & (codes > 0)
        return _strong[explorer]


def listing(explorer: Explorer, words: object = "", validated_only: object = False, order: object = "name") -> Listing:
    """The concepts whose name, number, or name by pictures holds some words.

    Args:
        words: each has to be the beginning of a word in it; none: all concepts.
        validated_only: leave out names that may be chance.
        order: one of `ORDERS`.

    Raises:
        VisitorError: something is of a wrong kind.
    """
    if not isinstance(validated_only, bool):
        raise VisitorError("“Validated only” is yes or no.")
    order = read_choice(order, ORDERS, "way to sort")
    wanted = [] if words is None or _blank(words) else read_text(words, "word").casefold().split()
    active = strong(explorer).mean(axis=0)
    frame = _table(explorer).assign(share=active)
    if validated_only:
        frame = frame[[explorer.label(latent).validated for latent in frame["latent"]]]
    shown = "latent " + frame["latent"].astype(str)
    for column in ("name", "activation_name"):
        shown += " " + frame[column].astype(object).fillna("").astype(str)
    shown = shown.str.casefold()
    for word in wanted:
        keep = shown.str.contains(rf"(?<!\w){re.escape(word)}")  # beginnings of words: no "checkered" for "red"
        frame, shown = frame[keep], shown[keep]
    # The best latent of a name first, whatever the order.
    frame = frame.sort_values("similarity", ascending=False, kind="stable")
    if order == "name":
        frame = frame.sort_values("name", kind="stable", na_position="last")
    elif order == "share":
        frame = frame.sort_values("share", ascending=False, kind="stable")
    first = frame.head(MAX_ROWS)
    return Listing(
        pd.DataFrame(
            {
                "name": [str(explorer.label(latent)) for latent in first["latent"]],
                "latent": first["latent"].astype(int),
                "similarity": [number(_known(value)) for value in first["similarity"]],
                "q-value": [small(_known(value)) for value in first["q_value"]],
                "by pictures": first["activation_name"].astype(object).fillna(DASH).astype(str),
                "agree": [_yes_no(value) for value in first["agrees"]],
                "strong in": [share(value) if value else "none" for value in first["share"]],
            },
            columns=list(COLUMNS),
        ).reset_index(drop=True),
        len(frame),
        frame["name"].nunique(),
        explorer.msae.config.num_latents,
    )


def evidence(explorer: Explorer, name: object) -> Evidence:
    """What the name of a latent rests on, its pictures, and its place among the others.

    Args:
        name: of a concept, or "latent 417", or "417".

    Raises:
        VisitorError: there is no such concept.
    """
    latent = explorer.latent_of(name)
    row = _table(explorer).iloc[latent]
    is_strong = strong(explorer)[:, [latent]]
    card = None
    if is_strong.any():
        activations = LatentColumns(np.array([latent]), explorer.codes[:, [latent]], is_strong)
        card = cards(explorer.labels, activations, [explorer.images], EXAMPLES, _SEED)[0]
    return Evidence(
        label=explorer.label(latent),
        similarity=_known(row["similarity"]),
        runner_up=None if pd.isna(row["runner_up"]) else str(row["runner_up"]),
        runner_up_similarity=_known(row["runner_up_similarity"]),
        p_value=_known(row["p_value"]),
        q_value=_known(row["q_value"]),
        activation_name=None if pd.isna(row["activation_name"]) else str(row["activation_name"]),
        agrees=None if pd.isna(row["agrees"]) else bool(row["agrees"]),
        card=card,
        place=place(explorer, latent),
    )


def place(explorer: Explorer, latent: int) -> Place:
    """The parents and children of a latent."""
    found = explorer.hierarchy
    if latent not in set(found.concepts["latent"]):
        return Place(False, len(found.concepts))

    def relatives(own: str, other: str) -> tuple[Relative, ...]:
        rows = found.edges[found.edges[own] == latent].sort_values("together", ascending=False, kind="stable")
        return tuple(
            Relative(
                explorer.label(row[other]), float(row["parent_given_child"]), float(row["low"]), int(row["together"])
            )
            for _, row in rows.iterrows()
        )

    return Place(True, len(found.concepts), relatives("child", "parent"), relatives("parent", "child"))


def _table(explorer: Explorer) -> pd.DataFrame:
    """The names of all latents with every column; one that the model lacks is empty."""
    wanted = ["latent", "name", "similarity", "runner_up", "runner_up_similarity", "p_value", "q_value"]
    wanted += ["activation_name", "agrees"]
    if explorer.model.concepts is None:
        return pd.DataFrame({"latent": range(explorer.msae.config.num_latents)}).reindex(columns=wanted)
    frame = explorer.model.concepts.frame.sort_values("latent", kind="stable").reset_index(drop=True)
    frame = frame.reindex(columns=wanted)
    # Of a latent that no picture activates there is no name by pictures that could agree.
    frame["agrees"] = frame["agrees"].astype(object).where(frame["activation_name"].notna(), None)
    return frame


def _blank(words: object) -> bool:
    return isinstance(words, str) and not words.replace("\0", " ").strip()


def _known(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)


def _yes_no(value: Any) -> str:
    return DASH if pd.isna(value) else "yes" if value else "no"
