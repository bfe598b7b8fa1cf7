"""Tasks of scenes: a background, a pattern or an artifact goes with a shape; and the control, random features."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ...backbones import Backbone
from .networks import BackboneNetwork, RandomNetwork
from .scene_pictures import scene_pictures
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

    Returns:
        The task.

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
