"""Confirming labels with pictures that the search did not see, and finding what else a neuron responds to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.cluster import AgglomerativeClustering

from ..statistics import holm
from .gallery import Gallery
from .imagers.base import CannotDrawError
from .neuron import Neuron
from .scoring import interval, p_value, score
from .search import LEAST_IMAGES, SearchSettings, Trial
from .words import WordEmbeds, same_words, unit_rows

CONFIRMED = 0.8
"""A concept is confirmed if the lower end of the interval of its AUC on fresh pictures is at least this."""
STRONG = 0.9
"""Concepts with at least this AUC in the search may be meanings of the neuron."""
MOST_MEANINGS = 5
_APART = 0.6
"""Concepts are of different meanings if the cosine of their embeddings is below this, on average over a cluster."""


@dataclass(frozen=True)
class Confirmation:
    """How a neuron responds to fresh pictures of a concept, compared with fresh control pictures.

    Attributes:
        concept: The concept.
        images: SHA-256 of the pictures.
        activations: The neuron's activations (n,).
        score: The score, by the metric of the search.
        low: Lower end of its 95% interval.
        high: Upper end.
        auc: The AUC.
        auc_low: Lower end of its 95% interval.
        p_value: Of the Mann-Whitney test.
        problem: Why there is no score.
    """

    concept: str
    images: tuple[str, ...] = ()
    activations: np.ndarray | None = None
    score: float = np.nan
    low: float = np.nan
    high: float = np.nan
    auc: float = np.nan
    auc_low: float = np.nan
    p_value: float = np.nan
    problem: str = ""


def confirm(
    concept: str, neuron: Neuron, gallery: Gallery, control: np.ndarray, settings: SearchSettings, number: int
) -> Confirmation:
    """Make pictures of a concept that the search did not use, and compare them with fresh control pictures.

    Args:
        concept: The concept.
        neuron: The neuron.
        gallery: Makes pictures.
        control: Activations of control pictures that the search did not use.
        settings: Those of the search.
        number: Number of pictures; fewer if the imager has fewer.

    Raises:
        BudgetSpentError: They would cost more than the budget allows.
    """
    there_are = gallery.imager.most_pictures(concept)
    start = settings.most_images
    if there_are is not None:
        start = min(start, max(settings.images_per_concept, there_are // 2))
        number = min(number, there_are - start)
    if number < LEAST_IMAGES:
        return Confirmation(concept, problem=f"only {max(0, number)} pictures are left to confirm it")
    try:
        images = gallery.draw(concept, settings.seeds(start, number))
    except CannotDrawError as error:
        return Confirmation(concept, problem=str(error))
    shown = gallery.activations(neuron, images)
    low, high = interval(settings.metric, shown, control, settings.seed)
    return Confirmation(
        concept,
        tuple(images),
        shown,
        score(settings.metric, shown, control),
        low,
        high,
        score("auc", shown, control),
        interval("auc", shown, control)[0],
        p_value(shown, control),
    )


def clusters(trials: Sequence[Trial], control: np.ndarray, word_embeds: WordEmbeds | None) -> list[list[Trial]]:
    """Group the strong concepts of a search by meaning, best first.

    Concepts are strong if their AUC against the control pictures is at least 0.9. They are clustered by their
    embeddings (average linkage, cosine distance below 0.4), or, without embeddings, by the words that they share.
    Concepts with the same pictures, such as wordings of what a renderer knows, are in one cluster.

    Args:
        trials: The trials of a search, best first.
        control: Activations of the control pictures.
        word_embeds: Embeds concepts.
    """
    strong = [trial for trial in trials if len(trial.images) and score("auc", trial.activations, control) >= STRONG]
    if len(strong) < 2:
        return [[trial] for trial in strong]
    if word_embeds is not None:
        units = unit_rows(word_embeds([trial.concept for trial in strong]))
        distance = np.clip(1 - units @ units.T, 0, 2)
        limit = 1 - _APART
    else:
        words = [set(same_words(trial.concept).split()) for trial in strong]
        distance = np.array([[float(not a & b) for b in words] for a in words])
        limit = 0.5
    pictures = [set(trial.images) for trial in strong]
    distance[np.array([[bool(own & others) for others in pictures] for own in pictures])] = 0.0
    found = AgglomerativeClustering(None, metric="precomputed", linkage="average", distance_threshold=limit)
    labels = found.fit_predict(distance)
    # In the order of their best members.
    return [[strong[i] for i in np.flatnonzero(labels == label)] for label in dict.fromkeys(labels.tolist())]


def is_confirmed(found: Sequence[Confirmation]) -> list[bool]:
    """Say which of several concepts are confirmed: AUC at least 0.8 with its interval, and p <= 0.05 after Holm."""
    tested = [each for each in found if not each.problem]
    corrected = dict(zip(map(id, tested), holm(np.array([each.p_value for each in tested])), strict=True))
    return [bool(not each.problem and each.auc_low >= CONFIRMED and corrected[id(each)] <= 0.05) for each in found]
