"""Callbacks of the trainer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .log import TrainingResult
    from .trainer import MSAETrainer


class MSAETrainerCallback:
    """Base class of callbacks of [`MSAETrainer`]; override the methods you need.

    Every process calls every method with the same records, which are averaged over processes, so all of them take the
    same decisions. `trainer.stop()`, called in every process, ends the run after the current step, with a checkpoint
    and a result as at the planned end.

    ```python
    class StopWhenGoodEnough(MSAETrainerCallback):
        def on_evaluate(self, trainer, metrics):
            if metrics["fvu"] < 0.05:
                trainer.stop()
    ```
    """

    def on_train_begin(self, trainer: MSAETrainer) -> None:
        """Before the first step; a resumed run has `trainer.state.global_step` above 0."""

    def on_step_end(self, trainer: MSAETrainer) -> None:
        """After every optimizer step."""

    def on_log(self, trainer: MSAETrainer, record: dict[str, Any]) -> None:
        """After a record was added to the log: loss, fvu, sparsity, ...; or eval_fvu, ..."""

    def on_evaluate(self, trainer: MSAETrainer, metrics: dict[str, Any]) -> None:
        """After an evaluation during training, with all its metrics."""

    def on_save(self, trainer: MSAETrainer, checkpoint: Path) -> None:
        """After a checkpoint was saved."""

    def on_train_end(self, trainer: MSAETrainer, result: TrainingResult) -> None:
        """After the last step."""
