"""One model in training: its optimizer and counters, and the logging, evaluation and saving after a step."""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.optim import Adam
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_scheduler, get_wsd_schedule

from .._utils.evaluating import evaluation_mode
from .best import BestWeights, is_exhausted
from .checkpointing import load_weights, model_as_pretrained, prune_checkpoints, save_checkpoint, write_failure
from .dead_latents import LatentActivity
from .log import LossWindow, ProgressReport, TrainingLog, TrainingResult, diverged

if TYPE_CHECKING:
    from ..model.modeling_msae import MSAEModel
    from .arguments import MSAETrainingArguments
    from .trainer import MSAETrainer


def build_optimizer(model: MSAEModel, args: MSAETrainingArguments, total_steps: int) -> tuple[Adam, LambdaLR]:
    """Make Adam and the schedule of its learning rate."""
    optimizer = Adam(model.parameters(), args.learning_rate, (args.adam_beta1, args.adam_beta2), args.adam_epsilon)
    if args.lr_scheduler_type != "warmup_stable_decay":
        return optimizer, get_scheduler(args.lr_scheduler_type, optimizer, args.warmup_steps, total_steps)
    scheduler = get_wsd_schedule(
        optimizer,
        num_warmup_steps=args.warmup_steps,
        num_decay_steps=min(round(total_steps * args.lr_decay_fraction), total_steps - args.warmup_steps),
        num_training_steps=total_steps,
        decay_type="linear",
    )
    return optimizer, scheduler


class TrainingRun:
    """One training of a trainer's model: its optimizer, counters and log.

    [`~hf_msae.training.loop.training_step`] works on `prepared`, `forward`, `optimizer`, `scheduler`, `activity` and
    the counters `losses`, `step_loss`, `fired`, `grad_norm`, `learning_rate` and `seconds_of_steps`. With a
    `checkpoint`, `trainer.state` is already that of the checkpoint.
    """

    def __init__(self, trainer: MSAETrainer, checkpoint: Path | None = None, progress: bool = True):
        self.trainer, self.accelerator, self.args = trainer, trainer.accelerator, trainer.args
        self.plan, self.state, self.train_data = trainer.plan, trainer.state, trainer.train_data
        self.total_steps = trainer.total_steps
        self.sharded = self.accelerator.is_fsdp2
        self.dead_after = self.args.dead_steps or self.plan.steps_per_epoch
        self._checkpoint, self._show_progress = checkpoint, progress

    @contextmanager
    def preparing(self) -> Iterator[None]:
        """Prepare the model for training inside the block, and restore it afterwards."""
        accelerator, model = self.accelerator, self.trainer.model
        self.best = BestWeights(self.args, self.state)
        if self._checkpoint is not None:
            load_weights(model, self._checkpoint)
            self.best.load(self._checkpoint)
        self._prepare()
        try:
            with evaluation_mode(model), model_as_pretrained(accelerator, model):
                if self._checkpoint is not None:
                    accelerator.load_state(str(self._checkpoint))
                    accelerator.step = 0  # a new optimizer step begins, however the batch was divided before
                with self._progress_bar():
                    self._begin()
                    yield
            self._gather_weights()
            self.best.restore(model)
        finally:
            # Accelerate has wrapped the model's forward in autocast; this leaves the plain model.
            accelerator.unwrap_model(self.prepared, keep_fp32_wrapper=False, keep_torch_compile=False)
            del self.prepared, self.forward, self.optimizer, self.scheduler
            accelerator.free_memory()

    def _prepare(self) -> None:
        # FSDP splits a model for good, so it gets a copy, whose weights are copied back when needed.
        self.model = copy.deepcopy(self.trainer.model) if self.sharded else self.trainer.model
        optimizer, scheduler = build_optimizer(self.model, self.args, self.total_steps)
        # Not set when the trainer is made, because all accelerators of a Python process share it.
        self.accelerator.gradient_accumulation_steps = self.args.gradient_accumulation_steps
        # Accelerate would step the schedule once per process; the loop steps it once per optimizer step.
        self.accelerator.step_scheduler_with_optimizer = False
        # Discard gradients of an earlier run that failed.
        self.accelerator.step = 0
        self.trainer.model.zero_grad(set_to_none=True)
        with warnings.catch_warnings():  # accelerate names the buffers' synchronization as torch before 2.13 did
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            self.prepared, self.optimizer, self.scheduler = self.accelerator.prepare(self.model, optimizer, scheduler)
        self.forward = torch.compile(self.prepared) if self.args.torch_compile else self.prepared

    def _progress_bar(self) -> closing:
        self.progress = ProgressReport(
            total=self.total_steps,
            initial=self.state.global_step,
            samples_per_step=self.plan.global_batch_size,
            disable=self.args.disable_tqdm or not self.accelerator.is_main_process or not self._show_progress,
        )
        return closing(self.progress.bar)

    def _begin(self) -> None:
        accelerator, state = self.accelerator, self.state
        self._log = TrainingLog(self.trainer.output_dir if accelerator.is_main_process else None, state.log_history)
        self.losses = LossWindow(accelerator, state.pending_losses, self._describe_batch)
        self.activity = LatentActivity(self.model.config.num_latents, accelerator.device, state.steps_since_fired)
        self.fired: torch.Tensor | None = None
        self.step_loss: float | torch.Tensor = 0.0
        self.seconds_of_steps = 0.0
        if accelerator.log_with and not accelerator.trackers:
            accelerator.init_trackers("hf_msae", config=_flat(state.run))
        self._first_step, self._start = state.global_step, time.perf_counter()
        self._tell("on_train_begin")
        self.model.train()

    @torch.no_grad()
    def _gather_weights(self) -> None:
        """Copy the weights of a sharded model to the trainer's; all processes call this."""
        if self.sharded:
            for whole, piece in zip(self.trainer.model.parameters(), self.model.parameters(), strict=True):
                whole.copy_(piece.full_tensor())
            for whole, buffer in zip(self.trainer.model.buffers(), self.model.buffers(), strict=True):
                whole.copy_(buffer)

    @property
    def finished(self) -> bool:
        """Whether the run is at its end."""
        return self.state.stopped or self.state.global_step >= self.total_steps

    def result(self, seconds_waited: float) -> TrainingResult:
        """Return the result of a finished run that spent so many seconds waiting for data."""
        state = self.state
        runtime = time.perf_counter() - self._start
        steps = state.global_step - self._first_step
        result = TrainingResult(
            global_step=state.global_step,
            num_processes=self.accelerator.num_processes,
            global_batch_size=self.plan.global_batch_size,
            training_loss=next((r["loss"] for r in reversed(state.log_history) if "loss" in r), math.nan),
            runtime=round(runtime, 3),
            samples_per_second=round(steps * self.plan.global_batch_size / runtime, 1),
            seconds_per_step=self.seconds_of_steps / steps if steps else None,
            data_wait=round(seconds_waited / runtime, 4),
            log_history=state.log_history,
            best_metric=state.best["value"] if state.best else None,
            best_step=state.best["step"] if state.best else None,
        )
        self._tell("on_train_end", result)
        return result

    def after_step(self, embeddings: torch.Tensor, signum: int | None) -> Path | None:
        """Log, evaluate and save what is due after an optimizer step; return the checkpoint, if one was saved."""
        args, step, steps_per_epoch = self.args, self.state.global_step, self.plan.steps_per_epoch
        self._tell("on_step_end")
        self._note_fvu(step)
        recorded = step == 1 or self.finished or step % args.logging_steps == 0
        if recorded:
            self._record_training(embeddings)
        if args.is_due("eval", step, steps_per_epoch) or (args.chooses_best and self.finished):
            if not recorded:
                self._measure(embeddings)  # raises if the model has diverged
            with self.progress.during("evaluating"):
                self._gather_weights()
                metrics = self.trainer.evaluate(progress=False).to_dict()
            self._tell("on_evaluate", metrics)
            self.best.update(self.trainer.model, metrics)
            if is_exhausted(args, self.state):
                self.trainer.stop()
            self._record({f"eval_{key}": value for key, value in metrics.items() if isinstance(value, (int, float))})
        last = self.finished  # a callback or early stopping may have stopped the run since
        if last and not recorded:
            self._record_training(embeddings)
        if signum or args.is_due("save", step, steps_per_epoch) or (last and args.save_strategy != "no"):
            if not (recorded or last):
                self._measure(embeddings)
            return self.save()
        return None

    def save(self) -> Path:
        """Save a checkpoint and return its folder."""
        self._gather_weights()
        self.state.pending_losses = self.losses.read(self.state.global_step)
        self.state.steps_since_fired = self.activity.steps_since_fired.tolist()
        checkpoint = save_checkpoint(self.accelerator, self.state, self.trainer.output_dir, self.best.weights)
        self._tell("on_save", checkpoint)
        return checkpoint

    def fail(self, error: FloatingPointError) -> None:
        """Record in the output folder that the run diverged, so that a sweep does not resume it."""
        if self.accelerator.is_main_process:
            write_failure(self.trainer.output_dir, str(error))

    def prune(self, newest: Path) -> None:
        """Delete the oldest checkpoints beyond `save_total_limit`."""
        if self.accelerator.is_main_process:
            prune_checkpoints(newest, self.args.save_total_limit)

    def _describe_batch(self, step: int) -> str:
        rows = self.plan.rows_of_step(step)
        some = ", ".join(map(str, rows[:8])) + (", ..." if len(rows) > 8 else "")
        return f"rows {some} of {self.train_data.source} (all {len(rows)}: trainer.plan.rows_of_step({step}))"

    def _tell(self, event: str, *details: Any) -> None:
        for callback in self.trainer.callbacks:
            getattr(callback, event)(self.trainer, *details)

    def _record(self, values: dict[str, Any]) -> None:
        step = self.state.global_step
        record = {"step": step, "epoch": round(step / self.plan.steps_per_epoch, 4), **values}
        self._log.append(record)
        if self.accelerator.trackers:
            self.accelerator.log({key: value for key, value in values.items() if value is not None}, step=step)
        self._tell("on_log", record)

    @torch.no_grad()
    def _note_fvu(self, step: int) -> None:
        """Keep the FVU of the first batch at a half and at three quarters of the run, for `advice_on`."""
        names = {self.total_steps // 2: "half", self.total_steps * 3 // 4: "three quarters"}
        if step not in names or self.total_steps < 4:
            return
        self._gather_weights()
        rows = self.plan.rows_of_step(1)[: self.args.per_device_eval_batch_size]  # what is known to fit
        x = self.train_data[np.sort(rows)].to(self.accelerator.device)
        residual = (x - self.trainer.model(x).reconstruction).square().sum()
        fvu = float(residual / (x - self.trainer.model.input_mean).square().sum())
        if math.isfinite(fvu):  # otherwise the run has diverged, which the next record finds
            self.state.fvu_at[names[step]] = fvu

    @torch.no_grad()
    def _measure(self, embeddings: torch.Tensor) -> tuple[float | None, float]:
        """Return FVU and sparsity of the last batch of all processes; no FVU if it lies exactly on the mean."""
        step = self.state.global_step
        self.losses.read(step)
        self._gather_weights()
        output = self.trainer.model(embeddings)
        # Summed over processes before dividing, to get the ratios of the whole batch.
        sums = [
            (embeddings - output.reconstruction).square().sum(),
            (embeddings - self.trainer.model.input_mean).square().sum(),
            (output.latents != 0).float().mean(),
        ]
        residual, total, active = self.accelerator.reduce(torch.stack(sums), "sum").tolist()
        if not math.isfinite(residual):
            raise diverged(f"the squared error is {residual} after step {step}", self._describe_batch(step))
        return residual / total if total else None, 1 - active / self.accelerator.num_processes

    def _record_training(self, embeddings: torch.Tensor) -> None:
        """Log the mean loss since the last record, and measures of the last batch."""
        step = self.state.global_step
        fvu, sparsity = self._measure(embeddings)
        losses = self.losses.read(step)
        self.losses.clear()
        grad_norm = float(self.grad_norm)
        record = {
            "loss": sum(losses) / len(losses),
            "fvu": fvu,
            "sparsity": sparsity,
            "dead_latents": int(self.activity.dead(min(step, self.dead_after)).sum()),
            "learning_rate": self.learning_rate,
            "grad_norm": grad_norm if math.isfinite(grad_norm) else None,  # infinite where fp16 skipped the step
            "samples_per_second": self.progress.samples_per_second(step),
        }
        self._record(record)
        self.progress.show(record)


def _flat(run: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the settings of a run as one flat dict of numbers and strings, as trackers expect."""
    values = {f"{part}.{name}": value for part, fields in run.items() for name, value in fields.items()}
    return {name: value if isinstance(value, (int, float)) else str(value) for name, value in values.items()}
