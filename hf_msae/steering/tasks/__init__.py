"""The tasks: frozen features with concepts, a label that is biased in training, and counterfactuals."""

from .clipart import clipart_artifact as clipart_artifact
from .clipart import clipart_tags as clipart_tags
from .clipart import efficientnet_artifact as efficientnet_artifact
from .datasets import task_from_dataset as task_from_dataset
from .gaussian import gaussian_task as gaussian_task
from .published import celeba as celeba
from .published import isic as isic
from .published import waterbirds as waterbirds
from .scenes import random_features as random_features
from .scenes import scenes_artifact as scenes_artifact
from .scenes import scenes_background as scenes_background
from .scenes import scenes_pattern as scenes_pattern
from .task import TASKS as TASKS
from .task import Task as Task
from .task import register_task as register_task
from .typographic import typographic_imagenet as typographic_imagenet

register_task("gaussian")(gaussian_task)
