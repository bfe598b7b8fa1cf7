"""Interruptions of training: the step is finished and a checkpoint saved before the process ends."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

STEPS_BETWEEN_CHECKS = 10
"""Optimizer steps after which GPU processes ask each other for signals, which takes a synchronization."""


class TrainingInterrupted(KeyboardInterrupt):
    """Training was stopped by SIGINT (Ctrl-C) or SIGTERM, after its state was saved.

    Attributes:
        signum: Number of the signal.
        checkpoint: Folder to resume from.
    """

    def __init__(self, message: str, signum: int, checkpoint: Path):
        super().__init__(message)
        self.signum = signum
        self.checkpoint = checkpoint

    @property
    def exit_code(self) -> int:
        """What a shell expects: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + self.signum


class StopSignal:
    """Context in which SIGINT and SIGTERM are recorded instead of ending the process.

    Repeated signals are ignored, since launchers pass on a Ctrl-C that processes have already received from the
    terminal. Outside the main thread, signals cannot be caught, and nothing changes.
    """

    def __init__(self, accelerator: Accelerator):
        self.accelerator = accelerator
        self.signum: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                self._previous[signum] = signal.signal(signum, self._note)
        return self

    def __exit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        if self.signum is not None and error_type is None:
            signal.raise_signal(self.signum)  # it came after the last check

    def _note(self, signum: int, frame: object) -> None:
        if self.signum is None:
            self.signum = signum

    def received(self, step: int) -> int | None:
        """Return the signal that any process has received, or None; all processes get the same answer."""
        if self.accelerator.num_processes == 1:
            return self.signum
        if self.accelerator.device.type != "cpu" and step % STEPS_BETWEEN_CHECKS:
            return None
        received = torch.tensor([self.signum or 0], device=self.accelerator.device)
        return int(self.accelerator.gather(received).max()) or None
