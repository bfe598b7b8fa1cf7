"""Data whose truth is known: which images a label, written by anyone, is true of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...scenes.world import CONCEPTS, Scene, sample_scene
from ..words import clean_concept, form_of, same_words, split_words
from .formulas import OPERATORS, parse_formula

if TYPE_CHECKING:
    from datasets import Dataset

_SMALL_WORDS = frozenset(
    "a an the some of in on at with and to by for picture image photo photograph drawing clipart illustration".split()
)


@dataclass(frozen=True)
class Reading:
    """What a label means in terms of the truth.

    Attributes:
        presence: Which images it is true of, bool (N,); None if nothing of it is known.
        concepts: The true concepts that it names.
        unknown: Words that name none.
        problem: Why there is no presence, or "".
    """

    presence: np.ndarray | None
    concepts: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    problem: str = ""


class Truth(ABC):
    """Images whose contents are known.

    Args:
        concepts: Names of the true concepts (n,).
        presence: Which images show them, bool (N, n).

    Raises:
        ValueError: Shapes differ, or presence is not boolean.
    """

    def __init__(self, concepts: Sequence[str], presence: np.ndarray) -> None:
        presence = np.asarray(presence)
        if presence.dtype != bool or presence.ndim != 2 or presence.shape[1] != len(concepts):
            raise ValueError(
                f"presence must be booleans (N, {len(concepts)}), got {presence.dtype} of shape {presence.shape}"
            )
        self.concepts, self.presence = tuple(concepts), presence

    @abstractmethod
    def _phrase(self, text: str) -> Reading:
        """Read a text without AND, OR and NOT in capitals."""

    def read(self, label: str | None) -> Reading:
        """Read a label: words, all of which must be true of an image, or a formula of `Invert`."""
        if label is None:
            return Reading(None, problem="there is no label")
        if not set(OPERATORS) & set(label.replace("(", " ").replace(")", " ").split()):
            return self._phrase(label)
        readings: dict[str, Reading] = {}

        def column(text: str) -> np.ndarray:
            readings[text] = found = self._phrase(text)
            if found.presence is None:
                raise ValueError(found.problem)
            return found.presence

        try:
            presence, problem = parse_formula(label).evaluate(column), ""
        except ValueError as error:
            presence, problem = None, str(error)
        return Reading(
            presence,
            tuple(dict.fromkeys(concept for each in readings.values() for concept in each.concepts)),
            tuple(dict.fromkeys(word for each in readings.values() for word in each.unknown)),
            problem,
        )


class WordTruth(Truth):
    """Images with columns of truth, whose concepts are recognized in labels by their words.

    A label names a concept if it holds its name or another wording of it, in singular or plural. The longest match
    counts: "fire truck" is not "fire" and "truck". A label that names several is true where all of them are. A name
    that is no concept, such as "2021", has to be written as it is.

    Args:
        concepts: Names of the true concepts (n,).
        presence: Which images show them, bool (N, n).
        wordings: More wordings of concepts, by name.

    Raises:
        ValueError: Shapes differ, or wordings are of a concept that is not there.
    """

    def __init__(
        self, concepts: Sequence[str], presence: np.ndarray, wordings: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        super().__init__(concepts, presence)
        wordings = wordings or {}
        if unknown := [concept for concept in wordings if concept not in self.concepts]:
            raise ValueError(f"wordings are given of {unknown[0]!r}, which is not one of the concepts")
        self._known: dict[tuple[str, ...], int] = {}
        for place, concept in enumerate(self.concepts):
            for wording in (concept, *wordings.get(concept, ())):
                self._known.setdefault(tuple(form_of(wording).split()), place)
        self._longest = max(map(len, self._known), default=1)

    @classmethod
    def from_tags(
        cls, tags: Sequence[Sequence[str]], least: int = 10, wordings: Mapping[str, Sequence[str]] | None = None
    ) -> WordTruth:
        """Take tags of images, such as the column `tags` of `load_clipart`, as their truth.

        Tags that differ only in case, number or punctuation, such as "cat", "Cats" and "cat!", are one concept, named
        by the most frequent of them: a label names all of them.

        Args:
            tags: Tags of each image.
            least: Number of images that a tag must be in, and be absent from, to be a concept.
            wordings: More wordings of tags, by any spelling of the tag.

        Raises:
            ValueError: No tag is in so many images.
        """
        spelled = _one_spelling(tags)
        tags = [{spelled[tag] for tag in of_image} for of_image in tags]
        counts = Counter(tag for of_image in tags for tag in of_image)
        concepts = sorted(tag for tag, count in counts.items() if least <= count <= len(tags) - least)
        if not concepts:
            raise ValueError(f"no tag is in at least {least} of {len(tags)} images and absent from as many")
        places = {tag: place for place, tag in enumerate(concepts)}
        presence = np.zeros((len(tags), len(concepts)), dtype=bool)
        for row, of_image in enumerate(tags):
            presence[row, [places[tag] for tag in of_image if tag in places]] = True
        named: dict[str, list[str]] = {}
        for tag, of_tag in (wordings or {}).items():
            named.setdefault(spelled.get(tag, tag), []).extend(of_tag)
        return cls(concepts, presence, named)

    def _phrase(self, text: str) -> Reading:
        try:
            words, written = same_words(text).split(), split_words(clean_concept(text))
        except ValueError as error:
            return Reading(None, problem=str(error))
        found, unknown, place = [], [], 0
        while place < len(words):
            lengths = range(min(self._longest, len(words) - place), 0, -1)
            length = next((n for n in lengths if tuple(words[place : place + n]) in self._known), 0)
            if length:
                found.append(self._known[tuple(words[place : place + length])])
            elif written[place] not in _SMALL_WORDS:
                unknown.append(written[place])
            place += max(1, length)
        if not found:
            return Reading(None, (), tuple(unknown), f"none of the words of {text!r:.80} is a true concept")
        presence = self.presence[:, found].all(axis=1)
        return Reading(presence, tuple(self.concepts[each] for each in dict.fromkeys(found)), tuple(unknown))


def _one_spelling(tags: Sequence[Sequence[str]]) -> dict[str, str]:
    """Return for each tag the most frequent of those that mean the same to labels, the first in order of several."""
    counts = Counter(tag for of_image in tags for tag in set(of_image))
    chosen: dict[str, str] = {}
    forms = {tag: form_of(tag) for tag in sorted(counts, key=lambda tag: (-counts[tag], tag))}
    for tag, form in forms.items():
        chosen.setdefault(form, tag)
    return {tag: chosen[form] for tag, form in forms.items()}


class SceneTruth(Truth):
    """Scenes, in which labels are read by `parse_scene`: "small red star" must be true of one object.

    Args:
        scenes: The scenes whose images are measured, e.g. `sample_scene("test", seed, index)` for the images of
            `load_scenes("test", n, seed)`.
    """

    def __init__(self, scenes: Sequence[Scene]) -> None:
        self.scenes = tuple(scenes)
        shown = [scene.concepts for scene in self.scenes]
        presence = np.array([[concept in each for concept in CONCEPTS] for each in shown], dtype=bool)
        super().__init__(CONCEPTS, presence.reshape(len(shown), len(CONCEPTS)))

    def _phrase(self, text: str) -> Reading:
        from ...scenes.parsing import parse_scene

        try:
            described = parse_scene(text)
        except ValueError as error:
            return Reading(None, problem=str(error))
        presence = np.array([described.holds(scene) for scene in self.scenes], dtype=bool)
        return Reading(presence, tuple(concept for concept in CONCEPTS if concept in described.concepts))


def known_truth(dataset: Dataset, rows: Sequence[int] | None = None, source: str = "") -> Truth | None:
    """Read what is in pictures of a dataset from its other columns; None where no column says it.

    A column `tags` with lists of texts makes a `WordTruth` of all tags, otherwise boolean columns make one of their
    names. A picture whose author left out a tag, or whose value is missing, counts as one without it. Scenes are known
    exactly: a label such as "red star" must be true of one object.

    Args:
        dataset: The pictures, with their columns.
        rows: Numbers of the rows whose pictures are measured; by default all.
        source: Where the dataset is from, if that is "scenes:SPLIT:N" or "scenes:SPLIT:N:SEED".
    """
    rows = range(len(dataset)) if rows is None else rows
    if source.startswith("scenes:"):
        _, split, _, *seed = source.split(":")
        return SceneTruth([sample_scene(split, int(seed[0]) if seed else 0, int(row)) for row in rows])
    tags = dataset.features.get("tags")
    if getattr(getattr(tags, "feature", None), "dtype", None) == "string":
        of_rows = [[tag for tag in of_row or () if tag] for of_row in dataset.select(rows)["tags"]]
        number, spelled = len(of_rows), _one_spelling(of_rows)
        counts = Counter(tag for of_row in of_rows for tag in {spelled[tag] for tag in of_row})
        return WordTruth.from_tags(of_rows, least=1) if any(count < number for count in counts.values()) else None
    names = [name for name, feature in dataset.features.items() if getattr(feature, "dtype", None) == "bool"]
    if not names:
        return None
    return WordTruth(names, dataset.select(rows).select_columns(names).to_pandas().fillna(False).to_numpy(dtype=bool))
