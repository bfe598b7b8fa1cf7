"""Scenes whose target is planted in half of them, with a bias that can be set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from ...scenes.renderer import render_scene
from ...scenes.world import GROUP_OF, WORLD_VERSION, Scene, sample_scene, with_concept
from .artifacts import check_artifact, paste
from .pictures import Pictures, assign_bias, check_numbers

CONCEPTS = (
    *("red", "blue", "small", "large", "striped", "dotted", "left", "two"),
    *("blurry", "vintage", "frame", "watermark", "night", "snow"),
)
"""Other concepts of the scenes that a task has unless others are named."""


def scene_pictures(
    name: str,
    target: str,
    bias: str,
    concepts: Sequence[str] | None,
    num_rows: int,
    correlation: float,
    seed: int,
    artifact: str | None = None,
    word: str = "",
) -> Pictures:
    """Plant the target and the bias in scenes.

    Training scenes are those of the world's training split, and test scenes of its test split. Every second scene
    gets the target. The bias is a concept of the scenes unless there is an artifact, which then is the bias. The other
    arguments are those of `scenes_background` and `scenes_artifact`; by default, concepts are those of `CONCEPTS` that
    are neither the target nor of the bias's group.
    """
    check_numbers(num_rows, seed, correlation)
    if artifact is not None:
        check_artifact(artifact)
    group = None if artifact is not None else GROUP_OF.get(bias)
    if group is not None and GROUP_OF.get(target) == group:
        raise ValueError(f"the target {target!r} and the bias {bias!r} are both of the group {group!r}")
    if concepts is None:
        concepts = [concept for concept in CONCEPTS if concept != target and GROUP_OF[concept] != group]
    for concept in concepts:
        if concept not in GROUP_OF or GROUP_OF[concept] == group or concept == target:
            why = "it is no concept of the scenes" if concept not in GROUP_OF else f"it is a {GROUP_OF[concept]} too"
            why = "it is the target" if concept == target else why
            raise ValueError(f"{concept!r} cannot be one of the concepts: {why}")

    def change(scene: Scene, has: bool) -> Scene:
        return scene if artifact is not None else with_concept(scene, bias, has)

    def draw(row: int, has: bool) -> Image.Image:
        picture = render_scene(change(scenes[row], has))
        return paste(picture, artifact, word) if artifact is not None and has else picture

    labels = np.arange(num_rows) % 2
    split = np.where(np.arange(num_rows) < num_rows // 2, "train", "test")
    biased = assign_bias(labels, split, correlation, np.random.default_rng(seed))
    scenes = [
        with_concept(sample_scene(str(part), seed, index), target, bool(label))
        for index, (part, label) in enumerate(zip(split, labels, strict=True))
    ]
    present = [change(scene, bool(has)).concepts for scene, has in zip(scenes, biased, strict=True)]
    truth = {concept: np.array([concept in each for each in present]) for concept in concepts}
    return Pictures(
        name=name,
        draw=draw,
        sources=np.array([f"{part}/{seed}/{index}" for index, part in enumerate(split)]),
        concepts={bias: biased, **truth},
        target=labels,
        bias=bias,
        split=split,
        settings={
            "label": target,
            "bias": bias,
            "num_rows": int(num_rows),
            "correlation": float(correlation),
            "seed": int(seed),
            "world_version": WORLD_VERSION,
            "artifact": artifact,
            "word": word,
        },
    )
