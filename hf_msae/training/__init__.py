"""Training: the trainer, its arguments, its loop, checkpoints and logs, and sweeps of several models at once."""

from .finish import finish

__all__ = ["finish"]
