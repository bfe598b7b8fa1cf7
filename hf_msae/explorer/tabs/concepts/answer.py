"""All concepts: the evidence for their names, the pictures that show them, and their parents and children."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ....concepts.collectors import LatentColumns
from ....concepts.labels import Label
from ....concepts.validation import why_none
from ....report.sections.concepts import Card, cards
from ....report.wording import DASH, number, share, small
from ...explorer import Explorer
from ...inputs import VisitorError, read_choice, read_text

MAX_ROWS = 300
"""The largest number of rows of the table that are sent to the page."""
EXAMPLES = 8
ORDERS = {"name": "by name", "similarity": "best evidence first", "share": "most frequent first"}
COLUMNS = ("name", "latent", "similarity", "AUROC", "q-value", "by pictures", "agree", "strong in")
LABEL_COLUMNS = ("name", "latent", "AUROC", "95% interval", "positives", "q-value", "second-best", "strong in")
"""Columns of the table for names from words, and of that for names from labels."""
_EVIDENCE = (
    *("similarity", "runner_up", "runner_up_similarity", "p_value", "q_value", "activation_name", "agrees"),
    *("agreement", "zero_shot_auroc", "zero_shot_auroc_low", "zero_shot_auroc_high", "synonyms", "direction_name"),
    *("auroc", "auroc_low", "auroc_high", "runner_up_auroc", "num_positive"),
    *("line_label", "line_score", "line_low", "line_high", "line_metric", "line_confirmed", "line_meanings"),
    *("line_auprc", "line_share", "line_correlation", "line_f1", "line_iou", "line_noticed_by", "line_unchecked"),
)
_SEED = 0


@dataclass(frozen=True, eq=False)
class Listing:
    """The concepts that match a search."""

    frame: pd.DataFrame  # the first `MAX_ROWS` of them, with the columns `COLUMNS` or `LABEL_COLUMNS`
    number: int  # how many latents match
    names: int  # how many distinct names they have; several latents can have the same
    total: int  # how many latents the model has
    none_validated: str = ""  # why latents without a validated name are listed, though only those were asked for


@dataclass(frozen=True)
class Evidence:
    """What is known about a latent."""

    label: Label
    names: dict[str, Any]  # its evidence in the `ConceptTable`; None for what is missing
    card: Card | None  # its pictures and activations; None if it is among the strongest latents of no picture
    num_compared: int  # how many concepts the hierarchy compares: those of the list that are active in enough pictures
    is_compared: bool  # whether it is one of them
    parents: list[dict[str, Any]]  # the concepts that it is part of, as edges of the hierarchy with their labels
    children: list[dict[str, Any]]  # the concepts that are part of it, likewise
    k: int  # how many latents count as the strongest of a picture


def listing(explorer: Explorer, words: object = "", validated_only: object = False, order: object = "name") -> Listing:
    """Find concepts by their names, by their names by pictures, labels by LINE, or numbers.

    Each of the words has to begin a word of what is searched; without any, all concepts are found. `order` is one of
    `ORDERS`. If only validated names are wanted, but the model has none, all latents that pictures show are searched.
    """
    if not isinstance(validated_only, bool):
        raise VisitorError("“Validated names only” is either yes or no.")
    order = read_choice(order, ORDERS, "way to sort")
    blank = words is None or (isinstance(words, str) and not words.replace("\0", " ").strip())
    wanted = [] if blank else read_text(words, "word").casefold().split()
    frame = _table(explorer).assign(share=explorer.strong.mean(axis=0))
    none_validated = _why_none(explorer) if validated_only else ""
    if none_validated:
        frame = frame[frame["share"] > 0]
    elif validated_only:
        frame = frame[[explorer.label(latent).validated for latent in frame["latent"]]]
    searched = "latent " + frame["latent"].astype(str)
    for column in ("name", "activation_name", "line_label"):
        searched += " " + frame[column].astype(object).fillna("").astype(str)
    searched = searched.str.casefold()
    for word in wanted:
        found = searched.str.contains(rf"(?<!\w){re.escape(word)}")  # beginnings of words: no "checkered" for "red"
        frame, searched = frame[found], searched[found]
    frame = frame.sort_values("strength", ascending=False, kind="stable")  # whatever the order, the best of a name
    if order != "similarity":
        frame = frame.sort_values(order, ascending=order == "name", kind="stable", na_position="last")
    first, concepts = frame.head(MAX_ROWS), explorer.model.concepts
    shown = pd.DataFrame(
        {
            "name": [str(explorer.label(latent)) for latent in first["latent"]],
            "latent": first["latent"].tolist(),
            "similarity": [number(_known(value)) for value in first["similarity"]],
            "AUROC": [number(_known(value)) for value in first["auroc"].fillna(first["zero_shot_auroc"])],
            "95% interval": [
                DASH if pd.isna(low) else f"{number(low)} to {number(high)}"
                for low, high in zip(first["auroc_low"], first["auroc_high"], strict=True)
            ],
            "positives": [DASH if pd.isna(value) else f"{int(value):,}" for value in first["num_positive"]],
            "second-best": [_known(value) or DASH for value in first["runner_up"]],
            "q-value": [small(_known(value)) for value in first["q_value"]],
            "by pictures": [_known(value) or DASH for value in first["activation_name"]],
            "agree": [DASH if pd.isna(value) else "yes" if value else "no" for value in first["agrees"]],
            "strong in": [share(value) if value else "none" for value in first["share"]],
        },
        columns=list(LABEL_COLUMNS if concepts is not None and concepts.evidence == "labels" else COLUMNS),
    )
    total = explorer.msae.config.num_latents
    return Listing(shown, len(frame), frame["name"].nunique(), total, none_validated)


def _why_none(explorer: Explorer) -> str:
    """Why no name of the model is validated; "" if one is."""
    if explorer.label.concepts is None:
        return "the latents have no names"
    return "" if explorer.label.any_validated else why_none(explorer.label.concepts.frame)


def evidence(explorer: Explorer, name: object) -> Evidence:
    """Collect the evidence for the name of a latent, its pictures, and its place in the hierarchy."""
    latent = explorer.latent_of(name)
    row = _table(explorer).iloc[latent]
    strong, card = explorer.strong[:, [latent]], None
    if strong.any():
        columns = LatentColumns(np.array([latent]), explorer.codes[:, [latent]], strong)
        card = cards(explorer.label, columns, [explorer.images], EXAMPLES, _SEED)[0]
    compared = explorer.hierarchy.concepts["latent"]
    return Evidence(
        label=explorer.label(latent),
        names={column: _known(row[column]) for column in _EVIDENCE},
        card=card,
        num_compared=len(compared),
        is_compared=latent in set(compared),
        parents=_relatives(explorer, latent, "child", "parent"),
        children=_relatives(explorer, latent, "parent", "child"),
        k=explorer.k,
    )


def best_known(explorer: Explorer) -> str | None:
    """The name of the concept to begin with: of those that pictures show, the one with the best evidence.

    The first of the list if latents have no names; None if the list is empty.
    """
    shown = explorer.strong.any(axis=0)
    names = [name for name, each in explorer.concepts.items() if shown[each.latent]] or list(explorer.concepts)
    if explorer.model.concepts is None or not names:
        return next(iter(names), None)
    strength = _table(explorer)["strength"]
    return max(names, key=lambda name: strength[explorer.concepts[name].latent])


def _relatives(explorer: Explorer, latent: int, own: str, other: str) -> list[dict[str, Any]]:
    edges = explorer.hierarchy.edges
    edges = edges[edges[own] == latent].sort_values("together", ascending=False, kind="stable")
    return edges.assign(label=[explorer.label(each) for each in edges[other]]).to_dict("records")


def _table(explorer: Explorer) -> pd.DataFrame:
    """The evidence for the names of all latents; a column that the model lacks is empty."""
    columns = ["latent", "name", "strength", *_EVIDENCE]
    if explorer.model.concepts is None:
        return pd.DataFrame({"latent": range(explorer.msae.config.num_latents)}).reindex(columns=columns)
    concepts = explorer.model.concepts
    frame = concepts.frame.assign(strength=concepts.strength)
    frame = frame.sort_values("latent", kind="stable", ignore_index=True)
    frame = frame.reindex(columns=columns)
    # A latent that no picture activates has no name by pictures, so nothing can agree with it.
    frame["agrees"] = frame["agrees"].astype(object).where(frame["activation_name"].notna(), None)
    return frame


def _known(value: Any) -> Any:
    return None if pd.isna(value) else value
