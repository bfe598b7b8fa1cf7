"""The findings in brief: a few numbers, and sentences made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .._utils.levels import read_levels
from ..concepts.labels import MAX_Q, Labels
from ..concepts.validation import too_weak

if TYPE_CHECKING:
    from ..concepts import ConceptHierarchy
    from ..concepts.collectors import Firing
    from .context import Context
    from .sections.bias import BiasFinding
    from .sections.concepts import Card

_GOOD_AUROC = 0.9


@dataclass(frozen=True)
class Findings:
    """The head of the page: values and what they are, for a row of large figures, and the sentences of a paragraph."""

    numbers: list[tuple[str, str]]
    sentences: list[str]


def findings_of(
    context: Context, cards: Sequence[Card], hierarchy: ConceptHierarchy, bias: Sequence[BiasFinding]
) -> Findings:
    """Summarize the numbers of the sections."""
    metrics, firing, labels = context.metrics, context.survey.firing, context.labels
    levels = read_levels(metrics)
    smallest, largest = levels.each[0], levels.each[-1]
    few, full = smallest.metrics, largest.metrics
    if levels.of_dictionary:
        few_latents = f"first {smallest.size:,} latents of the dictionary"
    else:
        few_latents = f"{smallest.size:,} strongest latents"
    alive, n = int((firing.counts > 0).sum()), len(firing.counts)
    numbers = [
        (f"{1 - full['fvu']:.1%}", f"is explained by the largest code measured, {full['l0']:.0f} latents on average"),
        (f"{alive:,}", f"of {n:,} latents are active in these rows"),
    ]
    if len(levels.distinct) > 1:
        numbers.insert(0, (f"{1 - few['fvu']:.1%}", f"of the variance is explained by the {few_latents}"))
        quality = (
            f"The {few_latents} leave {few['fvu']:.4f} of the embeddings' variance unexplained (FVU); the largest "
            f"code measured, with {full['l0']:.1f} active latents on average, leaves {full['fvu']:.4f}."
        )
    else:
        numbers[0] = (f"{1 - full['fvu']:.1%}", f"of the variance is explained by {full['l0']:.0f} latents on average")
        quality = (
            f"The code, with {full['l0']:.1f} active latents on average, leaves {full['fvu']:.4f} of the embeddings' "
            "variance unexplained (FVU)."
        )
    sentences = [quality, *filter(None, [context.overfitted]), _names(labels, firing, alive)]
    if labels.validated is not None:
        passed = "are validated" if labels.has_strength_test else "pass the test against chance"
        numbers.append((f"{labels.validated['name'].nunique():,}", f"names {passed} ({labels.rule})"))
    aurocs = [card.auroc for card in cards if card.auroc is not None]
    if aurocs:
        good = sum(auroc > _GOOD_AUROC for auroc in aurocs)
        sentences.append(
            f"{len(aurocs):,} of the {len(cards):,} concepts shown are also columns of the dataset: their latents "
            f"separate rows with the concept from rows without it with a median AUROC of {np.median(aurocs):.3f}; "
            f"{good:,} exceed {_GOOD_AUROC}."
        )
    if len(hierarchy.edges):
        sentences.append(
            f"{len(hierarchy.edges):,} of {len(hierarchy.concepts):,} concepts are nearly always active together "
            "with a more general one."
        )
    sentences += [each.verdict for each in bias]
    return Findings(numbers, sentences)


def _names(labels: Labels, firing: Firing, alive: int) -> str:
    if labels.concepts is None:
        return "The latents have no names."
    found = labels.validated
    if found is None:
        return "The latents have names, but none was tested against chance."
    number = found["name"].nunique()
    of_alive = int((firing.counts[found["latent"]] > 0).sum())
    tests = "the test against chance"
    if labels.has_strength_test:
        tests = "the tests against chance and for its strength"
    weak = too_weak(labels.concepts.frame)
    return (
        f"{of_alive:,} of the {alive:,} latents active in these rows {'has' if of_alive == 1 else 'have'} a name "
        f"that passes {tests} (false discovery rate {MAX_Q:.0%}); "
        + ("there is 1 such name." if number == 1 else f"there are {number:,} such names.")
        + (f" Of all latents, {weak}." if weak else "")
    )
