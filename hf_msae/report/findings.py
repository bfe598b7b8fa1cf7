"""What was found, in brief: a few numbers and sentences made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..concepts.labels import MAX_Q, Labels
from .quality import by_level
from .survey import Firing

if TYPE_CHECKING:
    from .bias_findings import BiasFinding
    from .gallery import Card
    from .tree import Hierarchy

_GOOD_AUROC = 0.9


@dataclass(frozen=True)
class Findings:
    """Attributes:
    numbers: value and what it is, for a row of large figures.
    sentences: one paragraph.
    """

    numbers: list[tuple[str, str]]
    sentences: list[str]


def findings_of(
    metrics: Mapping[str, Any],
    firing: Firing,
    labels: Labels,
    cards: Sequence[Card],
    hierarchy: Hierarchy,
    bias: Sequence[BiasFinding],
) -> Findings:
    """The numbers are those of the sections below."""
    levels = by_level(metrics)
    smallest, largest = min(levels), max(levels)
    few, full = levels[smallest], levels[largest]
    alive, n = int((firing.counts > 0).sum()), len(firing.counts)
    numbers = [
        (f"{1 - few['fvu']:.1%}", f"of the variance is in the {smallest:,} strongest latents"),
        (f"{1 - full['fvu']:.1%}", f"is in the largest code measured, {full['l0']:.0f} latents on average"),
        (f"{alive:,}", f"of {n:,} latents are active in these rows"),
    ]
    sentences = [
        f"With its {smallest:,} strongest latents the model leaves {few['fvu']:.4f} of the embeddings' variance "
        f"unexplained (FVU); with {largest:,} at most, of which {full['l0']:.1f} are active on average, "
        f"{full['fvu']:.4f}."
    ]
    sentences.append(_names(labels, firing, alive))
    if labels.validated is not None:
        numbers.append((f"{labels.validated['name'].nunique():,}", f"names are more than chance (q at most {MAX_Q})"))
    told = [card.auroc for card in cards if card.auroc is not None]
    if told:
        good = sum(each > _GOOD_AUROC for each in told)
        sentences.append(
            f"{len(told):,} of the {len(cards):,} concepts shown are columns of the data set too: their latents tell "
            f"rows with the concept from rows without it with a median AUROC of {np.median(told):.3f}, "
            f"{good:,} with more than {_GOOD_AUROC}."
        )
    if hierarchy.num_edges:
        sentences.append(
            f"Of {hierarchy.num_concepts:,} concepts {hierarchy.num_edges:,} are part of another in what is active "
            "together."
        )
    sentences += [each.verdict for each in bias]
    return Findings(numbers, sentences)


def _names(labels: Labels, firing: Firing, alive: int) -> str:
    if labels.concepts is None:
        return "Its latents have no names."
    if labels.validated is None:
        return "Its latents have names, but none was tested against chance."
    found = labels.validated
    of_alive = int((firing.counts[found["latent"]] > 0).sum())
    return (
        f"Of the {alive:,} latents that are active in these rows {of_alive:,} have a name that is more than chance "
        f"(a false discovery rate of {MAX_Q:.0%}); there are {found['name'].nunique():,} such names."
    )
