"""Scenes in which an artifact is pasted on one class."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ...backbones import Backbone
from .networks import BackboneNetwork
from .registry import register_task
from .scene_pictures import scene_pictures
from .task import Task


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
    without the artifact, or with it: no pixel outside the artifact differs.

    Args:
        num_rows: Number of scenes, half of them for training.
        correlation: Correlation of label and artifact in training; there is none in the test.
        seed: Random seed.
        target: Concept that is the label: half of the scenes have it.
        artifact: "watermark", "caption", "frame" or "square".
        word: What a watermark or caption says.
        concepts: Other concepts of the scenes. Defaults to 14.
        backbone: A backbone, or what `Backbone.from_pretrained` loads.
        hook_point: Where it is read; tokens of a block are averaged.

    Returns:
        The task. The bias is named "pasted watermark" for the artifact "watermark".

    Raises:
        ValueError: A concept is unknown or cannot be used, a number is out of range, or there is no such artifact or
            hook point.
    """
    bias = f"pasted {artifact}"
    pictures = scene_pictures("scenes_artifact", target, bias, concepts, num_rows, correlation, seed, artifact, word)
    return pictures.task(BackboneNetwork(backbone, hook_point))
