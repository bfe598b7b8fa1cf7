"""Confirming labels with pictures that the search did not see, and finding what else a neuron responds to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.cluster import AgglomerativeClustering

from ..statistics import holm
from .budget import BudgetSpentError
from .gallery import Gallery
from .imagers.base import CannotDrawError
from .looks import ALIKE, Looks
from .neuron import Neuron
from .scoring import activation_rate, p_value, reach, score, score_interval
from .search import LEAST_IMAGES, SearchSettings, Trial

STRONG = 0.9
"""Concepts with at least this AUC in the search, where nothing else activates the neuron, may be its meanings."""
MOST_MEANINGS = 5
_MOST_FACTOR = 4


@dataclass(frozen=True)
class Confirmation:
    """How a neuron responds to fresh pictures of a concept, compared with fresh control pictures.

    `images` are SHA-256, `score` is by the metric of the search, with the ends of its 95% interval, and `auc_low` has
    to reach `limit`. `problem` says why there is no score, and `stopped` why there are fewer pictures than the imager
    has.
    """

    concept: str
    images: tuple[str, ...] = ()
    activations: np.ndarray | None = None
    score: float = np.nan
    low: float = np.nan
    high: float = np.nan
    auc: float = np.nan
    auc_low: float = np.nan
    limit: float = np.nan
    p_value: float = np.nan
    problem: str = ""
    stopped: str = ""


def confirm(
    trial: Trial,
    neuron: Neuron,
    gallery: Gallery,
    control: np.ndarray,
    settings: SearchSettings,
    number: int,
    seen: set[str],
) -> Confirmation:
    """Make pictures of a concept that the search did not use, and compare them with fresh control pictures.

    A picture of a collection may belong to several concepts: those in `seen`, SHA-256 of what the search for this
    label scored, are left out, and others take their place as long as there are any.

    Where much else activates the neuron, more pictures are needed to tell a perfect concept from chance: `number` is
    divided by the share of control pictures that do not activate it as the concept does, if the budget allows that.
    """
    concept, there_are = trial.concept, gallery.most_pictures(trial.concept)
    rate = activation_rate(control, trial.activations)
    start, more = settings.most_images, min(_MOST_FACTOR * number, math.ceil(number / (1 - rate)))
    if there_are is not None:
        start = len(trial.images)  # where pictures are few, all that are left count
        number, more = min(number, there_are - start), min(more, there_are - start)
    if number < LEAST_IMAGES:
        return Confirmation(concept, problem=f"only {max(0, number)} pictures are left to confirm it")
    stopped = ""
    try:
        try:
            drawn = gallery.draw(concept, settings.seeds(start, more))
        except BudgetSpentError:  # it may allow the number that was asked for
            drawn = gallery.draw(concept, settings.seeds(start, more := number))
        images = [name for name in drawn if name not in seen]
        while missing := more - len(images):
            start += len(drawn)
            missing = missing if there_are is None else min(missing, there_are - start)
            if not missing or (there_are is None and seen.issuperset(drawn)):  # it might go on like that for ever
                break
            try:
                drawn = gallery.draw(concept, settings.seeds(start, missing))
            except BudgetSpentError as error:
                if len(images) < LEAST_IMAGES:
                    raise
                stopped = str(error)
                break
            images += [name for name in drawn if name not in seen]
    except CannotDrawError as error:
        return Confirmation(concept, problem=str(error))
    if len(images) < LEAST_IMAGES:
        return Confirmation(
            concept, problem=f"only {len(images)} pictures are left to confirm it that the search did not see"
        )
    shown = gallery.activations(neuron, images)
    auc = score("auc", shown, control)
    return Confirmation(
        concept,
        tuple(images),
        shown,
        score(settings.metric, shown, control),
        *score_interval(settings.metric, shown, control, settings.seed),
        auc,
        *reach(auc, rate, len(shown), len(control)),
        p_value(shown, control),
        stopped=stopped,
    )


def is_strong(trial: Trial, control: np.ndarray) -> bool:
    """Whether the AUC of a trial would be at least 0.9 if nothing else activated the neuron."""
    if not len(trial.images):
        return False
    rate = activation_rate(control, control)  # the neuron's own: few pictures would say little
    return score("auc", trial.activations, control) - 0.5 >= (STRONG - 0.5) * (1 - rate)


def clusters(trials: Sequence[Trial], looks: Looks) -> list[list[Trial]]:
    """Group concepts by meaning, best first: average linkage, with a likeness of at least `looks.ALIKE`.

    Concepts with a picture in common, such as wordings of what a renderer knows, are one.
    """
    wordings: list[list[Trial]] = []
    for trial in trials:
        same = next((each for each in wordings if not set(trial.images).isdisjoint(each[0].images)), None)
        if same is None:
            wordings.append(same := [])
        same.append(trial)
    if len(wordings) < 2:
        return wordings
    firsts = [each[0] for each in wordings]
    likeness = looks.likeness([trial.concept for trial in firsts], [trial.images for trial in firsts])
    found = AgglomerativeClustering(None, metric="precomputed", linkage="average", distance_threshold=1 - ALIKE)
    labels = found.fit_predict(np.clip(1 - likeness, 0, 2))
    groups = [np.flatnonzero(labels == label) for label in dict.fromkeys(labels.tolist())]
    # In the order of their best members.
    return [sorted((trial for i in group for trial in wordings[i]), key=trials.index) for group in groups]


def joined(found: Sequence[Confirmation], looks: Looks) -> list[int]:
    """Return for each meaning the place of the first one that its fresh pictures are like; its own, if of none."""
    drawn = [place for place, each in enumerate(found) if each.images]
    if len(drawn) < 2:
        return list(range(len(found)))
    likeness = looks.likeness([found[place].concept for place in drawn], [found[place].images for place in drawn])
    first = list(range(len(found)))
    for row, place in enumerate(drawn):
        like = [other for column, other in enumerate(drawn[:row]) if likeness[row, column] >= ALIKE]
        first[place] = first[like[0]] if like else place
    return first


def is_confirmed(found: Sequence[Confirmation]) -> list[bool]:
    """Say which of several concepts are confirmed: the AUC reaches its limit (`reach`), and p <= 0.05 after Holm."""
    tested = [each for each in found if not each.problem]
    corrected = dict(zip(map(id, tested), holm(np.array([each.p_value for each in tested])), strict=True))
    return [bool(not each.problem and each.auc_low >= each.limit and corrected[id(each)] <= 0.05) for each in found]
