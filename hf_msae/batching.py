"""Which rows of the training data make up which batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from .activations import ActivationDataset


@dataclass(frozen=True)
class BatchPlan:
    """
    The order in which training data is read, as a pure function of (seed, epoch, optimizer step).

    An epoch is one permutation of all rows, cut into global batches of
    `per_device_batch_size * num_processes * gradient_accumulation_steps` rows, one per optimizer step; the rows that
    fill no whole batch are left out, others in every epoch. A global batch is cut further over accumulation steps and
    processes. So every way to reach the same global batch size, by processes, accumulation or memory, trains on the
    same global batches in the same order, and a run can be taken up again at any step with nothing but its number.
    """

    num_rows: int
    per_device_batch_size: int
    num_processes: int = 1
    gradient_accumulation_steps: int = 1
    seed: int = 0

    @classmethod
    def fit(
        cls, num_rows: int, per_device_batch_size: int, num_processes: int, gradient_accumulation_steps: int, seed: int
    ) -> BatchPlan:
        """
        The plan with this batch size or, where `num_rows` rows do not fill one global batch of it, with the largest
        that they fill.

        Raises:
            ValueError: there is not even one row per process and accumulation step.
        """
        parts = num_processes * gradient_accumulation_steps
        if num_rows < parts:
            raise ValueError(
                f"the training data has {num_rows} rows, but {num_processes} processes with "
                f"{gradient_accumulation_steps} gradient accumulation steps need at least {parts}"
            )
        return cls(
            num_rows, min(per_device_batch_size, num_rows // parts), num_processes, gradient_accumulation_steps, seed
        )

    @property
    def global_batch_size(self) -> int:
        """Rows per optimizer step."""
        return self.per_device_batch_size * self.num_processes * self.gradient_accumulation_steps

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps per epoch."""
        return self.num_rows // self.global_batch_size

    def epoch_batches(self, epoch: int, process_index: int = 0, first_step: int = 0) -> Iterator[np.ndarray]:
        """
        Row numbers of the batches that one process sees in one epoch, from optimizer step `first_step` of it on.

        Yields `gradient_accumulation_steps` arrays of shape (per_device_batch_size,) per optimizer step.
        """
        order = np.random.default_rng((self.seed, epoch)).permutation(self.num_rows)
        for step in range(first_step, self.steps_per_epoch):
            start = step * self.global_batch_size
            parts = order[start : start + self.global_batch_size].reshape(
                -1, self.num_processes, self.per_device_batch_size
            )
            for accumulation_step in parts:
                # A batch is a set: ascending row numbers change no gradient, but read memory-mapped data much faster.
                yield np.sort(accumulation_step[process_index])

    def loader(
        self,
        data: ActivationDataset,
        epoch: int,
        process_index: int = 0,
        first_step: int = 0,
        num_workers: int = 0,
        pin_memory: bool = False,
    ) -> DataLoader:
        """`epoch_batches` as a `DataLoader` that fetches each batch with one `data.__getitems__(rows)`."""
        return DataLoader(
            data,
            batch_sampler=_BatchSampler(self, epoch, process_index, first_step),
            collate_fn=ActivationDataset.collate,
            num_workers=num_workers,
            pin_memory=pin_memory,
            # DataLoader draws a worker seed at every start; its own generator keeps that from moving the run's.
            generator=torch.Generator().manual_seed(self.seed),
        )


class _BatchSampler(Sampler):
    def __init__(self, plan: BatchPlan, epoch: int, process_index: int, first_step: int):
        self.plan, self.epoch, self.process_index, self.first_step = plan, epoch, process_index, first_step

    def __iter__(self) -> Iterator[np.ndarray]:
        return self.plan.epoch_batches(self.epoch, self.process_index, self.first_step)

    def __len__(self) -> int:
        return (self.plan.steps_per_epoch - self.first_step) * self.plan.gradient_accumulation_steps
