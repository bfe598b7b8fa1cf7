"""Scenes in which a pattern goes with a shape."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ...backbones import Backbone
from .networks import BackboneNetwork
from .registry import register_task
from .scene_pictures import scene_pictures
from .task import Task


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
    is about. The counterfactual is the same scene in which one object gets the pattern, or all that have it get
    others.

    Args:
        num_rows: Number of scenes, half of them for training.
        correlation: Correlation of label and pattern in training; there is none in the test.
        seed: Random seed.
        target: Concept that is the label: half of the scenes have it.
        pattern: Fill that is the bias; without it, objects have any other.
        concepts: Other concepts of the scenes, not fills. Defaults to 12.
        backbone: A backbone, or what `Backbone.from_pretrained` loads.
        hook_point: Where it is read; tokens of a block are averaged.

    Returns:
        The task.

    Raises:
        ValueError: A concept is unknown or cannot be used, a number is out of range, or there is no such hook point.
    """
    pictures = scene_pictures("scenes_pattern", target, pattern, concepts, num_rows, correlation, seed)
    return pictures.task(BackboneNetwork(backbone, hook_point))
