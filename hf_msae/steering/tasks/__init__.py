"""The tasks: frozen features with concepts, a label that is biased in training, and counterfactuals."""

from .celeba import celeba
from .clipart_artifact import clipart_artifact
from .clipart_tags import clipart_tags
from .datasets import task_from_dataset
from .efficientnet_artifact import efficientnet_artifact
from .gaussian import gaussian_task
from .random_features import random_features
from .registry import TASKS, register_task
from .scenes_artifact import scenes_artifact
from .scenes_background import scenes_background
from .scenes_pattern import scenes_pattern
from .task import Task
from .waterbirds import waterbirds

register_task("gaussian")(gaussian_task)

__all__ = [
    "TASKS",
    "Task",
    "celeba",
    "clipart_artifact",
    "clipart_tags",
    "efficientnet_artifact",
    "gaussian_task",
    "random_features",
    "register_task",
    "scenes_artifact",
    "scenes_background",
    "scenes_pattern",
    "task_from_dataset",
    "waterbirds",
]
