"""Which rows of the training data make up which batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from ..embeddings import EmbeddingDataset

_BLOCK_ROWS = 256
"""Neighbouring rows that stay together in the shuffle of data larger than memory: about a megabyte on disk."""


@dataclass(frozen=True)
class BatchPlan:
    """The order in which training data is read, as a pure function of (seed, epoch, optimizer step).

    An epoch is one permutation of all rows, cut into global batches of
    `per_device_batch_size * num_processes * gradient_accumulation_steps` rows, one per optimizer step; the rows that
    fill no whole batch are left out, others in every epoch. A global batch is cut further over accumulation steps and
    processes. So every way to reach the same global batch size, by processes, accumulation or memory, trains on the
    same global batches in the same order, and a run can be taken up again at any step with nothing but its number.

    Data that does not fit in memory would be read from all over the disk that way. With `window_rows`, blocks of
    neighbouring rows are shuffled instead, and rows within windows of so many: an epoch still visits every row once.
    """

    num_rows: int
    per_device_batch_size: int
    num_processes: int = 1
    gradient_accumulation_steps: int = 1
    seed: int = 0
    window_rows: int | None = None

    @classmethod
    def fit(
        cls,
        num_rows: int,
        per_device_batch_size: int,
        num_processes: int,
        gradient_accumulation_steps: int,
        seed: int,
        window_rows: int | None = None,
    ) -> BatchPlan:
        """The plan with this batch size or, where `num_rows` rows do not fill one global batch of it, with the largest
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
        batch_size = min(per_device_batch_size, num_rows // parts)
        return cls(num_rows, batch_size, num_processes, gradient_accumulation_steps, seed, window_rows)

    @property
    def global_batch_size(self) -> int:
        """Rows per optimizer step."""
        return self.per_device_batch_size * self.num_processes * self.gradient_accumulation_steps

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps per epoch."""
        return self.num_rows // self.global_batch_size

    def epoch_batches(self, epoch: int, process_index: int = 0, first_step: int = 0) -> Iterator[np.ndarray]:
        """Row numbers of the batches that one process sees in one epoch, from optimizer step `first_step` of it on.

        Yields `gradient_accumulation_steps` arrays of shape (per_device_batch_size,) per optimizer step.
        """
        for rows in self._global_batches(epoch, first_step):
            for accumulation_step in rows.reshape(-1, self.num_processes, self.per_device_batch_size):
                # A batch is a set: ascending row numbers change no gradient, but read memory-mapped data much faster.
                yield np.sort(accumulation_step[process_index])

    def rows_of_step(self, step: int) -> np.ndarray:
        """The rows of the global batch that optimizer step number `step` (1 is the first) is made from, ascending."""
        epoch, place = divmod(step - 1, self.steps_per_epoch)
        return np.sort(next(self._global_batches(epoch, place)))

    def _global_batches(self, epoch: int, first_step: int) -> Iterator[np.ndarray]:
        """The rows of each global batch of an epoch, in their order, from optimizer step `first_step` of it on."""
        size, last = self.global_batch_size, self.steps_per_epoch * self.global_batch_size
        window = self.num_rows if self.window_rows is None else -(-self.window_rows // _BLOCK_ROWS) * _BLOCK_ROWS
        blocks = None
        if window < self.num_rows:
            blocks = np.random.default_rng((self.seed, epoch)).permutation(-(-self.num_rows // _BLOCK_ROWS))
        wanted = first_step * size  # position in the epoch of the next row to give out
        position = 0  # and of the window that is looked at
        rest = np.empty(0, np.int64)
        for number in range(-(-self.num_rows // window)):
            rows = self._window(epoch, number, window, blocks)
            position += len(rows)
            if position <= wanted:
                continue
            rest = np.concatenate([rest, rows[max(0, wanted - (position - len(rows))) :]])
            wanted = max(wanted, position)
            whole = len(rest) // size * size
            for start in range(0, whole, size):
                if first_step * size >= last:
                    return
                first_step += 1
                yield rest[start : start + size]
            rest = rest[whole:]

    def _window(self, epoch: int, number: int, window: int, blocks: np.ndarray | None) -> np.ndarray:
        """The rows of one window in shuffled order; all rows, where one window holds them."""
        if blocks is None:
            return np.random.default_rng((self.seed, epoch)).permutation(self.num_rows)
        per_window = window // _BLOCK_ROWS
        chosen = blocks[number * per_window : (number + 1) * per_window]
        rows = (chosen[:, None] * _BLOCK_ROWS + np.arange(_BLOCK_ROWS)).ravel()
        rows = rows[rows < self.num_rows]
        return np.random.default_rng((self.seed, epoch, number)).permutation(rows)

    def loader(
        self,
        data: EmbeddingDataset,
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
            collate_fn=EmbeddingDataset.collate,
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
