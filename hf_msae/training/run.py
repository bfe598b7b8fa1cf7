"""One model on its way through the steps of a training: what is done with each batch, and after each step."""

from __future__ import annotations

import copy
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .checkpointing import load_weights, model_as_pretrained, prune_checkpoints, save_checkpoint, write_failure
from .dead_latents import LatentActivity, resample_latents_
from .log import LossWindow, ProgressReport, TrainingLog, TrainingResult, diverged
from .setup import build_optimizer

if TYPE_CHECKING:
    from .trainer import MSAETrainer


class TrainingRun:
    """The steps of one trainer: a context, inside which its model is prepared for training.

    Args:
        trainer: whose model, arguments and state these are.
        checkpoint: what to go on from; `trainer.state` is that of the checkpoint already.
        progress: whether to show a bar.
    """

    def __init__(self, trainer: MSAETrainer, checkpoint: Path | None = None, progress: bool = True):
        self.trainer, self.accelerator, self.args = trainer, trainer.accelerator, trainer.args
        self.plan, self.state = trainer.plan, trainer.state
        self.total_steps = trainer.total_steps
        self.stopping = False
        self._checkpoint, self._show_progress = checkpoint, progress
        self._sharded = self.accelerator.is_fsdp2

    def __enter__(self) -> TrainingRun:
        if self._checkpoint is not None:
            load_weights(self.trainer.model, self._checkpoint)
        self._prepare()
        self._as_pretrained = model_as_pretrained(self.accelerator, self.trainer.model)
        self._as_pretrained.__enter__()
        try:
            if self._checkpoint is not None:
                self.accelerator.load_state(str(self._checkpoint))
                self.accelerator.step = 0  # a new optimizer step begins, however the batch was cut before
            self._begin()
        except BaseException as error:
            self.__exit__(type(error))
            raise
        return self

    def __exit__(self, error_type: type[BaseException] | None = None, *_: object) -> None:
        if hasattr(self, "progress"):
            self.progress.bar.close()
        self._as_pretrained.__exit__(None, None, None)
        self.trainer._run = None
        if error_type is None:
            self._gather_weights()
        # Accelerate has put its autocast wrapper around the model's forward; what remains is the plain model.
        self.accelerator.unwrap_model(self._prepared, keep_fp32_wrapper=False, keep_torch_compile=False)
        del self._prepared, self._forward, self._optimizer, self._scheduler
        self.accelerator.free_memory()

    def _prepare(self) -> None:
        # FSDP cuts a model into pieces for good; the trainer's stays whole, and gets the weights when they are needed.
        self.model = copy.deepcopy(self.trainer.model) if self._sharded else self.trainer.model
        optimizer, scheduler = build_optimizer(self.model, self.args, self.total_steps)
        # Set now, not in __init__: all accelerators of a Python process share it.
        self.accelerator.gradient_accumulation_steps = self.args.gradient_accumulation_steps
        # Accelerate would step the schedule once per process; here it is stepped once per optimizer step.
        self.accelerator.step_scheduler_with_optimizer = False
        # Nothing that was left half accumulated, by a run that failed or by the user, goes into the first step.
        self.accelerator.step = 0
        self.trainer.model.zero_grad(set_to_none=True)
        self._prepared, self._optimizer, self._scheduler = self.accelerator.prepare(self.model, optimizer, scheduler)
        self._forward = torch.compile(self._prepared) if self.args.torch_compile else self._prepared

    def _begin(self) -> None:
        trainer, accelerator, state = self.trainer, self.accelerator, self.state
        trainer._run = self
        self._log = TrainingLog(trainer.output_dir if accelerator.is_main_process else None, state.log_history)
        self._losses = LossWindow(accelerator, state.pending_losses, self._describe_batch)
        self._activity = LatentActivity(self.model.config.num_latents, accelerator.device, state.steps_since_fired)
        self._fired = None
        self._step_loss = 0.0
        self.progress = ProgressReport(
            total=self.total_steps,
            initial=state.global_step,
            samples_per_step=self.plan.global_batch_size,
            disable=self.args.disable_tqdm or not accelerator.is_main_process or not self._show_progress,
        )
        if accelerator.log_with and not accelerator.trackers:
            accelerator.init_trackers("hf_msae", config=_flat(state.run))
        self._first_step, self._start, self._seconds_of_steps = state.global_step, time.perf_counter(), 0.0
        self._tell("on_train_begin")
        self.model.train()

    @torch.no_grad()
    def _gather_weights(self) -> None:
        """Where the model is in pieces, copy them into the trainer's, which is whole; all processes call this."""
        if self._sharded:
            for whole, piece in zip(self.trainer.model.parameters(), self.model.parameters(), strict=True):
                whole.copy_(piece.full_tensor())
            for whole, buffer in zip(self.trainer.model.buffers(), self.model.buffers(), strict=True):
                whole.copy_(buffer)

    @property
    def finished(self) -> bool:
        """Whether no step is left to do."""
        return self.stopping or self.state.global_step >= self.total_steps

    def result(self, seconds_waited: float) -> TrainingResult:
        """What the run did, once it has finished; of its time, so much was spent waiting for data."""
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
            seconds_per_step=self._seconds_of_steps / steps if steps else None,
            data_wait=round(seconds_waited / runtime, 4),
            log_history=state.log_history,
        )
        self._tell("on_train_end", result)
        return result

    def train_on(self, embeddings: torch.Tensor) -> bool:
        """Forward and backward on one batch of this process; returns whether that made an optimizer step."""
        begun = time.perf_counter()
        stepped = self._train_on(embeddings)
        self._seconds_of_steps += time.perf_counter() - begun
        return stepped

    def _train_on(self, embeddings: torch.Tensor) -> bool:
        with self.accelerator.accumulate(self._prepared):
            loss = self._loss(embeddings)
            self.accelerator.backward(loss)
        if not self.accelerator.sync_gradients:
            return False
        self._losses.append(self._step_loss)
        self._step_loss = 0.0
        self._optimizer_step(embeddings)
        self.state.global_step += 1
        self.progress.bar.update()
        return True

    def _loss(self, embeddings: torch.Tensor) -> torch.Tensor:
        args = self.args
        if not args.auxiliary_k:
            output = self._forward(embeddings, return_loss=True, loss_only=True)
            loss = output.loss
        else:
            dead = self._activity.dead(self._dead_after)
            output = self._forward(
                embeddings,
                k=self.model.config.nesting_ks[-1],
                return_loss=True,
                dead_latents=dead,
                auxiliary_k=args.auxiliary_k,
            )
            # The auxiliary loss gives dead latents gradients, which therefore don't tell which latents fire.
            fired = (output.latents.detach() > 0).any(0)
            self._fired = fired if self._fired is None else self._fired | fired
            loss = output.loss + args.auxiliary_coefficient * output.auxiliary_loss
        self._step_loss = self._step_loss + output.loss.detach() / args.gradient_accumulation_steps
        return loss

    def _optimizer_step(self, embeddings: torch.Tensor) -> None:
        if self._fired is None:
            # A latent that fired nowhere in the global batch leaves its bias a gradient of exactly 0, and one that
            # fired practically never does: counting costs nothing.
            gradient = self.model.latent_bias.grad
            fired = (gradient.full_tensor() if self._sharded else gradient) != 0
        else:
            fired = self.accelerator.reduce(self._fired.float(), "sum") > 0
            self._fired = None
        self._activity.update(fired)
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
        every, step = self.args.resample_steps, self.state.global_step + 1
        if every and step % every == 0 and step < self.total_steps:
            dead = self._activity.dead(self._dead_after)
            # Of the whole batch, so that it does not matter how it was cut over processes and accumulation steps.
            batch = self.trainer.train_data[self.plan.rows_of_step(step)].to(embeddings.device)
            resample_latents_(self.model, self._optimizer, dead, batch, self.accelerator, self.args.seed + step)
            self._activity.forget(dead)

    @property
    def _dead_after(self) -> int:
        """Steps without firing after which a latent is taken for dead."""
        return self.args.dead_steps or self.plan.steps_per_epoch

    def after_step(self, embeddings: torch.Tensor, signum: int | None) -> Path | None:
        """What is due after a step: records, evaluation, a checkpoint (of which it returns the folder)."""
        args, state = self.args, self.state
        step, steps_per_epoch = state.global_step, self.plan.steps_per_epoch
        self._tell("on_step_end")
        last = self.finished
        recorded = step == 1 or last or step % args.logging_steps == 0
        if recorded:
            self._record_training(embeddings)
        if args.is_due("eval", step, steps_per_epoch):
            if not recorded:
                self._measure(embeddings)  # a diverged model is neither worth evaluating nor saving
            with self.progress.during("evaluating"):
                self._gather_weights()
                metrics = self.trainer._evaluate(self.trainer.eval_data, progress=False).to_dict()
            self._tell("on_evaluate", metrics)
            self._record({f"eval_{key}": value for key, value in metrics.items() if isinstance(value, (int, float))})
        last = self.finished  # a callback may have asked for it just now
        if last and not recorded:
            self._record_training(embeddings)
        if signum or args.is_due("save", step, steps_per_epoch) or (last and args.save_strategy != "no"):
            if not (recorded or last):
                self._measure(embeddings)
            return self.save()
        return None

    def save(self) -> Path:
        """Save a checkpoint; `prune` deletes old ones."""
        self._gather_weights()
        state = self.state
        state.pending_losses = self._losses.read(state.global_step)
        state.steps_since_fired = self._activity.steps_since_fired.tolist()
        state.stopped = self.stopping
        checkpoint = save_checkpoint(self.accelerator, state, self.trainer.output_dir)
        self._tell("on_save", checkpoint)
        return checkpoint

    def fail(self, error: FloatingPointError) -> None:
        """Note in the run's folder that it has diverged: there is nothing to resume."""
        if self.accelerator.is_main_process:
            write_failure(self.trainer.output_dir, str(error))

    def prune(self, newest: Path) -> None:
        """Delete the oldest checkpoints beyond `save_total_limit`."""
        if self.accelerator.is_main_process:
            prune_checkpoints(newest, self.args.save_total_limit)

    def _describe_batch(self, step: int) -> str:
        rows = self.plan.rows_of_step(step)
        some = ", ".join(map(str, rows[:8])) + (", ..." if len(rows) > 8 else "")
        source = self.trainer.train_data.source
        return f"rows {some} of {source} (all {len(rows)}: trainer.plan.rows_of_step({step}))"

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
    def _measure(self, embeddings: torch.Tensor) -> tuple[float, float]:
        """FVU and sparsity of the last batch of all processes.

        Raises:
            FloatingPointError: a loss since the last record, or what the model has become, is not finite.
        """
        step = self.state.global_step
        self._losses.read(step)
        self._gather_weights()
        output = self.trainer.model(embeddings)
        # Sums over this batch, then over processes: the ratios of sums are those of the whole batch.
        sums = [
            (embeddings - output.reconstruction).square().sum(),
            (embeddings - self.trainer.model.input_mean).square().sum(),
            (output.latents != 0).float().mean(),
        ]
        residual, total, active = self.accelerator.reduce(torch.stack(sums), "sum").tolist()
        if not math.isfinite(residual):
            raise diverged(f"the squared error is {residual} after step {step}", self._describe_batch(step))
        return residual / total, 1 - active / self.accelerator.num_processes

    def _record_training(self, embeddings: torch.Tensor) -> None:
        """Log the mean loss since the last record, and what the model makes of the last batch."""
        step = self.state.global_step
        fvu, sparsity = self._measure(embeddings)
        losses = self._losses.read(step)
        self._losses.clear()
        grad_norm = float(self._grad_norm)
        record = {
            "loss": sum(losses) / len(losses),
            "fvu": fvu,
            "sparsity": sparsity,
            "dead_latents": int(self._activity.dead(min(step, self._dead_after)).sum()),
            "learning_rate": self._learning_rate,
            "grad_norm": grad_norm if math.isfinite(grad_norm) else None,  # infinite where fp16 skipped the step
            "samples_per_second": self.progress.samples_per_second(step),
        }
        self._record(record)
        self.progress.show(record)


def _flat(run: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The settings of a run in one level, as trackers take them; what is no number becomes text."""
    values = {f"{part}.{name}": value for part, fields in run.items() for name, value in fields.items()}
    return {name: value if isinstance(value, (int, float)) else str(value) for name, value in values.items()}
