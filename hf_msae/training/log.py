"""The log of a training run in memory and as JSON lines on disk, its progress bar, and its result."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from tqdm.auto import tqdm

from .._utils.json_files import write_text

if TYPE_CHECKING:
    import pandas as pd

LOG_FILE = "training_log.jsonl"


@dataclass(frozen=True)
class TrainingResult:
    """The result of one call of [`MSAETrainer.train`].

    Attributes:
        global_step: Optimizer steps of the whole run, including those before a resume.
        num_processes: Processes that trained together.
        global_batch_size: Embeddings per optimizer step.
        training_loss: Mean loss in the last training record of the log.
        runtime: Seconds spent in the training loop.
        samples_per_second: Embeddings trained on per second; 0 if no step was left to do.
        seconds_per_step: Mean seconds per step of this model, without waiting for data, other models of a sweep,
            evaluation and saving; None if no step was left to do.
        data_wait: Share of the runtime spent waiting for data, 0 to 1.
        log_history: The run's log, as in training_log.jsonl.
        best_metric: Value of `metric_for_best_model` at the best evaluation, if evaluations were compared.
        best_step: Step of the best evaluation, whose weights the model has with `load_best_model_at_end`.
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
    best_metric: float | None = None
    best_step: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, as values that JSON can hold."""
        return asdict(self)

    def to_pandas(self) -> pd.DataFrame:
        """Return the log, one row per record."""
        import pandas as pd

        return pd.DataFrame(self.log_history)


class TrainingLog:
    """The history of a run. Every record has `step` and `epoch`; training and evaluation have separate records.

    Without `output_dir`, as in all but the main process, it is kept in memory only. `history` holds the records of a
    resumed run up to its checkpoint. Later ones in the file are dropped, so that no step is logged twice.
    """

    def __init__(self, output_dir: Path | None, history: list[dict[str, Any]]):
        self.history = history
        self.path = None if output_dir is None else output_dir / LOG_FILE
        if self.path is not None:
            write_text(self.path, "".join(map(_line, self.history)))

    def append(self, record: dict[str, Any]) -> None:
        """Add a record; it is on disk when this returns."""
        self.history.append(record)
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(_line(record))


class LossWindow:
    """Losses of the steps since the last record, kept on the device, since reading each would stall a GPU.

    `pending` are those of a resumed run; `batch_of` describes the batch of a step, for an error message.
    """

    def __init__(self, accelerator: Accelerator, pending: list[float], batch_of: Callable[[int], str]):
        self.accelerator, self._batch_of = accelerator, batch_of
        self._losses = [torch.tensor(loss, device=accelerator.device) for loss in pending]

    def append(self, loss: torch.Tensor) -> None:
        """Add the loss of one optimizer step, as this process saw it."""
        self._losses.append(loss.float())

    def clear(self) -> None:
        """Start a new window."""
        self._losses = []

    def read(self, step: int) -> list[float]:
        """Average the losses of the steps up to number `step` over processes."""
        if not self._losses:
            return []
        losses = self.accelerator.reduce(torch.stack(self._losses), "mean").tolist()
        for number, loss in enumerate(losses, start=step - len(losses) + 1):
            if not math.isfinite(loss):
                raise diverged(f"the loss is {loss} at step {number}", self._batch_of(number))
        return losses


def diverged(what: str, batch: str) -> FloatingPointError:
    """Return the error for a run whose numbers are not finite."""
    return FloatingPointError(
        f"{what}: training has diverged. Try a lower learning_rate, some warmup_steps, or bf16 instead of fp16; "
        f"earlier checkpoints remain. The batch of this step: {batch}"
    )


class ProgressReport:
    """The progress bar (main process, stderr) and the throughput since the last record."""

    def __init__(self, total: int, initial: int, samples_per_step: int, disable: bool):
        self.samples_per_step = samples_per_step
        self.bar = tqdm(total=total, initial=initial, desc="training", unit="step", disable=disable)
        self._step, self._time = initial, time.perf_counter()

    def samples_per_second(self, step: int) -> float:
        """Return the number of embeddings trained on per second since the last call."""
        steps, self._step = step - self._step, step
        elapsed, self._time = time.perf_counter() - self._time, time.perf_counter()
        return round(steps * self.samples_per_step / elapsed, 1)

    @contextmanager
    def during(self, activity: str) -> Iterator[None]:
        """Show another activity on the bar inside the block."""
        self.bar.set_description(activity)
        try:
            yield
        finally:
            self.bar.set_description("training")

    def show(self, record: dict[str, Any]) -> None:
        """Show a training record next to the bar."""
        fvu = "none" if record["fvu"] is None else f"{record['fvu']:.3g}"
        self.bar.set_postfix_str(
            f"loss={record['loss']:.3g}, fvu={fvu}, sparsity={record['sparsity']:.1%}, dead={record['dead_latents']}",
            refresh=False,
        )


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, allow_nan=False) + "\n"
