"""What a training run says about itself: records in memory and as JSON lines on disk, the progress bar, the result."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from tqdm.auto import tqdm

if TYPE_CHECKING:
    import pandas as pd

LOG_FILE = "training_log.jsonl"


@dataclass(frozen=True)
class TrainingResult:
    """What a finished call of [`MSAETrainer.train`] did.

    Attributes:
        global_step: optimizer steps of the whole run, those before a resume included.
        num_processes: processes that trained together.
        global_batch_size: embeddings per optimizer step.
        training_loss: mean loss of the log's last training record.
        runtime: seconds this call spent in the training loop.
        samples_per_second: embeddings trained on per second in this call; 0 when no step was left to do.
        seconds_per_step: mean time this call's steps took this model alone, without waiting for data, other models
            of a sweep, evaluation and saving; None when no step was left to do.
        data_wait: share of the runtime that was spent waiting for data, 0 to 1.
        log_history: the run's log, as in training_log.jsonl.
    """

    global_step: int
    num_processes: int
    global_batch_size: int
    training_loss: float
    runtime: float
    samples_per_second: float
    seconds_per_step: float | None
    data_wait: float
    log_history: list[dict[str, Any]] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """All fields, as JSON can hold them."""
        return asdict(self)

    def to_pandas(self) -> pd.DataFrame:
        """The log, one row per record."""
        import pandas as pd

        return pd.DataFrame(self.log_history)


class TrainingLog:
    """History of a run. Every record has `step` and `epoch`; training and evaluation records are separate ones.

    Args:
        output_dir: where `training_log.jsonl` goes; None keeps the history in memory only (processes other than the
            main one).
        history: records of the run so far, when it is resumed. What the file holds beyond them, from steps after the
            checkpoint, is dropped, so no step is ever logged twice.
    """

    def __init__(self, output_dir: Path | None, history: list[dict[str, Any]]):
        self.history = history
        self.path = None if output_dir is None else output_dir / LOG_FILE
        if self.path is not None:
            temporary = self.path.with_name(f".tmp-{LOG_FILE}")
            temporary.write_text("".join(map(_line, self.history)), encoding="utf-8")
            os.replace(temporary, self.path)

    def append(self, record: dict[str, Any]) -> None:
        """Add a record; it is on disk when this returns."""
        self.history.append(record)
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(_line(record))


class LossWindow:
    """Losses of the steps since the last record, left on the device: reading each at once would stall a GPU.

    Args:
        accelerator: averages over processes.
        pending: losses that an earlier part of the run left unrecorded.
        batch_of: describes the batch of a step, for the error that its loss may cause.
    """

    def __init__(self, accelerator: Accelerator, pending: list[float], batch_of: Callable[[int], str]):
        self.accelerator, self._batch_of = accelerator, batch_of
        self._losses = [torch.tensor(loss, device=accelerator.device) for loss in pending]

    def append(self, loss: torch.Tensor) -> None:
        """Add the loss of one optimizer step, as this process saw it."""
        self._losses.append(loss.float())

    def clear(self) -> None:
        """Begin a new window."""
        self._losses = []

    def read(self, step: int) -> list[float]:
        """The losses, averaged over processes, of the steps up to number `step`.

        Raises:
            FloatingPointError: one is NaN or infinite; names its step and batch.
        """
        if not self._losses:
            return []
        losses = self.accelerator.reduce(torch.stack(self._losses), "mean").tolist()
        for number, loss in enumerate(losses, start=step - len(losses) + 1):
            if not math.isfinite(loss):
                raise diverged(f"the loss is {loss} at step {number}", self._batch_of(number))
        return losses


def diverged(what: str, batch: str) -> FloatingPointError:
    """The error for a run whose numbers are no longer finite."""
    return FloatingPointError(
        f"{what}: training has diverged. Try a lower learning_rate, some warmup_steps, or bf16 in place of fp16; "
        f"checkpoints saved before remain. The step's batch: {batch}"
    )


class ProgressReport:
    """The progress bar (main process, stderr) and the throughput since the last record."""

    def __init__(self, total: int, initial: int, samples_per_step: int, disable: bool):
        self.samples_per_step = samples_per_step
        self.bar = tqdm(total=total, initial=initial, desc="training", unit="step", disable=disable)
        self._step, self._time = initial, time.perf_counter()

    def __enter__(self) -> ProgressReport:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def samples_per_second(self, step: int) -> float:
        """Embeddings trained on per second since this was last asked."""
        steps, self._step = step - self._step, step
        elapsed, self._time = time.perf_counter() - self._time, time.perf_counter()
        return round(steps * self.samples_per_step / elapsed, 1)

    @contextmanager
    def during(self, activity: str) -> Iterator[None]:
        """Name on the bar what goes on instead of training."""
        self.bar.set_description(activity)
        try:
            yield
        finally:
            self.bar.set_description("training")

    def show(self, record: dict[str, Any]) -> None:
        """Put a training record's figures beside the bar."""
        self.bar.set_postfix_str(
            f"loss={record['loss']:.3g}, fvu={record['fvu']:.3g}, sparsity={record['sparsity']:.1%}, "
            f"dead={record['dead_latents']}",
            refresh=False,
        )


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, allow_nan=False) + "\n"
