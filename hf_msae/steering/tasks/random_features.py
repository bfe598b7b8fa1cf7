"""The control: scenes seen by a network with random weights."""

from __future__ import annotations

from collections.abc import Sequence

from .networks import RandomNetwork
from .registry import register_task
from .scene_pictures import scene_pictures
from .task import Task


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
    """Say whether a scene shows a shape, from features that nobody trained.

    The pictures are those of `scenes_background`. The features are one layer of random weights, from which the shape
    can hardly be read: with the bias gone, little remains for the label, and no method should show good results.

    Args:
        num_rows: Number of scenes, half of them for training.
        correlation: Correlation of label and background in training; there is none in the test.
        seed: Random seed of the scenes and of the weights.
        target: Concept that is the label: half of the scenes have it.
        background: Background that is the bias.
        concepts: Other concepts of the scenes, not backgrounds. Defaults to 12.
        width: Number of features.

    Returns:
        The task.

    Raises:
        ValueError: A concept is unknown or cannot be used, or a number is out of range.
    """
    pictures = scene_pictures("random_features", target, background, concepts, num_rows, correlation, seed)
    return pictures.task(RandomNetwork(width, seed))
