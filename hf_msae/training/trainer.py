"""The trainer of Matryoshka sparse autoencoders, on Accelerate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from .._utils.acceleration import build_accelerator, main_process_logger
from ..embeddings import EmbeddingDataset, load_embeddings
from ..model.modeling_msae import MSAEModel
from .arguments import MSAETrainingArguments
from .batching import BatchPlan, shuffle_window
from .callbacks import MSAETrainerCallback
from .checkpointing import TrainerState, save_pretrained
from .log import TrainingResult
from .loop import train_together
from .run import TrainingRun
from .start import adopt_provenance, check_inputs, start

if TYPE_CHECKING:
    from ..metrics import EvaluationResult

logger = main_process_logger(__name__)


class MSAETrainer:
    """Train an [`MSAEModel`] on embeddings, as in the MSAE paper (arXiv 2502.20578), and evaluate and save it.

    Training first stores the input statistics of the data in the model, unless it has some; then every batch is one
    call of [`~hf_msae.training.loop.training_step`]. On a CPU, a resumed run ends with exactly the weights of an
    uninterrupted one. Call [`~hf_msae.training.finish`] afterwards to write the model with its metrics and card.

    Args:
        model: A float32 model, which is trained in place.
        args: Batch sizes, optimizer, schedule, logging, evaluation and checkpoints.
        train_data: Raw embeddings, `(rows, d_in)`, or anything that `load_embeddings` accepts.
        eval_data: Embeddings for `evaluate` and `eval_strategy`.
        callbacks: Objects to notify of events; see [`MSAETrainerCallback`].
        accelerator: An accelerator with its trackers, by default one that fits `args`.

    Raises:
        ValueError: Widths differ, an evaluation is requested without data, the model is not float32, or the
            accelerator does not fit the arguments.
    """

    def __init__(
        self,
        model: MSAEModel,
        args: MSAETrainingArguments,
        train_data: EmbeddingDataset,
        eval_data: EmbeddingDataset | None = None,
        callbacks: Sequence[MSAETrainerCallback] = (),
        accelerator: Accelerator | None = None,
    ):
        train_data, eval_data = (_open(data, model.config.hook_point) for data in (train_data, eval_data))
        self.model, self.args = model, args
        self.train_data, self.eval_data = train_data, eval_data
        self.output_dir = Path(args.output_dir)
        self.accelerator = accelerator or build_accelerator(
            args.use_cpu, args.mixed_precision, args.report_to, args.output_dir
        )
        self.callbacks = list(callbacks)
        check_inputs(model, args, train_data, eval_data, self.accelerator)
        self.mixed_precision = str(self.accelerator.mixed_precision)  # all accelerators of a process share theirs
        self.plan = BatchPlan.fit(
            num_rows=len(train_data),
            per_device_batch_size=args.per_device_train_batch_size,
            num_processes=self.accelerator.num_processes,
            gradient_accumulation_steps=args.gradient_accumulation_steps,
            seed=args.seed,
            window_rows=broadcast_object_list([shuffle_window(train_data, args.memory_budget)])[0],
        )
        if self.plan.per_device_batch_size < args.per_device_train_batch_size:
            logger.warning(
                f"{train_data.source} has {len(train_data)} rows, too few for a global batch of "
                f"{args.per_device_train_batch_size} x {self.accelerator.num_processes} processes x "
                f"{args.gradient_accumulation_steps} accumulation steps: training with "
                f"per_device_train_batch_size {self.plan.per_device_batch_size}"
            )
        self.total_steps = args.total_steps(self.plan.steps_per_epoch)
        if args.warmup_steps > self.total_steps:
            raise ValueError(f"warmup_steps is {args.warmup_steps}, but the run has only {self.total_steps} steps")
        self.state = TrainerState()
        self.result: TrainingResult | None = None  # of the last complete training
        adopt_provenance(model.config, train_data)
        self.model.to(self.accelerator.device)

    def train(self, resume_from_checkpoint: str | Path | bool | None = None) -> TrainingResult:
        """Train to the end, or until a signal.

        Args:
            resume_from_checkpoint: Overrides the field of [`MSAETrainingArguments`].

        Returns:
            Loss, times and log. The weights are in `trainer.model`; `save_model` or `finish` writes them.

        Raises:
            FileExistsError: The output folder already holds a run.
            FileNotFoundError: The checkpoint does not exist.
            ValueError: The checkpoint belongs to a run with other data, model or settings, or the data is bad.
            FloatingPointError: The loss is not finite; checkpoints saved before remain.
            TrainingInterrupted: SIGINT or SIGTERM arrived; the step was finished and a checkpoint saved.
        """
        checkpoint = start(self, resume_from_checkpoint)
        (self.result,) = train_together([TrainingRun(self, checkpoint)])
        return self.result

    def stop(self) -> None:
        """End training after the current step; for callbacks, which must call it in every process."""
        self.state.stopped = True

    def evaluate(self, data: EmbeddingDataset | None = None, progress: bool | None = None) -> EvaluationResult:
        """Evaluate the model. All processes must call this, and all get the whole result.

        Args:
            data: Embeddings to evaluate on, by default the evaluation data.
            progress: Whether to show a progress bar, by default unless `disable_tqdm` is set.

        Returns:
            The metrics at every level.
        """
        from ..metrics import evaluate_msae

        data = self.eval_data if data is None else data
        if data is None:
            raise ValueError("there is no evaluation data: give eval_data to MSAETrainer, or data to evaluate()")
        return evaluate_msae(
            self.model,
            data,
            batch_size=self.args.per_device_eval_batch_size,
            cknna_batch_size=self.args.cknna_batch_size,
            progress=not self.args.disable_tqdm if progress is None else progress,
            accelerator=self.accelerator,
        )

    def save_model(self, output_dir: str | Path | None = None) -> Path:
        """Write config.json and model.safetensors to a folder, by default the run's, and return it."""
        folder = self.output_dir if output_dir is None else Path(output_dir).expanduser()
        if self.accelerator.is_main_process:
            save_pretrained(self.model, folder)
        self.accelerator.wait_for_everyone()
        return folder


def _open(data: Any, hook_point: str) -> EmbeddingDataset | None:
    if data is None or isinstance(data, EmbeddingDataset):
        return data
    return load_embeddings(data, hook_point=hook_point)
