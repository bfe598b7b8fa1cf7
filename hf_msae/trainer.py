"""Training of Matryoshka sparse autoencoders on Accelerate: one process or many, CPU or GPU."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from accelerate.utils import broadcast_object_list, set_seed

from .acceleration import build_accelerator
from .activations import ActivationDataset, load_activations
from .batching import BatchPlan
from .callbacks import MSAETrainerCallback
from .checkpointing import (
    TrainerState,
    check_not_foreign,
    check_output_dir,
    clear_output_dir,
    describe_differences,
    find_checkpoint,
    model_as_pretrained,
    save_checkpoint,
    save_pretrained,
)
from .interruption import StopSignal, TrainingInterrupted
from .modeling_msae import MSAEModel
from .training_args import NUMERIC_FIELDS, MSAETrainingArguments
from .training_log import LossWindow, ProgressReport, TrainingLog, TrainingResult
from .training_setup import (
    PROVENANCE_FIELDS,
    adopt_provenance,
    build_optimizer,
    check_inputs,
    keep_on_device,
    measure_data,
    shuffle_window,
)

if TYPE_CHECKING:
    from .metrics import EvaluationResult

logger = get_logger(__name__)


class MSAETrainer:
    """
    Trains an [`MSAEModel`] on embeddings, as in the MSAE paper (arXiv 2502.20578), and evaluates and saves it.

    A step: gradients of one global batch are averaged over accumulation steps and processes; the decoder's gradient
    loses its component along each row; gradients are clipped; Adam steps; decoder rows are scaled to unit norm, with
    the function unchanged. Input statistics are taken from the training data first, unless the model carries some.
    On a CPU a resumed run ends with the very weights of an uninterrupted one.

    Args:
        model: a float32 model; trained in place.
        args: see [`MSAETrainingArguments`].
        train_data: raw embeddings, (rows, d_in); also anything that `load_activations` accepts.
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
        train_data: ActivationDataset,
        eval_data: ActivationDataset | None = None,
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
        self._stopping = False
        adopt_provenance(model.config, train_data)
        self.model.to(self.accelerator.device)

    def train(self, resume_from_checkpoint: str | Path | bool | None = None) -> TrainingResult:
        """
        Train to the end, or until a signal.

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
        resume_from = self.args.resume_from_checkpoint if resume_from_checkpoint is None else resume_from_checkpoint
        checkpoint = find_checkpoint(resume_from, self.output_dir) if resume_from else None
        if checkpoint is None or checkpoint.parent.resolve() != self.output_dir.resolve():
            (check_not_foreign if self.args.overwrite_output_dir else check_output_dir)(self.output_dir)
        self.accelerator.wait_for_everyone()  # every process has looked before the main one writes
        set_seed(self.args.seed)
        self.state = self._new_state()
        if checkpoint is not None:
            self.state = self._continued_state(checkpoint)
        elif self.accelerator.is_main_process:
            clear_output_dir(self.output_dir)
        self.output_dir.mkdir(parents=True, exist_ok=True)

        self._prepare()
        try:
            with model_as_pretrained(self.accelerator, self.model), StopSignal(self.accelerator) as stop:
                if checkpoint is not None:
                    self.accelerator.load_state(str(checkpoint))
                    self.accelerator.step = 0  # a new optimizer step begins, however the batch was cut before
                return self._run(stop)
        finally:
            self._resident = None
            # Accelerate has put its autocast wrapper around the model's forward; what remains is the plain model.
            self.accelerator.unwrap_model(self._prepared, keep_fp32_wrapper=False)
            del self._prepared, self._optimizer, self._scheduler
            self.accelerator.free_memory()

    def stop(self) -> None:
        """End training after the present step, as if that had been the last; for callbacks, in all processes."""
        self._stopping = True

    def evaluate(self, data: ActivationDataset | None = None) -> EvaluationResult:
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

    def _evaluate(self, data: ActivationDataset, progress: bool) -> EvaluationResult:
        from .metrics import evaluate_msae

        return evaluate_msae(
            self.model,
            data,
            batch_size=self.args.per_device_eval_batch_size,
            cknna_batch_size=self.args.cknna_batch_size,
            progress=progress,
            accelerator=self.accelerator,
        )

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

    def _prepare(self) -> None:
        optimizer, scheduler = build_optimizer(self.model, self.args, self.total_steps)
        # Set now, not in __init__: all accelerators of a Python process share it.
        self.accelerator.gradient_accumulation_steps = self.args.gradient_accumulation_steps
        # Accelerate would step the schedule once per process; here it is stepped once per optimizer step.
        self.accelerator.step_scheduler_with_optimizer = False
        # Nothing that was left half accumulated, by a run that failed or by the user, goes into the first step.
        self.accelerator.step = 0
        self.model.zero_grad(set_to_none=True)
        self._prepared, self._optimizer, self._scheduler = self.accelerator.prepare(self.model, optimizer, scheduler)

    # -- the steps ---------------------------------------------------------------------------------------------------

    def _run(self, stop: StopSignal) -> TrainingResult:
        accelerator, state, plan = self.accelerator, self.state, self.plan
        self._log = TrainingLog(self.output_dir if accelerator.is_main_process else None, state.log_history)
        self._losses = LossWindow(accelerator, state.pending_losses, self._describe_batch)
        self._steps_since_fired = torch.zeros(self.model.config.num_latents, dtype=torch.long)
        if state.steps_since_fired:
            self._steps_since_fired = torch.tensor(state.steps_since_fired)
        self._steps_since_fired = self._steps_since_fired.to(accelerator.device)
        self._progress = ProgressReport(
            total=self.total_steps,
            initial=state.global_step,
            samples_per_step=plan.global_batch_size,
            disable=self.args.disable_tqdm or not accelerator.is_main_process,
        )
        if accelerator.log_with and not accelerator.trackers:
            accelerator.init_trackers("hf_msae", config=_flat(state.run))
        first_step, start = state.global_step, time.perf_counter()
        self._stopping, self._seconds_waited = False, 0.0
        self._resident = keep_on_device(self.train_data, accelerator.device, self.args.keep_on_device)
        self._tell("on_train_begin")
        self.model.train()
        with self._progress:
            while state.global_step < self.total_steps and not self._stopping:
                self._run_epoch(*divmod(state.global_step, plan.steps_per_epoch), stop)
        runtime = time.perf_counter() - start
        result = TrainingResult(
            global_step=state.global_step,
            num_processes=accelerator.num_processes,
            global_batch_size=plan.global_batch_size,
            training_loss=next((r["loss"] for r in reversed(state.log_history) if "loss" in r), math.nan),
            runtime=round(runtime, 3),
            samples_per_second=round((state.global_step - first_step) * plan.global_batch_size / runtime, 1),
            data_wait=round(self._seconds_waited / runtime, 4),
            log_history=state.log_history,
        )
        self._tell("on_train_end", result)
        return result

    def _describe_batch(self, step: int) -> str:
        rows = self.plan.rows_of_step(step)
        some = ", ".join(map(str, rows[:8])) + (", ..." if len(rows) > 8 else "")
        return f"rows {some} of {self.train_data.source} (all {len(rows)}: trainer.plan.rows_of_step({step}))"

    def _tell(self, event: str, *details: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(self, *details)

    def _run_epoch(self, epoch: int, first_step: int, stop: StopSignal) -> None:
        accelerator, state = self.accelerator, self.state
        step_loss = 0.0
        for embeddings in self._waiting(self._batches(epoch, first_step)):
            embeddings = embeddings.to(accelerator.device, non_blocking=True)
            with accelerator.accumulate(self._prepared):
                output = self._prepared(embeddings, return_loss=True, loss_only=True)
                accelerator.backward(output.loss)
            step_loss = step_loss + output.loss.detach() / self.args.gradient_accumulation_steps
            if not accelerator.sync_gradients:
                continue
            self._losses.append(step_loss)
            step_loss = 0.0
            self._optimizer_step()
            state.global_step += 1
            self._progress.bar.update()
            self._after_step(embeddings, stop)
            if state.global_step == self.total_steps or self._stopping:
                break

    def _batches(self, epoch: int, first_step: int) -> Iterable[torch.Tensor]:
        rank, device = self.accelerator.process_index, self.accelerator.device
        if self._resident is not None:
            for rows in self.plan.epoch_batches(epoch, rank, first_step):
                yield self._resident[torch.from_numpy(rows).to(device)]
            return
        yield from self.plan.loader(
            self.train_data,
            epoch,
            rank,
            first_step=first_step,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=device.type == "cuda",
        )

    def _waiting(self, batches: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
        """The batches, and on the side the time that was spent waiting for them."""
        iterator, begun = iter(batches), time.perf_counter()
        for batch in iterator:
            self._seconds_waited += time.perf_counter() - begun
            yield batch
            begun = time.perf_counter()

    def _optimizer_step(self) -> None:
        # A latent that fired nowhere in the global batch leaves its bias a gradient of exactly 0, and one that fired
        # practically never does: counting costs nothing.
        self._steps_since_fired.add_(1).masked_fill_(self.model.latent_bias.grad != 0, 0)
        self.model.remove_parallel_decoder_gradient_()
        self._grad_norm = self.accelerator.clip_grad_norm_(
            self.model.parameters(), self.args.max_grad_norm or math.inf
        )
        self._optimizer.step()
        self._learning_rate = self._scheduler.get_last_lr()[0]
        if not self.accelerator.optimizer_step_was_skipped:  # fp16 skips steps until its loss scale fits
            self._scheduler.step()
        self._optimizer.zero_grad()
        self.model.normalize_decoder_()

    def _after_step(self, embeddings: torch.Tensor, stop: StopSignal) -> None:
        args, state = self.args, self.state
        step, steps_per_epoch = state.global_step, self.plan.steps_per_epoch
        self._tell("on_step_end")
        last = step == self.total_steps or self._stopping
        recorded = step == 1 or last or step % args.logging_steps == 0
        if recorded:
            self._record_training(embeddings)
        if args.is_due("eval", step, steps_per_epoch):
            self._losses.read(step)  # a diverged model is neither worth evaluating nor saving
            with self._progress.during("evaluating"):
                metrics = self._evaluate(self.eval_data, progress=False).to_dict()
            self._tell("on_evaluate", metrics)
            self._record({f"eval_{key}": value for key, value in metrics.items() if isinstance(value, (int, float))})
        last = last or self._stopping  # a callback may have asked for it just now
        if last and not recorded:
            self._record_training(embeddings)
        signum = stop.received(step)
        if signum or args.is_due("save", step, steps_per_epoch) or (last and args.save_strategy != "no"):
            state.pending_losses = self._losses.read(step)
            state.steps_since_fired = self._steps_since_fired.tolist()
            checkpoint = save_checkpoint(self.accelerator, state, self.output_dir, args.save_total_limit)
            self._tell("on_save", checkpoint)
            if signum:
                raise TrainingInterrupted(
                    f"training was interrupted after step {step} of {self.total_steps}; {checkpoint} holds its state: "
                    f"the same command with --resume_from_checkpoint last goes on from there",
                    signum,
                    checkpoint,
                )

    def _record(self, values: dict[str, Any]) -> None:
        step = self.state.global_step
        record = {"step": step, "epoch": round(step / self.plan.steps_per_epoch, 4), **values}
        self._log.append(record)
        if self.accelerator.trackers:
            self.accelerator.log({key: value for key, value in values.items() if value is not None}, step=step)
        self._tell("on_log", record)

    @torch.no_grad()
    def _record_training(self, embeddings: torch.Tensor) -> None:
        """Log the mean loss since the last record, and what the model makes of the last batch."""
        step = self.state.global_step
        losses = self._losses.read(step)
        self._losses.clear()
        output = self.model(embeddings)
        # Sums over this batch, then over processes: the ratios of sums are those of the whole batch.
        sums = [
            (embeddings - output.reconstruction).square().sum(),
            (embeddings - self.model.input_mean).square().sum(),
            (output.latents != 0).float().mean(),
        ]
        residual, total, active = self.accelerator.reduce(torch.stack(sums), "sum").tolist()
        grad_norm = float(self._grad_norm)
        record = {
            "loss": sum(losses) / len(losses),
            "fvu": residual / total,
            "sparsity": 1 - active / self.accelerator.num_processes,
            "dead_latents": int((self._steps_since_fired >= min(step, self.plan.steps_per_epoch)).sum()),
            "learning_rate": self._learning_rate,
            "grad_norm": grad_norm if math.isfinite(grad_norm) else None,  # infinite where fp16 skipped the step
            "samples_per_second": self._progress.samples_per_second(step),
        }
        self._record(record)
        self._progress.show(record)


def _flat(run: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The settings of a run in one level, as trackers take them; what is no number becomes text."""
    values = {f"{part}.{name}": value for part, fields in run.items() for name, value in fields.items()}
    return {name: value if isinstance(value, (int, float)) else str(value) for name, value in values.items()}


def _open(data: Any, hook_point: str) -> ActivationDataset | None:
    if data is None or isinstance(data, ActivationDataset):
        return data
    return load_activations(data, hook_point=hook_point)
