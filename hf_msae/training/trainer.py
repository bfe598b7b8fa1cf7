"""Training of Matryoshka sparse autoencoders on Accelerate: one process or many, CPU or GPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate import Accelerator
from accelerate.logging import get_logger
from accelerate.utils import broadcast_object_list, set_seed

from .._utils.acceleration import build_accelerator
from ..embeddings import EmbeddingDataset, load_embeddings
from ..model.modeling_msae import MSAEModel
from .arguments import NUMERIC_FIELDS, MSAETrainingArguments
from .batching import BatchPlan
from .callbacks import MSAETrainerCallback
from .checkpointing import (
    TrainerState,
    check_not_foreign,
    check_output_dir,
    clear_output_dir,
    describe_differences,
    find_checkpoint,
    save_pretrained,
)
from .log import TrainingResult
from .loop import train_together
from .run import TrainingRun
from .setup import PROVENANCE_FIELDS, adopt_provenance, check_inputs, measure_data, shuffle_window

if TYPE_CHECKING:
    from ..metrics import EvaluationResult

logger = get_logger(__name__)


class MSAETrainer:
    """Trains an [`MSAEModel`] on embeddings, as in the MSAE paper (arXiv 2502.20578), and evaluates and saves it.

    A step: gradients of one global batch are averaged over accumulation steps and processes; the decoder's gradient
    loses its component along each row; gradients are clipped; Adam steps; decoder rows are scaled to unit norm, with
    the function unchanged. Input statistics are taken from the training data first, unless the model carries some.
    On a CPU a resumed run ends with the very weights of an uninterrupted one.

    Args:
        model: a float32 model; trained in place.
        args: see [`MSAETrainingArguments`].
        train_data: raw embeddings, (rows, d_in); also anything that `load_embeddings` accepts.
        eval_data: the same for `evaluate` and `eval_strategy`.
        callbacks: objects that are told what happens; see [`MSAETrainerCallback`].
        accelerator: one that exists already, with its trackers; by default [`build_accelerator`] makes it.

    Raises:
        ValueError: widths differ, an evaluation is asked for without data, the model is not float32, or the
            accelerator does not fit.
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
        self._mixed_precision = str(self.accelerator.mixed_precision)
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
                f"{train_data.source} has {len(train_data)} rows, which do not fill one global batch of "
                f"{args.per_device_train_batch_size} x {self.accelerator.num_processes} processes x "
                f"{args.gradient_accumulation_steps} accumulation steps. Training with "
                f"per_device_train_batch_size {self.plan.per_device_batch_size} instead."
            )
        self.total_steps = args.total_steps(self.plan.steps_per_epoch)
        if args.warmup_steps > self.total_steps:
            raise ValueError(f"warmup_steps is {args.warmup_steps}, but the run has only {self.total_steps} steps")
        self.state = TrainerState()
        self.result: TrainingResult | None = None  # of the last training that ended
        self._run: TrainingRun | None = None  # while it trains
        adopt_provenance(model.config, train_data)
        self.model.to(self.accelerator.device)

    def train(self, resume_from_checkpoint: str | Path | bool | None = None) -> TrainingResult:
        """Train to the end, or until a signal.

        Args:
            resume_from_checkpoint: as the field of [`MSAETrainingArguments`], which it overrides.

        Returns:
            [`TrainingResult`]. The weights are in `trainer.model`, and on disk after `save_model`.

        Raises:
            FileExistsError: output_dir holds a run already.
            FileNotFoundError: there is no such checkpoint.
            ValueError: the checkpoint belongs to a run with other data, model or settings; or the data is bad.
            FloatingPointError: the loss is no longer finite; checkpoints saved before remain.
            TrainingInterrupted: SIGINT or SIGTERM, after the step was finished and a checkpoint saved.
        """
        checkpoint = self._begin(resume_from_checkpoint)
        (self.result,) = train_together([TrainingRun(self, checkpoint)])
        return self.result

    def stop(self) -> None:
        """End training after the present step, as if that had been the last; for callbacks, in all processes."""
        if self._run is not None:
            self._run.stopping = True

    def evaluate(self, data: EmbeddingDataset | None = None) -> EvaluationResult:
        """Evaluate on `data`, by default the evaluation data. All processes call it; all get the whole result."""
        data = self.eval_data if data is None else data
        if data is None:
            raise ValueError("there is no evaluation data: give eval_data to MSAETrainer, or data to evaluate()")
        return self._evaluate(data, progress=not self.args.disable_tqdm)

    def save_model(self, output_dir: str | Path | None = None) -> Path:
        """Write config.json and model.safetensors to `output_dir` (default: the run's); returns the folder."""
        folder = self.output_dir if output_dir is None else Path(output_dir)
        if self.accelerator.is_main_process:
            save_pretrained(self.model, folder)
        self.accelerator.wait_for_everyone()
        return folder

    def _evaluate(self, data: EmbeddingDataset, progress: bool) -> EvaluationResult:
        from ..metrics import evaluate_msae

        return evaluate_msae(
            self.model,
            data,
            batch_size=self.args.per_device_eval_batch_size,
            cknna_batch_size=self.args.cknna_batch_size,
            progress=progress,
            accelerator=self.accelerator,
        )

    def _begin(self, resume_from_checkpoint: str | Path | bool | None) -> Path | None:
        """Checks and clears the output folder, and sets the state; returns the checkpoint to go on from."""
        resume_from = self.args.resume_from_checkpoint if resume_from_checkpoint is None else resume_from_checkpoint
        checkpoint = find_checkpoint(resume_from, self.output_dir) if resume_from else None
        outside = checkpoint is None or checkpoint.parent.resolve() != self.output_dir.resolve()
        if outside:
            self._check_output_dir()
        self.accelerator.wait_for_everyone()  # every process has looked before the main one writes
        set_seed(self.args.seed)
        self.state = self._new_state()
        if checkpoint is not None:
            self.state = self._continued_state(checkpoint)
        if outside and self.accelerator.is_main_process:
            clear_output_dir(self.output_dir)
        self.output_dir.mkdir(parents=True, exist_ok=True)
        return checkpoint

    def _check_output_dir(self) -> None:
        (check_not_foreign if self.args.overwrite_output_dir else check_output_dir)(self.output_dir)

    def _new_state(self) -> TrainerState:
        """The state before the first step; gives the model its input statistics, unless it carries some."""
        statistics = measure_data(self.accelerator, self.train_data, self.eval_data, not self.args.disable_tqdm)
        if not self.model.input_mean.any() and self.model.input_scale == 1:
            self.model.set_input_statistics(statistics.mean, statistics.input_scale)
        config = self.model.config
        arguments = {name: getattr(self.args, name) for name in NUMERIC_FIELDS}
        arguments["global_batch_size"] = self.plan.global_batch_size
        arguments["total_steps"] = self.total_steps
        arguments["shuffle_window_rows"] = self.plan.window_rows
        arguments["mixed_precision"] = self._mixed_precision
        data = {
            "num_rows": len(self.train_data),
            "width": self.train_data.width,
            "mean_squared_distance": float(statistics.mean_squared_distance),
        }
        model = {name: getattr(config, name) for name in config.own_fields() if name not in PROVENANCE_FIELDS}
        run = {"arguments": arguments, "data": data, "model": model}
        return TrainerState(num_processes=self.accelerator.num_processes, run=run)

    def _continued_state(self, checkpoint: Path) -> TrainerState:
        state = TrainerState.read(checkpoint)
        if differences := describe_differences(state.run, self.state.run):
            raise ValueError(
                f"{checkpoint} belongs to another run and cannot be continued like this:\n  "
                + "\n  ".join(differences)
            )
        state.num_processes = self.accelerator.num_processes
        logger.info(f"Resuming from {checkpoint} at step {state.global_step} of {self.total_steps}.")
        return state


def _open(data: Any, hook_point: str) -> EmbeddingDataset | None:
    if data is None or isinstance(data, EmbeddingDataset):
        return data
    return load_embeddings(data, hook_point=hook_point)
