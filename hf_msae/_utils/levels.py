"""The levels of a model, as metrics.json holds them: which there are, and what tables and figures call them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any


@dataclass(frozen=True)
class Level:
    """One level, or neighboring ones whose codes are the same."""

    size: int  # how many activations (k) or latents of the dictionary the smallest of them keeps
    label: str  # what tables and figures call it, such as "16", "1024 (all)" or "threshold"
    phrase: str  # what a sentence calls it, such as "at k=16" or "of the first 128 latents"
    metrics: Mapping[str, Any]  # metric -> value


@dataclass(frozen=True)
class Levels:
    """All levels of an evaluation, ascending."""

    heading: str  # what the labels are, as the heading of a table's column
    axis: str  # the same for the axis of a figure
    meaning: str  # what the labels mean, in a sentence or two
    # Whether a level keeps the first latents of the dictionary, instead of the largest activations.
    of_dictionary: bool
    each: list[Level]  # the levels one by one
    distinct: list[Level]  # the levels, neighboring ones with the same codes as one
    # Sentences that a table needs: what labels mean that are not plain k, and which levels have the same codes, and
    # why.
    notes: list[str]


def sizes_of(metrics: Mapping[str, Any]) -> list[int]:
    """Return the k, or the numbers of latents of the dictionary, that were measured, ascending."""
    return sorted(map(int, metrics.get("by_width") or metrics["by_k"]))


def read_levels(metrics: Mapping[str, Any]) -> Levels:
    """Read the levels in the content of metrics.json, also that of earlier versions, which knew only k."""
    of_dictionary = bool(metrics.get("by_width"))
    rows = metrics["by_width"] if of_dictionary else metrics["by_k"]
    full = metrics.get("full_code") or {}  # files of earlier versions do not have it
    largest, name = full.get("k"), full.get("name")
    if of_dictionary:
        largest = max(map(int, rows))
        name = f"{largest} (all)"

    def level(size: int) -> Level:
        label = str(size) if largest is None or size < largest else name
        phrase = f"at k={size}" if label[0].isdigit() else f"above the {label}"
        return Level(size, label, f"of the first {size} latents" if of_dictionary else phrase, rows[str(size)])

    each = [level(size) for size in sizes_of(metrics)]
    distinct, same_codes = [], []
    for _, group in groupby(each, key=attrgetter("metrics")):
        same = list(group)
        if len(same) == 1:
            distinct += same
            continue
        last = same[-1].label if same[-1].size == largest or not same[-1].label[0].isdigit() else str(same[-1].size)
        label = f"{same[0].size} to {last}"
        distinct.append(Level(same[0].size, label, same[0].phrase, same[0].metrics))
        same_codes.append(
            f"The codes of k={label} are the same: no embedding has more than {same[0].size} active latents."
        )
    named = [level.label for level in distinct if not level.label[0].isdigit()]
    if of_dictionary:
        heading, axis = "first latents", "first latents of the dictionary"
        meaning = "A level uses only the first latents of the dictionary."
    elif len(named) == len(distinct):
        heading, axis = "code", "code"
        meaning = f"The code keeps {full['keeps']}."
    else:
        heading, axis = "k", "k (largest latents kept)"
        meaning = "k is the number of latents kept, the largest of each code."
        if named:
            meaning += f" At {named[0]}, the code keeps {full['keeps']}."
    obvious = heading == "k" and not named
    return Levels(
        heading, axis, meaning, of_dictionary, each, distinct, [*([] if obvious else [meaning]), *same_codes]
    )
