"""Steering: methods that find a concept in embeddings, remove it and add it; and SwordBench, which compares them."""

from . import methods as methods  # registers them
from .data import NotDefinedError as NotDefinedError
from .edit import METHODS as METHODS
from .edit import Edit as Edit
from .edit import load_edit as load_edit
from .edit import register as register
from .own_data import task_from_embeddings as task_from_embeddings
from .result import SwordBenchResult as SwordBenchResult
from .run import run_swordbench as run_swordbench
from .submission import Submission as Submission
from .tasks import TASKS as TASKS
from .tasks import Task as Task
from .tasks import gaussian_task as gaussian_task
from .tasks import register_task as register_task
