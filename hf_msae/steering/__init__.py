"""Steering: methods that find a concept in embeddings, remove it and add it; and SwordBench, which compares them."""

from . import methods  # registers them
from .data import NotDefinedError
from .edit import METHODS, Edit, load_edit, register
from .own_data import task_from_embeddings
from .result import SwordBenchResult
from .run import run_swordbench
from .submission import Submission
from .tasks import TASKS, Task, gaussian_task, register_task

__all__ = [
    "METHODS",
    "TASKS",
    "Edit",
    "NotDefinedError",
    "Submission",
    "SwordBenchResult",
    "Task",
    "gaussian_task",
    "load_edit",
    "methods",
    "register",
    "register_task",
    "run_swordbench",
    "task_from_embeddings",
]
