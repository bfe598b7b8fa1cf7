"""The `Accelerator` that a training or evaluation script runs on."""

from __future__ import annotations

import os

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType


def build_accelerator(use_cpu: bool = False, mixed_precision: str | None = None) -> Accelerator:
    """
    An `Accelerator` for one process or several, whichever launcher started them.

    Args:
        use_cpu: stay on the CPU where there is a GPU too.
        mixed_precision: "no", "bf16" or "fp16"; None leaves it to `accelerate launch`.

    Raises:
        RuntimeError: several processes were launched, but cannot reach each other on this machine's devices.
        ValueError: the launcher is configured for model-parallel training.
    """
    mixed_precision = mixed_precision or os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != mixed_precision:
        AcceleratorState._reset_state()  # a second training in one Python process, with another precision
    accelerator = Accelerator(
        # Where there is no GPU, accelerate takes the processes of `torchrun` for unrelated runs unless cpu is set.
        cpu=use_cpu or not torch.accelerator.is_available(),
        mixed_precision=mixed_precision,
        # The model's buffers are input statistics, equal everywhere: there is nothing to broadcast at every step.
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


def check_distribution(accelerator: Accelerator) -> None:
    """Refuse accelerators that would cut the model into pieces: an MSAE fits on one device."""
    kind = accelerator.distributed_type
    if kind is not DistributedType.NO and not kind.name.startswith("MULTI_"):
        raise ValueError(
            f"accelerate is configured for {kind.value}, but an MSAE runs on one device or data-parallel (DDP): "
            f"choose multi-GPU in `accelerate config`, or launch with --multi_gpu"
        )
