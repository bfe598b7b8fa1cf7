"""Are labels right? Judged on images whose truth is known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from ...statistics import auroc_interval
from ..words import KnownConcepts, WordEmbeds
from .measures import MEASURES, checked_activations, known_measure, unmeasurable
from .truth import Truth

RIGHT_AUROC = 0.9
"""AUROC from which on a label counts as right."""

MIN_IMAGES = 10
"""Number of images with a true concept, and without it, that are needed to say how well a neuron detects it."""


def label_accuracy(
    labels: Sequence[str | None],
    activations: np.ndarray,
    truth: Truth,
    threshold: float = RIGHT_AUROC,
    measures: Iterable[str] = ("auprc", "correlation"),
    level: float = 0.95,
) -> pd.DataFrame:
    """Judge labels of neurons on images whose truth is known.

    A label is right if the activation tells the images that it is true of from all others with an AUROC of at least
    `threshold`, and all of its words are known. A conjunction such as "red circle" is true where all of it is.

    A right label need not be the best one: "animal" may be right for a neuron that is active for dogs. `best` is the
    single true concept with the highest AUROC among those with enough images.

    Args:
        labels: Label of each neuron (n,); None for none.
        activations: Activations of the neurons on the images of `truth` (N, n). None of them may have chosen labels.
        truth: What is in the images.
        threshold: AUROC from which on a label is right.
        measures: More measures of the label's presence, as in `measure_labels`.
        level: Confidence level of the intervals.

    Returns:
        One row per neuron: neuron, label, concepts (true ones that it names, comma-separated), unknown (words that
        name none), share (of images that it is true of), auroc, auroc_low, auroc_high, the measures, right, best,
        best_auroc, names_best (whether the label names `best`), is_best (whether it names nothing else) and reason
        (why there are no figures, or "").

    Raises:
        ValueError: Numbers of labels, neurons or images differ, or a measure is unknown.
    """
    chosen = {name: known_measure(name) for name in measures}
    activations = checked_activations(activations)
    if activations.shape != (len(truth.presence), len(labels)):
        raise ValueError(
            f"activations have shape {activations.shape}, but there are {len(truth.presence)} images and "
            f"{len(labels)} labels"
        )
    best, best_area = best_concepts(activations, truth)
    rows = []
    for neuron, label in enumerate(labels):
        reading, column = truth.read(label), activations[:, [neuron]]
        row = {"share": np.nan, "auroc": np.nan, "auroc_low": np.nan, "auroc_high": np.nan}
        row |= dict.fromkeys(chosen, np.nan)
        reason = reading.problem
        if reading.presence is not None:
            presence = reading.presence[:, None].astype(np.float64)
            row["share"], reason = presence.mean(), unmeasurable(column, presence)[0, 0]
            if not reason:
                row["auroc"] = area = MEASURES["auc"](column, presence)[0, 0]
                positives = int(presence.sum())
                row["auroc_low"], row["auroc_high"] = map(
                    float, auroc_interval(area, positives, len(presence) - positives, level)
                )
                row |= {name: measure(column, presence)[0, 0] for name, measure in chosen.items()}
        named = reading.concepts
        rows.append(
            {
                "neuron": neuron,
                "label": label,
                "concepts": ", ".join(named),
                "unknown": ", ".join(reading.unknown),
                **row,
                "right": bool(row["auroc"] >= threshold) and not reading.unknown,
                "best": best[neuron],
                "best_auroc": best_area[neuron],
                "names_best": best[neuron] is not None and best[neuron] in named,
                "is_best": best[neuron] is not None and named == (best[neuron],) and not reading.unknown,
                "reason": reason,
            }
        )
    frame = pd.DataFrame(rows)
    for name in ("label", "best"):  # pandas would make NaN of None
        frame[name] = pd.Series([row[name] for row in rows], dtype=object)
    return frame


def best_concepts(activations: np.ndarray, truth: Truth) -> tuple[list[str | None], np.ndarray]:
    """Return the true concept that each neuron detects best, and its AUROC.

    Neurons that do not vary have None and NaN, and so have all if no concept has enough images.

    Args:
        activations: Activations (N, n).
        truth: What is in the images.
    """
    counts = truth.presence.sum(axis=0)
    enough = np.flatnonzero((counts >= MIN_IMAGES) & (counts <= len(truth.presence) - MIN_IMAGES))
    activations = checked_activations(activations)
    if not len(enough):
        return [None] * activations.shape[1], np.full(activations.shape[1], np.nan)
    areas = MEASURES["auc"](activations, truth.presence[:, enough])
    place = np.nan_to_num(areas, nan=-1).argmax(axis=1)
    found = areas[np.arange(len(areas)), place]
    names = [
        None if np.isnan(area) else truth.concepts[enough[which]] for which, area in zip(place, found, strict=True)
    ]
    return names, found


def outside_vocabulary(
    labels: Sequence[str | None], vocabulary: Iterable[str], word_embeds: WordEmbeds | None = None
) -> np.ndarray:
    """Return which labels are not in a vocabulary, bool (n,).

    Case and number do not count; with `word_embeds`, neither do synonyms (`KnownConcepts`). None is not outside.

    Args:
        labels: Labels (n,).
        vocabulary: Words.
        word_embeds: Embeds texts.
    """
    known = KnownConcepts(word_embeds)
    for word in vocabulary:
        known.add(word)
    return np.array([label is not None and known.find(label) is None for label in labels], dtype=bool)
