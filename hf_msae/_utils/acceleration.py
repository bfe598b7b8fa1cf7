"""The `Accelerator` that a training or evaluation script runs on."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from accelerate.utils import DistributedType, ProjectConfiguration


def build_accelerator(
    use_cpu: bool = False, mixed_precision: str | None = None, report_to: Sequence[str] = (), logging_dir: str = "."
) -> Accelerator:
    """An `Accelerator` for one process or several, whichever launcher started them.

    Args:
        use_cpu: stay on the CPU where there is a GPU too.
        mixed_precision: "no", "bf16" or "fp16"; None leaves it to `accelerate launch`.
        report_to: trackers by name, such as "tensorboard"; `init_trackers` starts them.
        logging_dir: where trackers that write files put them.

    Raises:
        ImportError: a tracker is not installed.
        RuntimeError: several processes were launched, but cannot reach each other on this machine's devices.
        ValueError: the launcher is configured for model-parallel training, or a tracker is unknown.
    """
    _check_trackers(report_to)
    mixed_precision = mixed_precision or os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != mixed_precision:
        AcceleratorState._reset_state()  # a second training in one Python process, with another precision
    accelerator = Accelerator(
        # Where there is no GPU, accelerate takes the processes of `torchrun` for unrelated runs unless cpu is set.
        cpu=use_cpu or not torch.accelerator.is_available(),
        mixed_precision=mixed_precision,
        # The model's buffers are input statistics, equal everywhere: there is nothing to broadcast at every step.
        log_with=list(report_to) or None,
        project_config=ProjectConfiguration(project_dir=logging_dir, logging_dir=logging_dir),
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
    )
    launched = int(os.environ.get("WORLD_SIZE", 1))
    if launched > 1 and accelerator.num_processes == 1:
        raise RuntimeError(
            f"{launched} processes were launched, but on {accelerator.device.type} they cannot work together; "
            f"use the CPU (--use_cpu), or launch one process"
        )
    check_distribution(accelerator)
    return accelerator


def _check_trackers(names: Sequence[str]) -> None:
    """Accelerate passes over trackers that are not there; a user who named one wants to know before training."""
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise ValueError(f"report_to: there is no tracker {name!r}; choose from {', '.join(LOGGER_TYPE_TO_CLASS)}")
        if name not in map(str, get_available_trackers()):
            raise ImportError(f"report_to: {name} is not installed; `pip install {name}`, or leave it out")


def check_distribution(accelerator: Accelerator) -> None:
    """Refuse accelerators that cut the model into pieces by other means than FSDP2."""
    kind = accelerator.distributed_type
    if kind is not DistributedType.NO and not kind.name.startswith("MULTI_") and not accelerator.is_fsdp2:
        raise ValueError(
            f"accelerate is configured for {kind.value}, but an MSAE is trained on one device, data-parallel (DDP: "
            f"launch with --multi_gpu) or in pieces (FSDP2: launch with --use_fsdp --fsdp_version 2)"
        )
