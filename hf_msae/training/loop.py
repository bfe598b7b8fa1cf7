"""The loop over batches: one pass over the data trains one model, or several."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

from .interruption import StopSignal, TrainingInterrupted
from .log import TrainingResult
from .run import TrainingRun
from .setup import keep_on_device


def train_together(
    runs: Sequence[TrainingRun], survive_failures: bool = False
) -> list[TrainingResult | FloatingPointError]:
    """Train every run to its end, each batch being read once for all of them.

    Args:
        runs: of trainers with the same data, the same [`BatchPlan`] and the same step to begin with.
        survive_failures: when the loss of one run diverges, go on with the others.

    Returns:
        The result of each run, or the error that ended it.

    Raises:
        FloatingPointError: the loss of a run is no longer finite.
        TrainingInterrupted: SIGINT or SIGTERM, after the step was finished and checkpoints of all runs saved.
    """
    first = runs[0]
    plan, device = first.plan, first.accelerator.device
    ended: dict[TrainingRun, TrainingResult | FloatingPointError] = {}
    with StopSignal(first.accelerator) as stop, ExitStack() as prepared:
        for run in runs:
            prepared.enter_context(run)
        feed = _Feed(first)
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
                stepped = [run.train_on(embeddings) for run in active]
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
                    # Those that somebody has stopped before are not to be trained on, but not to be lost either.
                    saved |= {run: run.save() for run in runs if isinstance(ended.get(run), TrainingResult)}
                # Not before all have saved: there is always a step that each has a checkpoint of.
                for run, checkpoint in saved.items():
                    if checkpoint is not None:
                        run.prune(checkpoint)
                if signum and saved:
                    raise _interrupted(signum, step, first.total_steps, list(saved.values()))
                if any(run.finished or run in ended for run in active):
                    break


def _interrupted(signum: int, step: int, total_steps: int, saved: list[Path]) -> TrainingInterrupted:
    holds = f"{saved[0]} holds" if len(saved) == 1 else f"{len(saved)} checkpoints, such as {saved[0]}, hold"
    return TrainingInterrupted(
        f"training was interrupted after step {step} of {total_steps}; {holds} its state: the same command with "
        f"--resume_from_checkpoint last goes on from there",
        signum,
        saved[0],
    )


class _Feed:
    """The batches of this process, from the device where the data fits there; counts the time spent waiting."""

    def __init__(self, run: TrainingRun):
        self.seconds_waited = 0.0
        self._plan, self._accelerator, self._args = run.plan, run.accelerator, run.args
        self._data = run.trainer.train_data
        self._resident = keep_on_device(self._data, run.accelerator.device, run.args.keep_on_device)

    def epoch(self, epoch: int, first_step: int) -> Iterator[torch.Tensor]:
        iterator, begun = iter(self._batches(epoch, first_step)), time.perf_counter()
        for batch in iterator:
            self.seconds_waited += time.perf_counter() - begun
            yield batch
            begun = time.perf_counter()

    def _batches(self, epoch: int, first_step: int) -> Iterator[torch.Tensor]:
        rank, device = self._accelerator.process_index, self._accelerator.device
        if self._resident is not None:
            for rows in self._plan.epoch_batches(epoch, rank, first_step):
                yield self._resident[torch.from_numpy(rows).to(device)]
            return
        yield from self._plan.loader(
            self._data,
            epoch,
            rank,
            first_step=first_step,
            num_workers=self._args.dataloader_num_workers,
            pin_memory=device.type == "cuda",
        )
