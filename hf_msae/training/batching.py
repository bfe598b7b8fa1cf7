"""Batches of the training data: which rows they have, and how they get to the device."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import psutil
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, Sampler

from .._utils.acceleration import main_process_logger
from ..embeddings import EmbeddingDataset
from .arguments import MSAETrainingArguments

logger = main_process_logger(__name__)

_BLOCK_ROWS = 256
"""Rows that stay together when data larger than memory is shuffled; about a megabyte on disk."""


@dataclass(frozen=True)
class BatchPlan:
    """The order in which training data is read, as a pure function of seed, epoch and optimizer step.

    An epoch is a permutation of all rows, divided into global batches of
    `per_device_batch_size * num_processes * gradient_accumulation_steps` rows, one per optimizer step. Rows that do
    not fill a whole batch are left out, different ones in every epoch. A global batch is divided among accumulation
    steps and processes, so runs with the same global batch size train on the same batches in the same order, and the
    number of a step is enough to resume there.

    With `window_rows`, for data that does not fit in memory, blocks of neighboring rows are shuffled first, and then
    the rows within windows of this size. An epoch still visits every row once.
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
        """Make a plan with this batch size, or a smaller one if there are too few rows for one global batch."""
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
        """Yield the row numbers of the batches that one process sees in one epoch, from `first_step` on.

        Each optimizer step has `gradient_accumulation_steps` arrays of shape `(per_device_batch_size,)`.
        """
        for rows in self._global_batches(epoch, first_step):
            for accumulation_step in rows.reshape(-1, self.num_processes, self.per_device_batch_size):
                # The order within a batch does not matter, and memory-mapped data is read much faster in order.
                yield np.sort(accumulation_step[process_index])

    def rows_of_step(self, step: int) -> np.ndarray:
        """Return the rows of the global batch of optimizer step number `step` (1 is the first), ascending."""
        epoch, place = divmod(step - 1, self.steps_per_epoch)
        return np.sort(next(self._global_batches(epoch, place)))

    def _global_batches(self, epoch: int, first_step: int) -> Iterator[np.ndarray]:
        """Yield the rows of each global batch of an epoch, from optimizer step `first_step` on."""
        size, last = self.global_batch_size, self.steps_per_epoch * self.global_batch_size
        window = self.num_rows if self.window_rows is None else -(-self.window_rows // _BLOCK_ROWS) * _BLOCK_ROWS
        blocks = None
        if window < self.num_rows:
            blocks = np.random.default_rng((self.seed, epoch)).permutation(-(-self.num_rows // _BLOCK_ROWS))
        wanted = first_step * size  # position in the epoch of the next row to yield
        position = 0  # position in the epoch of the end of the current window
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
        """Return the rows of one window in shuffled order; all rows if there is only one window."""
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
        """Return a `DataLoader` of `epoch_batches`, which fetches each batch as a whole."""
        return DataLoader(
            data,
            batch_sampler=_EpochSampler(self, epoch, process_index, first_step),
            collate_fn=EmbeddingDataset.collate,
            num_workers=num_workers,
            pin_memory=pin_memory,
            # DataLoader draws a seed for its workers, which must not change the random state of the run.
            generator=torch.Generator().manual_seed(self.seed),
        )


@dataclass(frozen=True)
class _EpochSampler(Sampler[np.ndarray]):
    """The batches of one process in one epoch, from optimizer step `first_step` on."""

    plan: BatchPlan
    epoch: int
    process_index: int
    first_step: int

    def __iter__(self) -> Iterator[np.ndarray]:
        return self.plan.epoch_batches(self.epoch, self.process_index, self.first_step)

    def __len__(self) -> int:
        return (self.plan.steps_per_epoch - self.first_step) * self.plan.gradient_accumulation_steps


class BatchFeed:
    """The batches of this process, from the device if the data fits there; measures the time spent waiting."""

    def __init__(self, plan: BatchPlan, data: EmbeddingDataset, accelerator: Accelerator, args: MSAETrainingArguments):
        self.seconds_waited = 0.0
        self._plan, self._data = plan, data
        self._rank, self._device = accelerator.process_index, accelerator.device
        self._num_workers = args.dataloader_num_workers
        self._resident = _keep_on_device(data, accelerator.device, args.keep_on_device)

    def epoch(self, epoch: int, first_step: int) -> Iterator[torch.Tensor]:
        """Yield the batches of an epoch from optimizer step `first_step` on."""
        iterator, begun = iter(self._batches(epoch, first_step)), time.perf_counter()
        for batch in iterator:
            self.seconds_waited += time.perf_counter() - begun
            yield batch
            begun = time.perf_counter()

    def _batches(self, epoch: int, first_step: int) -> Iterator[torch.Tensor]:
        if self._resident is not None:
            for rows in self._plan.epoch_batches(epoch, self._rank, first_step):
                yield self._resident[torch.from_numpy(rows).to(self._device)]
            return
        pin = self._device.type == "cuda"
        yield from self._plan.loader(self._data, epoch, self._rank, first_step, self._num_workers, pin)


def _keep_on_device(data: EmbeddingDataset, device: torch.device, wanted: bool | None) -> torch.Tensor | None:
    """Return all embeddings as one float32 tensor on the device, or None if they stay on disk."""
    if wanted is None:
        needed = len(data) * data.width * 4
        wanted = device.type == "cuda" and needed < torch.cuda.mem_get_info(device)[0] / 2
    if not wanted:
        return None
    resident = torch.empty(len(data), data.width, device=device)
    row = 0
    for embeddings in data.batches(65536):
        resident[row : row + len(embeddings)] = embeddings.to(device)
        row += len(embeddings)
    return resident


def shuffle_window(data: EmbeddingDataset, memory_budget: float | None) -> int | None:
    """Return how many rows to shuffle at a time if the data exceeds `memory_budget` GB (of the machine), else None."""
    # Whole GB, since machines of the same kind differ by a few MB, and a run may be resumed on another one.
    budget = (psutil.virtual_memory().total // 10**9 if memory_budget is None else memory_budget) * 1e9
    if data.nbytes <= budget:
        return None
    rows = max(1, int(budget / data.nbytes * len(data)))
    logger.warning(
        f"{data.source} ({data.nbytes / 1e9:.1f} GB) is larger than {budget / 1e9:.1f} GB of memory: its rows are "
        f"shuffled within windows of {rows}, which are made of blocks of neighboring rows"
    )
    return rows
