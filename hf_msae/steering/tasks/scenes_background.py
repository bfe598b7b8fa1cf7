"""Scenes in which a background goes with a shape."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ...backbones import Backbone
from .networks import BackboneNetwork
from .registry import register_task
from .scene_pictures import scene_pictures
from .task import Task


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
        correlation: Correlation of label and background in training; there is none in the test.
        seed: Random seed.
        target: Concept that is the label: half of the scenes have it.
        background: Background that is the bias; scenes without it have any other.
        concepts: Other concepts of the scenes, not backgrounds. Defaults to 12.
        backbone: A backbone, or what `Backbone.from_pretrained` loads.
        hook_point: Where it is read; tokens of a block are averaged.

    Returns:
        The task.

    Raises:
        ValueError: A concept is unknown or cannot be used, a number is out of range, or there is no such hook point.
    """
    pictures = scene_pictures("scenes_background", target, background, concepts, num_rows, correlation, seed)
    return pictures.task(BackboneNetwork(backbone, hook_point))
