"""Tasks of scenes: a background, a pattern or an artifact goes with a shape; and the control, random features."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from PIL import Image

from ...backbones import Backbone
from ...scenes.renderer import render_scene
from ...scenes.world import GROUP_OF, WORLD_VERSION, Scene, sample_scene, with_concept
from .networks import BackboneNetwork, RandomNetwork
from .pictures import TaskPictures, assign_bias, check_artifact, check_numbers, paste
from .task import Task, register_task


@register_task("scenes_background")
def scenes_background(
    num_rows: int = 2000,
    correlation: float = 0.9,
    seed: int = 0,
    target: str = "flower",
    background: str = "forest",
    concepts: Sequence[str] | None = None,
    backbone: Backbone | str | os.PathLike = "scenes",
    hook_point: str = "image_embeds",
) -> Task:
    """Say whether a scene shows a shape, where training scenes with the shape have a certain background.

    This measures steering of a concept that fills most of the picture. The counterfactual is the same scene, with the
    same objects and noise, rendered in front of another background, or of that one.

    Args:
        num_rows: Number of scenes, half of them for training.
        correlation: Correlation of label and bias in training; there is none in the test.
        seed: Random seed.
        target: Concept that is the label: half of the scenes have it.
        background: Background that is the bias; scenes without it have any other.
        concepts: Other concepts of the scenes, none of the bias's group. Defaults to 12, or 14 for an artifact.
        backbone: A backbone, or what `Backbone.from_pretrained` loads.
        hook_point: Where it is read; tokens of a block are averaged.

    Raises:
        ValueError: A concept is unknown or cannot be used, a number is out of range, or there is no such hook point.
    """
    pictures = scene_pictures("scenes_background", target, background, concepts, num_rows, correlation, seed)
    return pictures.task(BackboneNetwork(backbone, hook_point))


@register_task("scenes_pattern")
def scenes_pattern(
    num_rows: int = 2000,
    correlation: float = 0.9,
    seed: int = 0,
    target: str = "circle",
    pattern: str = "striped",
    concepts: Sequence[str] | None = None,
    backbone: Backbone | str | os.PathLike = "scenes",
    hook_point: str = "image_embeds",
) -> Task:
    """Say whether a scene shows a shape, where an object of training scenes with the shape has a certain pattern.

    This measures steering of a concept that covers a small part of the picture, often the very object that the label
    is about. The counterfactual is the same scene in which one object is given the pattern, or, if some have it,
    all of these are given other patterns. `pattern` is the fill that is the bias; the rest is as for
    `scenes_background`.
    """
    pictures = scene_pictures("scenes_pattern", target, pattern, concepts, num_rows, correlation, seed)
    return pictures.task(BackboneNetwork(backbone, hook_point))


@register_task("scenes_artifact")
def scenes_artifact(
    num_rows: int = 2000,
    correlation: float = 0.9,
    seed: int = 0,
    target: str = "flower",
    artifact: str = "watermark",
    word: str = "PREVIEW",
    concepts: Sequence[str] | None = None,
    backbone: Backbone | str | os.PathLike = "scenes",
    hook_point: str = "image_embeds",
) -> Task:
    """Say whether a scene shows a shape, where an artifact is pasted on training scenes with the shape.

    This measures steering of something that the backbone never saw in training. The counterfactual is the same scene
    without the artifact, or with it: no pixel outside the artifact differs. `artifact` is "watermark", "caption",
    "frame" or "square", the bias is named "pasted watermark" for a watermark, and `word` is what a watermark or
    caption says; the rest is as for `scenes_background`.
    """
    bias = f"pasted {artifact}"
    pictures = scene_pictures("scenes_artifact", target, bias, concepts, num_rows, correlation, seed, artifact, word)
    return pictures.task(BackboneNetwork(backbone, hook_point))


@register_task("random_features")
def random_features(
    num_rows: int = 2000,
    correlation: float = 0.9,
    seed: int = 0,
    target: str = "flower",
    background: str = "forest",
    concepts: Sequence[str] | None = None,
    width: int = 512,
) -> Task:
    """Say whether a scene shows a shape, from features that nobody trained: the control.

    The pictures and arguments are those of `scenes_background`. The features are one layer of `width` random weights,
    from which the shape can hardly be read: with the bias gone, little remains for the label, and no method should
    show good results. The seed is also that of the weights.
    """
    pictures = scene_pictures("random_features", target, background, concepts, num_rows, correlation, seed)
    return pictures.task(RandomNetwork(width, seed))


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
) -> TaskPictures:
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
    return TaskPictures(
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
