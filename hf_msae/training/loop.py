"""The training loop: `train_together` reads batches, and `training_step` is one step of one model."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
import torch

from .batching import BatchFeed
from .dead_latents import resample_latents_
from .interruption import StopSignal, TrainingInterrupted
from .log import TrainingResult
from .run import TrainingRun


def training_step(run: TrainingRun, embeddings: torch.Tensor) -> bool:
    """Train on one batch of this process; return whether that completed an optimizer step.

    Every call is a forward and backward pass. The last one of a global batch completes an optimizer step: the gradient
    of each decoder row loses its component along the row, gradients are clipped, Adam steps, and decoder rows are
    scaled to unit norm without changing the function.
    """
    begun = time.perf_counter()
    args, accelerator, optimizer = run.args, run.accelerator, run.optimizer
    with accelerator.accumulate(run.prepared), _drawing_by_step(run):
        accelerator.backward(_compute_loss(run, embeddings))
    stepped = accelerator.sync_gradients
    if stepped:
        run.losses.append(run.step_loss)
        run.step_loss = 0.0
        run.activity.update(_fired(run))
        run.model.remove_parallel_decoder_gradient_()
        run.grad_norm = accelerator.clip_grad_norm_(run.model.parameters(), args.max_grad_norm or math.inf)
        optimizer.step()
        run.learning_rate = run.scheduler.get_last_lr()[0]
        if not accelerator.optimizer_step_was_skipped:  # fp16 skips steps until its loss scale fits
            run.scheduler.step()
        optimizer.zero_grad()
        run.model.normalize_decoder_()
        run.state.global_step += 1
        _resample(run)
        run.progress.bar.update()
    run.seconds_of_steps += time.perf_counter() - begun
    return stepped


@contextmanager
def _drawing_by_step(run: TrainingRun) -> Iterator[None]:
    """Let a model with `random_prefixes` draw them from the seed and the number of the optimizer step.

    The generator that all of a Python process share would give each model of a sweep other widths than alone.
    """
    if not run.model.config.random_prefixes:
        yield
        return
    seed = np.random.SeedSequence((run.args.seed, run.state.global_step)).generate_state(1)[0]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(seed))  # of the CPU alone, which draws the widths
        yield


def _compute_loss(run: TrainingRun, embeddings: torch.Tensor) -> torch.Tensor:
    args = run.args
    if not args.auxiliary_k:
        output = run.forward(embeddings, return_loss=True, loss_only=True)
        loss = output.loss
    else:
        output = run.forward(
            embeddings,
            k=run.model.config.nesting_ks[-1],
            return_loss=True,
            dead_latents=run.activity.dead(run.dead_after),
            auxiliary_k=args.auxiliary_k,
        )
        # The auxiliary loss gives dead latents a gradient, so gradients do not show which latents fired.
        fired = (output.latents.detach() > 0).any(0)
        run.fired = fired if run.fired is None else run.fired | fired
        loss = output.loss + args.auxiliary_coefficient * output.auxiliary_loss
    run.step_loss = run.step_loss + output.loss.detach() / args.gradient_accumulation_steps
    return loss


def _fired(run: TrainingRun) -> torch.Tensor:
    """Return which latents fired in the global batch: bool `(num_latents,)`."""
    if run.fired is None:
        # The bias of a latent that did not fire has a gradient of exactly 0.
        gradient = run.model.latent_bias.grad
        return (gradient.full_tensor() if run.sharded else gradient) != 0
    fired, run.fired = run.accelerator.reduce(run.fired.float(), "sum") > 0, None
    return fired


def _resample(run: TrainingRun) -> None:
    """Resample dead latents, if it is time."""
    every, step = run.args.resample_steps, run.state.global_step
    if not every or step % every or step >= run.total_steps:
        return
    dead = run.activity.dead(run.dead_after)
    # The global batch does not depend on how it is divided among processes and accumulation steps.
    batch = run.train_data[run.plan.rows_of_step(step)].to(run.accelerator.device)
    resample_latents_(run.model, run.optimizer, dead, batch, run.accelerator, run.args.seed + step)
    run.activity.forget(dead)


@torch.enable_grad()  # which notebooks that only look at models turn off for good
def train_together(
    runs: Sequence[TrainingRun], survive_failures: bool = False
) -> list[TrainingResult | FloatingPointError]:
    """Train runs with the same data, the same [`BatchPlan`] and the same first step, reading each batch once for all.

    Returns the result of each run. With `survive_failures`, the others go on when the loss of one diverges, and its
    error takes the place of its result. After SIGINT or SIGTERM, the step is finished, all runs save a checkpoint, and
    TrainingInterrupted is raised.
    """
    first = runs[0]
    plan, device = first.plan, first.accelerator.device
    ended: dict[TrainingRun, TrainingResult | FloatingPointError] = {}
    with StopSignal(first.accelerator) as stop, ExitStack() as prepared:
        for run in runs:
            prepared.enter_context(run.preparing())
        feed = BatchFeed(plan, first.train_data, first.accelerator, first.args)
        while True:
            for run in runs:
                if run.finished and run not in ended:
                    ended[run] = run.result(feed.seconds_waited)
            active = [run for run in runs if run not in ended]
            if not active:
                return [ended[run] for run in runs]
            step = active[0].state.global_step
            for embeddings in feed.epoch(*divmod(step, plan.steps_per_epoch)):
                embeddings = embeddings.to(device, non_blocking=True)
                stepped = [training_step(run, embeddings) for run in active]
                if not all(stepped):
                    continue
                step += 1
                signum = stop.received(step)
                saved = {}
                for run in active:
                    try:
                        saved[run] = run.after_step(embeddings, signum)
                    except FloatingPointError as error:
                        if not survive_failures:
                            raise
                        run.fail(error)
                        ended[run] = error
                if signum:
                    # Runs that a callback has stopped are saved too, so that resuming finds all of them.
                    saved |= {run: run.save() for run in runs if isinstance(ended.get(run), TrainingResult)}
                # Prune only after all runs have saved, so that there is always a step of which each has a checkpoint.
                for run, checkpoint in saved.items():
                    if checkpoint is not None:
                        run.prune(checkpoint)
                if signum and saved:
                    where, *others = saved.values()
                    raise TrainingInterrupted(
                        f"training was interrupted after step {step} of {first.total_steps} and saved to {where}"
                        f"{f' and {len(others)} more' if others else ''}: run the same command with "
                        "--resume_from_checkpoint last to continue",
                        signum,
                        where,
                    )
                if any(run.finished or run in ended for run in active):
                    break
