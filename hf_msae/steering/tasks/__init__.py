"""The tasks: frozen features with concepts, a label that is biased in training, and counterfactuals."""

from .gaussian import gaussian_task
from .task import Task

__all__ = ["Task", "gaussian_task"]
