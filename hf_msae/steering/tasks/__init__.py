"""The tasks: frozen features with concepts, a label that is biased in training, and counterfactuals."""

from .clipart import clipart_artifact, clipart_tags, efficientnet_artifact
from .datasets import task_from_dataset
from .gaussian import gaussian_task
from .published import celeba, isic, waterbirds
from .scenes import random_features, scenes_artifact, scenes_background, scenes_pattern
from .task import TASKS, Task, register_task
from .typographic import typographic_imagenet

register_task("gaussian")(gaussian_task)

__all__ = [
    "TASKS",
    "Task",
    "celeba",
    "clipart_artifact",
    "clipart_tags",
    "efficientnet_artifact",
    "gaussian_task",
    "isic",
    "random_features",
    "register_task",
    "scenes_artifact",
    "scenes_background",
    "scenes_pattern",
    "task_from_dataset",
    "typographic_imagenet",
    "waterbirds",
]
