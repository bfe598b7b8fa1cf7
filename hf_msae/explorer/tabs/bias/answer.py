"""Which concepts drive a classifier: a quick look, for a page."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, wraps
from hashlib import blake2b
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
import torch

from ....bias import BiasReport, bias_report
from ....embeddings import load_embeddings
from ....metrics import LinearClassifier
from ...components.dose_chart import MAX_CURVES, Curve
from ...inputs import VisitorError, read_choice, read_text

if TYPE_CHECKING:
    from ...explorer import Explorer

TEXTS = "two texts of mine"
NUM_SAMPLES, NUM_NULL, NUM_BOOTSTRAP = 150, 100, 200
"""Fewer pictures than `bias_report` takes, but as many random latents: with fewer, small effects look like more."""
MAX_CONCEPTS = 64
"""Concepts that are asked about, those that go along with the answer most: each costs time."""
MIN_EACH = 20
"""Pictures with and without what a probe is trained for, of which it sees half."""
KEPT = 64
"""Answers about columns that are kept, and as many about texts."""
_TEXTS_KEPT = 900.0
"""Seconds for which answers about texts are: while somebody draws one concept of them after another."""
_key = secrets.token_bytes(16)


@dataclass(frozen=True)
class Target:
    """What a classifier decides.

    Attributes:
        column: of the collection, for a probe; or None.
        texts: two, for a zero-shot classifier, the class asked about first; or None.
    """

    column: str | None = None
    texts: tuple[str, str] | None = None

    def __str__(self) -> str:
        return self.column if self.texts is None else self.texts[0]


@dataclass(frozen=True)
class Bias:
    """What drives a classifier.

    Attributes:
        target: what it decides.
        report: of the concepts.
        share: of the pictures that the report is about, the part that the classifier says yes to.
        num_pictures: that it was asked about.
        num_concepts: that are in these pictures; the report is of `MAX_CONCEPTS` at most.
        accuracy: the part of pictures that a probe labels as the column does; None of a zero-shot classifier.
        guessing: the accuracy of always saying what is more frequent; None likewise.
    """

    target: Target
    report: BiasReport
    share: float
    num_pictures: int
    num_concepts: int
    accuracy: float | None = None
    guessing: float | None = None


def columns(explorer: Explorer) -> tuple[str, ...]:
    """The columns with yes or no for each picture."""
    features = explorer.images.features
    return tuple(name for name, feature in features.items() if getattr(feature, "dtype", None) == "bool")


@lru_cache(maxsize=1)
def usable_columns(explorer: Explorer) -> tuple[str, ...]:
    """Those of them that a probe can be trained for."""
    found = _truths(explorer, columns(explorer))
    return tuple(name for name, truth in found.items() if min((truth == 0).sum(), (truth == 1).sum()) >= MIN_EACH)


def read_target(explorer: Explorer, target: object, text: object = None, other: object = None) -> Target:
    """What a visitor asks about.

    Args:
        target: a column, or `TEXTS`.
        text: what the classifier says yes to, for `TEXTS`.
        other: what it could be otherwise.

    Raises:
        VisitorError: there is no such column, or a text is missing or too long, or they are the same.
    """
    if read_choice(target, (*columns(explorer), TEXTS), "target") != TEXTS:
        return Target(column=str(target))
    texts = read_text(text, "text in box 1"), read_text(other, "text in box 2")
    if texts[0].casefold() == texts[1].casefold():
        raise VisitorError("The two texts are the same: write what it could be otherwise, for example “no star”.")
    return Target(texts=texts)


def _bias(explorer: Explorer, target: Target) -> Bias:
    """Which concepts drive a classifier, by a small sample; kept, since it depends on nothing else.

    A probe is trained on one half of the collection and asked about the other; a zero-shot classifier is asked about
    all of it.

    Raises:
        VisitorError: there are too few pictures of a kind, or the classifier gives all the same answer.
    """
    if target.texts is None:
        classifier, rows, accuracy, guessing = _probe(explorer, target.column)
    else:
        classifier, rows = explorer.zero_shot([*target.texts]), np.arange(len(explorer.embeddings))
        # The class asked about is the second of a probe's two, and of these too.
        classifier = LinearClassifier(classifier.weight.flip(0), classifier.bias.flip(0), classifier.classes[::-1])
        accuracy = guessing = None
    ask = probability_of_second(classifier)
    embeddings = explorer.embeddings[rows]
    guess = (ask(embeddings) > 0.5).numpy()
    share = float(guess.mean())
    if share in (0.0, 1.0):
        raise VisitorError(
            f"The classifier gives all {len(rows)} pictures the same answer, {'yes' if share else 'no'}: there is "
            "nothing to explain. Ask about something that some of them have."
        )
    latents, num_concepts = _asked(explorer, rows, guess)
    if not latents:
        raise VisitorError(
            "This model has too few active concepts to compare with: that takes another model, or a larger collection."
        )
    report = bias_report(
        explorer.msae,
        load_embeddings(embeddings),
        ask,
        concepts=explorer.model.concepts,
        latents=latents,
        target=str(target),
        num_samples=NUM_SAMPLES,
        num_null=NUM_NULL,
        num_bootstrap=NUM_BOOTSTRAP,
        progress=False,
    )
    report = _as_of(report, num_concepts)
    return Bias(target, report, share, len(rows), num_concepts, accuracy, guessing)


_of_column = lru_cache(maxsize=KEPT)(_bias)
_of_texts: WeakKeyDictionary[Explorer, OrderedDict[bytes, tuple[float, Bias]]] = WeakKeyDictionary()
_lock = threading.Lock()


@wraps(_bias)
def bias(explorer: Explorer, target: Target) -> Bias:
    if target.texts is None:
        return _of_column(explorer, target)
    # A visitor's words are not kept: found again by a keyed hash, the answer gets them back from who asks.
    key = blake2b("\0".join(target.texts).encode(), key=_key).digest()
    with _lock:
        kept = _of_texts.setdefault(explorer, OrderedDict())
        while kept and time.monotonic() - next(iter(kept.values()))[0] > _TEXTS_KEPT:
            kept.popitem(last=False)
        _, found = kept.get(key, (0.0, None))
    if found is not None:
        return replace(found, target=target, report=replace(found.report, target=str(target)))
    found = _bias(explorer, target)
    with _lock:
        kept[key] = time.monotonic(), replace(found, target=Target(), report=replace(found.report, target=""))
        while len(kept) > KEPT:
            kept.popitem(last=False)
    return found


def probability_of_second(classifier: LinearClassifier) -> Callable[[torch.Tensor], torch.Tensor]:
    """The probability of the second of two classes, as `as_classifier` gives it, but by one product in float32.

    A report asks a million times; this makes it several times as fast.
    """
    direction = (classifier.weight[1] - classifier.weight[0]).float()
    bias = float(classifier.bias[1] - classifier.bias[0])

    def ask(x: torch.Tensor) -> torch.Tensor:
        lengths = torch.linalg.vector_norm(x, dim=1)
        return ((x @ direction) / lengths.masked_fill(lengths == 0, 1.0)).double().add(bias).sigmoid()

    return ask


def _truths(explorer: Explorer, names: Sequence[str]) -> dict[str, np.ndarray]:
    """1, 0, or -1 where a column is empty, (N,) of each."""
    frame = explorer.images.select_columns(list(names)).to_pandas() if names else pd.DataFrame()
    return {name: frame[name].map({True: 1, False: 0}).fillna(-1).to_numpy(int) for name in frame}


def _probe(explorer: Explorer, column: str) -> tuple[LinearClassifier, np.ndarray, float, float]:
    """A probe, the rows that it was not trained on, its accuracy there, and that of guessing."""
    truth = _truths(explorer, [column])[column]
    have, have_not = int((truth == 1).sum()), int((truth == 0).sum())
    if min(have, have_not) < MIN_EACH:
        raise VisitorError(
            f"{have} of the {len(truth)} pictures have “{column}” and {have_not} have it not: a probe needs "
            f"{MIN_EACH} of each kind. Choose another target, or describe it by two texts."
        )
    # Each half has as many of both kinds, in whatever order the collection is.
    rows = np.random.default_rng(0).permutation(np.flatnonzero(truth >= 0))
    rows = rows[np.argsort(truth[rows], kind="stable")]
    train, test = np.sort(rows[::2]), np.sort(rows[1::2])
    probe = LinearClassifier.fit(explorer.embeddings[train], truth[train], ("no", "yes"), regularization="cv")
    guess = (probability_of_second(probe)(explorer.embeddings[test]) > 0.5).numpy()
    share = float(truth[test].mean())
    return probe, test, float((guess == truth[test]).mean()), max(share, 1 - share)


def _asked(explorer: Explorer, rows: np.ndarray, guess: np.ndarray) -> tuple[list[int], int]:
    """The latents of the concepts that are asked about, and how many there are; none where too few are left over."""
    latents = np.array([each.latent for each in explorer.concepts.values()])
    codes = explorer.codes[rows]
    active = (codes > 0).any(axis=0)
    latents = latents[active[latents]]
    most = min(MAX_CONCEPTS, int(active.sum()) // 2)
    if len(latents) > most:
        activations = codes[:, latents] - codes[:, latents].mean(axis=0)
        size = np.maximum(np.linalg.norm(activations, axis=0), 1e-12)
        along = np.abs((guess - guess.mean()) @ activations / size)
        return sorted(latents[np.argsort(-along, kind="stable")][:most].tolist()), len(latents)
    return sorted(latents.tolist()), len(latents)


def _as_of(report: BiasReport, number: int) -> BiasReport:
    """The report as it would be of so many concepts, had those that were not asked about shown nothing.

    Who picks the likeliest of many has to pay for all of them: with p = 1 of the others, Benjamini-Hochberg's q-values
    grow by their share, and Holm's p-values by no more than that.
    """
    factor = number / len(report.frame)
    if factor <= 1:
        return report
    frame = report.frame.copy()
    for column in ("q_effect", "p_association"):
        frame[column] = (frame[column] * factor).clip(upper=1.0)
    frame["drives"] &= frame["q_effect"] <= report.alpha
    return replace(report, frame=frame.sort_values("drives", ascending=False, kind="stable", ignore_index=True))


def dose_response(explorer: Explorer, target: Target, names: object) -> tuple[Curve, ...]:
    """The curve of each concept chosen.

    Args:
        target: as for `bias`.
        names: of concepts that its report has, `MAX_CURVES` at most.

    Raises:
        VisitorError: there are none, too many, or others; and as `bias`.
    """
    if not isinstance(names, (list, tuple)) or not names:
        raise VisitorError("Choose a concept to draw.")
    if len(names) > MAX_CURVES:
        raise VisitorError(f"At most {MAX_CURVES} concepts can be drawn at a time.")
    report = bias(explorer, target).report
    found = {}
    for name in names:
        latent = explorer.latent_of(name)
        rows = report.curves[report.curves["latent"] == latent]
        if rows.empty:
            raise VisitorError("A concept was not asked about: choose among those that the findings list.")
        values = [rows[column].tolist() for column in ("quantile", "dose", "probability", "low", "high")]
        found[latent] = Curve(explorer.key_of(latent), explorer.label(latent).validated, *map(tuple, values))
    return tuple(found.values())


def first_to_ask(explorer: Explorer) -> str | None:
    """A column to begin with: one that a concept is named like, if there is one; None where there are no columns."""
    found = usable_columns(explorer)
    return next((name for name in found if name in explorer.concepts), found[0] if found else None)


def first_to_draw(explorer: Explorer, found: Bias) -> list[str]:
    """The concepts that drive a classifier most; where none is shown to, the one of the largest effect."""
    drivers = found.report.drivers["latent"].tolist() or found.report.frame["latent"].tolist()[:1]
    return [explorer.key_of(latent) for latent in drivers[:3]]
