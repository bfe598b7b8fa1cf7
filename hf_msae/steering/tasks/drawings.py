"""Drawings of the clip art: which ones a task is made of, and which tags are its concepts."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from ..._utils.images import to_rgb
from ...clipart import load_clipart
from .artifacts import check_artifact, paste
from .pictures import Pictures, assign_bias, check_numbers
from .task import SPLITS

NUM_CONCEPTS = 10
FEWEST = 10
"""Drawings of either split that a tag needs to be a concept by default, and that a target needs."""


@dataclass(frozen=True)
class Drawing:
    """A drawing: the encoded picture and what is known of it."""

    image: dict[str, Any]
    tags: frozenset[str]
    author: str
    split: str

    def picture(self) -> Image.Image:
        """Decode the picture."""
        return to_rgb(self.image)


def load_drawings(collection: str | os.PathLike | None) -> list[Drawing]:
    """Load the drawings of the training and the test split; no author is in both.

    Categories count as tags: a drawing in "animals/birds" has the tags "animals" and "birds". A collection is "sample"
    for those that come with the package, or the folder of a built one, None for the usual one.
    """
    if collection == "sample":
        parts = [load_clipart("sample")]
    else:
        parts = [load_clipart(split, collection) for split in SPLITS]
        parts = [part.add_column("split", [split] * len(part)) for part, split in zip(parts, SPLITS, strict=True)]
    from datasets import Image as ImageFeature

    return [
        Drawing(row["image"], frozenset(row["tags"]) | set(row["category"].split("/")), row["author"], row["split"])
        for part in parts
        for row in part.cast_column("image", ImageFeature(decode=False))
    ]


def tags_of(drawings: Sequence[Drawing], but: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the most frequent tags that both splits have, at most 10, and which drawings have each."""
    counts = {part: Counter(tag for each in drawings if each.split == part for tag in each.tags) for part in SPLITS}
    fewest = {tag: min(count[tag] for count in counts.values()) for tag in counts["train"]}
    sizes = {part: sum(each.split == part for each in drawings) for part in SPLITS}
    known = [
        tag
        for tag, number in sorted(fewest.items(), key=lambda item: (-item[1], item[0]))
        if number >= FEWEST
        and tag not in but
        and all(count[tag] <= sizes[part] - FEWEST for part, count in counts.items())
    ]
    return {tag: np.array([tag in each.tags for each in drawings]) for tag in known[:NUM_CONCEPTS]}


def choose(
    drawings: Sequence[Drawing], cells: dict[str, dict[tuple[bool, ...], int]], tags: Sequence[str], seed: int
) -> list[Drawing]:
    """Sample the requested number of drawings from each split, with some of the tags and without the others.

    The keys of `cells` say of each tag whether drawings have it, and the values how many there should be.
    """
    random = np.random.default_rng(seed)
    chosen: list[int] = []
    for part, numbers in cells.items():
        for key, number in numbers.items():
            rows = [i for i, each in enumerate(drawings) if (each.split, key) == (part, _key(each, tags))]
            chosen += random.permutation(rows)[:number].tolist()
    return [drawings[i] for i in sorted(chosen)]


def count(drawings: Sequence[Drawing], tags: Sequence[str]) -> dict[str, Counter[tuple[bool, ...]]]:
    """Count, for each split, the drawings that have some of the tags and lack the others."""
    return {part: Counter(_key(each, tags) for each in drawings if each.split == part) for part in SPLITS}


def fingerprint(drawings: Sequence[Drawing]) -> str:
    """SHA-256 of the encoded pictures."""
    digest = hashlib.sha256()
    for each in drawings:
        digest.update(each.image["bytes"])
    return digest.hexdigest()


def drawings_with_artifact(
    name: str,
    artifact: str,
    word: str | None,
    target: str,
    concepts: Sequence[str] | None,
    num_rows: int,
    correlation: float,
    seed: int,
    collection: str | os.PathLike | None,
) -> Pictures:
    """Paste an artifact on drawings, of which as many with the target as without it are taken, of each split.

    The arguments are those of `clipart_artifact`.
    """
    check_artifact(artifact)
    check_numbers(num_rows, seed, correlation)
    drawings = load_drawings(collection)
    counts = count(drawings, [target])
    sizes = {part: min(num_rows // 4, *(counts[part][(has,)] for has in (True, False))) for part in SPLITS}
    _check_size(target, sizes)
    cells = {part: {(False,): size, (True,): size} for part, size in sizes.items()}
    chosen = choose(drawings, cells, [target], seed)
    labels, split = _labels(chosen, target), np.array([each.split for each in chosen])
    biased = assign_bias(labels, split, correlation, np.random.default_rng(seed))
    word = _word_of_others(drawings, target) if word is None else word
    bias = f"pasted {artifact}"
    truth = {bias: biased, **_concepts(chosen, concepts, [target])}
    settings = {"artifact": artifact, "word": word, "correlation": float(correlation), "seed": int(seed)}
    return _pictures(name, chosen, partial(_draw, chosen, artifact, word), target, bias, truth, settings)


def drawings_with_tags(
    name: str,
    target: str,
    bias: str,
    concepts: Sequence[str] | None,
    num_rows: int,
    correlation: float,
    seed: int,
    collection: str | os.PathLike | None,
) -> Pictures:
    """Choose drawings so that two tags are correlated in training, and independent in the test."""
    check_numbers(num_rows, seed, correlation)
    drawings = load_drawings(collection)
    counts = count(drawings, [target, bias])
    shares = {"train": ((1 + correlation) / 4, (1 - correlation) / 4), "test": (0.25, 0.25)}
    cells: dict[str, dict[tuple[bool, ...], int]] = {}
    for part, (same, different) in shares.items():
        wanted = {key: same if key[0] == key[1] else different for key in _BOTH}
        wanted = {key: share for key, share in wanted.items() if share}
        whole = min([num_rows / 2, *(counts[part][key] / share for key, share in wanted.items())])
        cells[part] = {key: round(share * whole) for key, share in wanted.items()}
    _check_size(f"{target} and {bias}", {part: min(each.values()) for part, each in cells.items()})
    chosen = choose(drawings, cells, [target, bias], seed)
    truth = {bias: _labels(chosen, bias) == 1, **_concepts(chosen, concepts, [target, bias])}
    settings = {"correlation": float(correlation), "seed": int(seed)}
    return _pictures(name, chosen, lambda row, has: chosen[row].picture(), target, bias, truth, settings, paired=False)


_BOTH = ((False, False), (False, True), (True, False), (True, True))


def _labels(drawings: Sequence[Drawing], tag: str) -> np.ndarray:
    return np.array([int(tag in each.tags) for each in drawings])


def _pictures(
    name: str,
    drawings: Sequence[Drawing],
    draw: Callable[[int, bool], Image.Image],
    target: str,
    bias: str,
    concepts: dict[str, np.ndarray],
    settings: dict[str, Any],
    paired: bool = True,
) -> Pictures:
    known = {"label": target, "bias": bias, "num_rows": len(drawings), "drawings_sha256": fingerprint(drawings)}
    return Pictures(
        name=name,
        draw=draw,
        sources=np.array([each.author for each in drawings]),
        concepts=concepts,
        target=_labels(drawings, target),
        bias=bias,
        split=np.array([each.split for each in drawings]),
        settings={**known, **settings},
        paired=paired,
        inputs=np.array([hashlib.sha256(each.image["bytes"]).hexdigest()[:16] for each in drawings]),
    )


def _draw(drawings: Sequence[Drawing], artifact: str, word: str, row: int, has: bool) -> Image.Image:
    picture = drawings[row].picture()
    return paste(picture, artifact, word) if has else picture


def _key(drawing: Drawing, tags: Sequence[str]) -> tuple[bool, ...]:
    return tuple(tag in drawing.tags for tag in tags)


def _check_size(what: str, sizes: dict[str, int]) -> None:
    for part, size in sizes.items():
        if not size:
            raise ValueError(f"no drawing, or too few, of the {part} split has or lacks {what}: choose another tag")


def _concepts(drawings: Sequence[Drawing], named: Sequence[str] | None, but: Sequence[str]) -> dict[str, np.ndarray]:
    if named is None:
        return tags_of(drawings, but)
    for tag in named:
        if tag in but or not any(tag in each.tags for each in drawings):
            why = "it is the label or the bias" if tag in but else "no drawing has the tag"
            raise ValueError(f"{tag!r} cannot be one of the concepts: {why}")
    return {tag: np.array([tag in each.tags for each in drawings]) for tag in named}


def _word_of_others(drawings: Sequence[Drawing], target: str) -> str:
    train = [each for each in drawings if each.split == "train"]
    own = {tag for each in train if target in each.tags for tag in each.tags}
    others = Counter(tag for each in train if target not in each.tags for tag in each.tags - own if tag.isalpha())
    return min(others, key=lambda tag: (-others[tag], tag))
