"""Which concepts drive a classifier: a quick look, for a page."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import datasets
import numpy as np
import torch

from ...._utils.wording import class_title
from ....bias import BiasReport, bias_report
from ....embeddings import load_embeddings
from ....metrics import LinearClassifier
from ....metrics.label_columns import dataset_labels
from ...components.dose_chart import MAX_CURVES, Curve
from ...explorer import Explorer
from ...inputs import VisitorError, read_choice, read_text
from ...kept import Kept

TEXTS = "two texts of mine"
NUM_SAMPLES, NUM_NULL, NUM_BOOTSTRAP = 150, 100, 200
"""Fewer pictures than `bias_report` takes, but as many random latents: with fewer, small effects look larger."""
MAX_CONCEPTS = 64
"""The largest number of concepts that are tested, since each takes time: those most correlated with the answer."""
MIN_EACH = 20
"""Pictures with and without a label that a probe needs; it is trained on half of them."""
KEPT = 64
"""Number of answers about columns that are kept, and of answers about texts."""
KEPT_SECONDS = 3600
"""Time for which an answer about a visitor's texts is kept: drawing other curves of it asks again."""


@dataclass(frozen=True)
class Target:
    """What a classifier decides: either a column or texts."""

    column: str | None = None  # a column of the collection, for a probe
    texts: tuple[str, str] | None = None  # two texts for a zero-shot classifier, the class to explain first

    def __str__(self) -> str:
        return self.column or "" if self.texts is None else self.texts[0]


@dataclass(frozen=True, eq=False)
class Bias:
    """What drives a classifier."""

    target: Target
    report: BiasReport  # the concepts tested
    share: float  # the share of pictures for which it says yes
    num_pictures: int  # the number of pictures it was asked about
    num_concepts: int  # the number of concepts in these pictures, of which `report` has at most `MAX_CONCEPTS`
    # The share of pictures that a probe labels correctly; None for a zero-shot classifier.
    accuracy: float | None = None
    # The accuracy of always giving the more frequent answer; None for a zero-shot classifier.
    guessing: float | None = None


@lru_cache(maxsize=1)
def _labelled(images: datasets.Dataset) -> dict[str, tuple[np.ndarray, tuple[str, ...]]]:
    """The columns that have two classes: whether each picture has the second one (-1 where it is empty), and these."""
    found = {}
    for name, feature in images.features.items():
        is_bool = feature == datasets.Value("bool")  # has two classes even if all pictures have one answer
        given = ("False", "True") if is_bool else None
        try:
            labels, classes = dataset_labels(images, name, given)
        except ValueError:  # no column of labels
            continue
        if len(classes) == 2:
            found[name] = labels.astype(np.int8), classes
    return found


def columns(explorer: Explorer) -> dict[str, tuple[str, ...]]:
    """The columns of the collection that have two classes, and these; the second one is explained."""
    return {name: classes for name, (_, classes) in _labelled(explorer.images).items()}


def usable_columns(explorer: Explorer) -> tuple[str, ...]:
    """The columns that a probe can be trained on."""
    return tuple(name for name in columns(explorer) if min(_counts(explorer, name)) >= MIN_EACH)


def read_target(explorer: Explorer, target: object, text: object = None, other: object = None) -> Target:
    """Read what a visitor asks about: a column, or `TEXTS` with what it says yes to and the alternative."""
    if read_choice(target, (*columns(explorer), TEXTS), "target") != TEXTS:
        return Target(column=str(target))
    texts = read_text(text, "text in box 1"), read_text(other, "text in box 2")
    if texts[0].casefold() == texts[1].casefold():
        raise VisitorError("The two texts are the same: write an alternative in box 2, for example “no star”.")
    return Target(texts=texts)


def explain_classifier(explorer: Explorer, target: Target) -> Bias:
    """Find the concepts that drive a classifier, from a small sample.

    A probe is trained on half of the collection and asked about the other half; a zero-shot classifier is asked about
    all of it.
    """
    accuracy = guessing = None
    title = str(target)
    if target.texts is None:
        classifier, rows, accuracy, guessing = _probe(explorer, target.column)
        classes = columns(explorer)[target.column]
        title = class_title(target.column, classes, classes[1])
    else:
        # The class to explain is the second of the two, as for a probe.
        classifier, rows = explorer.zero_shot(target.texts[::-1]), np.arange(len(explorer.embeddings))
    ask = probability_of_second(classifier)
    embeddings = explorer.embeddings[rows]
    guess = (ask(embeddings) > 0.5).numpy()
    share = float(guess.mean())
    if share in (0.0, 1.0):
        raise VisitorError(
            f"The classifier gives all {len(rows)} pictures the same answer, {'yes' if share else 'no'}, so there is "
            "nothing to explain. Ask about something that only some of them show."
        )
    latents, num_concepts = _tested(explorer, rows, guess)
    if not latents:
        raise VisitorError(
            "Too few concepts of this model are active in the collection to compare with each other. Use another "
            "model, or a larger collection."
        )
    report = bias_report(
        explorer.msae,
        load_embeddings(embeddings),
        ask,
        concepts=explorer.model.concepts,
        indices=latents,
        target=title,
        num_samples=NUM_SAMPLES,
        num_null=NUM_NULL,
        num_bootstrap=NUM_BOOTSTRAP,
        progress=False,
    )
    report = _corrected(report, num_concepts)
    return Bias(target, report, share, len(rows), num_concepts, accuracy, guessing)


_of_columns, _of_texts = Kept(KEPT), Kept(KEPT, KEPT_SECONDS)
_secret = secrets.token_bytes()


def bias(explorer: Explorer, target: Target) -> Bias:
    """Find the concepts that drive a classifier, as `explain_classifier` does, keeping the answers.

    Visitors' own words are not kept: an answer about texts is found by a keyed hash of them, and does not hold them.
    """
    if target.texts is None:
        return _of_columns.get((explorer, target), lambda: explain_classifier(explorer, target))
    digest = hashlib.blake2b(json.dumps(target.texts).encode(), key=_secret).digest()
    kept = _of_texts.get((explorer, digest), lambda: _addressed(explain_classifier(explorer, target), Target()))
    return _addressed(kept, target)


def _addressed(found: Bias, target: Target) -> Bias:
    return replace(found, target=target, report=replace(found.report, target=str(target)))


def probability_of_second(classifier: LinearClassifier) -> Callable[[torch.Tensor], torch.Tensor]:
    """Make a function that gives the probability of the second of two classes.

    It does what that of `as_classifier` does, but with one product in float32. A report asks a million times, and
    this makes it several times as fast.
    """
    direction = (classifier.weight[1] - classifier.weight[0]).float()
    offset = float(classifier.bias[1] - classifier.bias[0])

    def ask(x: torch.Tensor) -> torch.Tensor:
        lengths = torch.linalg.vector_norm(x, dim=1)
        return ((x @ direction) / lengths.masked_fill(lengths == 0, 1.0)).double().add(offset).sigmoid()

    return ask


def _labels(explorer: Explorer, column: str) -> np.ndarray:
    """Whether each picture has the second class of a column: 1 or 0, and -1 where the column is empty."""
    return _labelled(explorer.images)[column][0].astype(int)


def _counts(explorer: Explorer, column: str) -> tuple[int, int]:
    """The numbers of pictures that have the second class of a column, and the first."""
    labels = _labels(explorer, column)
    return int((labels == 1).sum()), int((labels == 0).sum())


def _probe(explorer: Explorer, column: str) -> tuple[LinearClassifier, np.ndarray, float, float]:
    """Train a probe: the classifier, the rows it was not trained on, its accuracy there, and that of guessing."""
    from sklearn.model_selection import train_test_split

    positive, negative = _counts(explorer, column)
    if min(positive, negative) < MIN_EACH:
        no, yes = columns(explorer)[column]
        raise VisitorError(
            f"“{column}” is {yes} for {positive} of the {len(explorer.images)} pictures and {no} for {negative}, but "
            f"a probe needs {MIN_EACH} of each. Choose another target, or describe it in two texts."
        )
    truth = _labels(explorer, column)
    rows = np.flatnonzero(truth >= 0)
    train, test = map(np.sort, train_test_split(rows, test_size=0.5, stratify=truth[rows], random_state=0))
    probe = LinearClassifier.fit(explorer.embeddings[train], truth[train], ("no", "yes"), regularization="cv")
    guess = (probability_of_second(probe)(explorer.embeddings[test]) > 0.5).numpy()
    share = float(truth[test].mean())
    return probe, test, float((guess == truth[test]).mean()), max(share, 1 - share)


def _tested(explorer: Explorer, rows: np.ndarray, guess: np.ndarray) -> tuple[list[int], int]:
    """The latents to test, and the number of concepts in these rows; at most half of the active latents are tested."""
    codes = explorer.codes[rows]
    active = (codes > 0).any(axis=0)
    latents = np.array([each.latent for each in explorer.concepts.values() if active[each.latent]], dtype=int)
    most = min(MAX_CONCEPTS, int(active.sum()) // 2)
    if len(latents) <= most:
        return latents.tolist(), len(latents)
    activations = codes[:, latents] - codes[:, latents].mean(axis=0)
    lengths = np.maximum(np.linalg.norm(activations, axis=0), 1e-12)
    correlation = np.abs((guess - guess.mean()) @ activations / lengths)
    return latents[np.argsort(-correlation, kind="stable")][:most].tolist(), len(latents)


def _corrected(report: BiasReport, number: int) -> BiasReport:
    """Correct a report for having chosen the likeliest of a number of concepts.

    It becomes what it would be if the others had been tested and had shown nothing: with their p = 1, q-values of
    Benjamini and Hochberg grow by the ratio of the numbers, and p-values of Holm by no more than that.
    """
    factor = number / len(report.frame)
    if factor <= 1:
        return report
    frame = report.frame.copy()
    for column in ("q_effect", "p_association"):
        frame[column] = (frame[column] * factor).clip(upper=1.0)
    frame["drives"] &= frame["q_effect"] <= report.alpha
    return replace(report, frame=frame.sort_values("drives", ascending=False, kind="stable", ignore_index=True))


def dose_response(explorer: Explorer, found: Bias, names: object) -> tuple[Curve, ...]:
    """The dose-response curves of at most `MAX_CURVES` concepts of a report."""
    if not isinstance(names, (list, tuple)) or not names:
        raise VisitorError("Choose a concept to draw.")
    if len(names) > MAX_CURVES:
        raise VisitorError(f"At most {MAX_CURVES} concepts can be drawn at a time.")
    curves = {}
    for name in names:
        latent = explorer.latent_of(name)
        rows = found.report.curves[found.report.curves["latent"] == latent]
        if rows.empty:
            raise VisitorError(f"“{name}” was not tested: choose one of the concepts in the list.")
        values = [tuple(rows[column].tolist()) for column in ("quantile", "dose", "probability", "low", "high")]
        curves[latent] = Curve(explorer.key_of(latent), explorer.label(latent).validated, *values)
    return tuple(curves.values())


def first_to_ask(explorer: Explorer) -> str | None:
    """A column to begin with, preferably one that a concept is named after; None if no column can be used."""
    found = usable_columns(explorer)
    return next((name for name in found if name in explorer.concepts), next(iter(found), None))


def first_to_draw(explorer: Explorer, found: Bias) -> list[str]:
    """The concepts that drive a classifier most; if none is shown to, the likeliest."""
    frame = found.report.frame
    drivers = found.report.drivers["latent"].tolist() or [frame.loc[frame["q_effect"].idxmin(), "latent"]]
    return [explorer.key_of(latent) for latent in drivers[:3]]
