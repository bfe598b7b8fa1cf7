"""The `Accelerator` of training, evaluation and extraction."""

from __future__ import annotations

import atexit
import logging
import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.logging import MultiProcessAdapter
from accelerate.state import AcceleratorState, is_initialized
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from accelerate.utils import DistributedType, ProjectConfiguration, broadcast_object_list


def build_accelerator(
    use_cpu: bool = False,
    mixed_precision: str | None = None,
    report_to: Sequence[str] = (),
    logging_dir: str = ".",
    patience: timedelta | None = None,
) -> Accelerator:
    """Create an `Accelerator` for the processes that a launcher started, or for one process.

    The precision is "no", "bf16" or "fp16", by default as set by `accelerate launch`; `init_trackers` starts the
    trackers. Processes wait for each other for `patience`, by default as long as torch decides (10 or 30 minutes),
    which suits those that work in step.

    Raises ImportError or ValueError for a tracker that is not there, ValueError for model-parallel training, and
    RuntimeError if several processes were launched but cannot communicate on this machine's devices.
    """
    _check_trackers(report_to)
    mixed_precision = mixed_precision or os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != mixed_precision:
        AcceleratorState._reset_state()  # a second training in one Python process, with another precision
    accelerator = Accelerator(
        # Without a GPU, accelerate treats the processes of `torchrun` as unrelated runs unless cpu is set.
        cpu=use_cpu or not torch.accelerator.is_available(),
        mixed_precision=mixed_precision,
        # The model's buffers are the same in all processes, so they need not be broadcast at every step.
        log_with=list(report_to) or None,
        project_config=ProjectConfiguration(project_dir=logging_dir, logging_dir=logging_dir),
        kwargs_handlers=[
            DistributedDataParallelKwargs(broadcast_buffers=False),
            InitProcessGroupKwargs(timeout=patience),
        ],
    )
    launched = int(os.environ.get("WORLD_SIZE", 1))
    if launched > 1 and accelerator.num_processes == 1:
        raise RuntimeError(
            f"{launched} processes were launched, but they cannot communicate on {accelerator.device.type}: use the "
            "CPU (--use_cpu), or launch one process"
        )
    check_distribution(accelerator)
    atexit.register(_leave_process_group)
    return accelerator


def _leave_process_group() -> None:
    """End gloo's threads where `end_training` has not: a process that exits beside them is often aborted."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return
    if torch.distributed.get_backend() == "gloo":
        torch.distributed.destroy_process_group()


class _MainProcessLogger(MultiProcessAdapter):
    def log(self, level: int, msg: Any, *args: Any, **kwargs: Any) -> None:
        if is_initialized():
            super().log(level, msg, *args, **kwargs)
        else:  # where accelerate's adapter raises
            msg, kwargs = self.process(msg, kwargs)
            self.logger.log(level, msg, *args, **kwargs)

    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        kwargs.setdefault("stacklevel", 2)  # the line that logs, not accelerate's
        return logging.LoggerAdapter.process(self, msg, kwargs)  # without "[RANK 0]"


def main_process_logger(name: str) -> MultiProcessAdapter:
    """Return a logger that logs in the main process alone, or in any that has no `Accelerator`."""
    return _MainProcessLogger(logging.getLogger(name), {})


def _check_trackers(names: Sequence[str]) -> None:
    """Refuse trackers that accelerate would ignore because they are unknown or not installed."""
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise ValueError(f"report_to: unknown tracker {name!r}; choose from {', '.join(LOGGER_TYPE_TO_CLASS)}")
        if name not in map(str, get_available_trackers()):
            raise ImportError(f"report_to: {name} is not installed; run `pip install {name}`, or leave it out")


def check_distribution(accelerator: Accelerator) -> None:
    """Raise ValueError if an accelerator shards the model by other means than FSDP2."""
    kind = accelerator.distributed_type
    if kind is not DistributedType.NO and not kind.name.startswith("MULTI_") and not accelerator.is_fsdp2:
        raise ValueError(
            f"accelerate is configured for {kind.value}, but an MSAE is trained on one device, data-parallel (DDP: "
            "launch with --multi_gpu) or sharded (FSDP2: launch with --use_fsdp --fsdp_version 2)"
        )


def on_main_process(accelerator: Accelerator | None, action: Callable[[], Any]) -> Any:
    """Run `action` on the main process, and return or raise its outcome on all processes."""
    if accelerator is None or accelerator.num_processes == 1:
        return action()
    outcome = [None]
    if accelerator.is_main_process:
        try:
            outcome = [action()]
        except (ValueError, OSError) as error:  # the others would wait forever
            outcome = [error]
    (outcome,) = broadcast_object_list(outcome)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome
