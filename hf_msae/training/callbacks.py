"""What a user's own code may do while a model is trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .log import TrainingResult
    from .trainer import MSAETrainer


class MSAETrainerCallback:
    """Base class for objects that [`MSAETrainer`] tells what happens; override what is of interest.

    Every process calls every method, with the same records: what they hold is averaged over processes. So what a
    callback decides from them is decided alike everywhere, and `trainer.stop()` called by all of them ends the run
    after the step that has just been made, with its checkpoint and its result as at a planned end.

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
