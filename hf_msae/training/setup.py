"""What is settled before the first step of a training: that everything fits, where the data is from, the optimiser."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psutil
import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from accelerate.utils import broadcast_object_list
from torch.optim import Adam
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_scheduler, get_wsd_schedule

from .._utils.acceleration import check_distribution
from ..model.configuration_msae import MSAEConfig
from .arguments import MSAETrainingArguments

if TYPE_CHECKING:
    from ..embeddings import EmbeddingDataset, EmbeddingStatistics
    from ..model.modeling_msae import MSAEModel

logger = get_logger(__name__)

# Fields of MSAEConfig that tell where the embeddings come from, not what the model computes.
PROVENANCE_FIELDS = ("base_model_name_or_path", "base_model_revision", "hook_point")


def check_inputs(
    model: MSAEModel,
    args: MSAETrainingArguments,
    train_data: EmbeddingDataset,
    eval_data: EmbeddingDataset | None,
    accelerator: Accelerator,
) -> None:
    """Raise a ValueError if model, arguments, data and accelerator do not fit together."""
    check_distribution(accelerator)
    if args.mixed_precision not in (None, accelerator.mixed_precision):
        raise ValueError(
            f"mixed_precision is {args.mixed_precision}, but the accelerator was made with "
            f"{accelerator.mixed_precision}: make both agree"
        )
    for data in filter(None, (train_data, eval_data)):
        if data.width != model.config.d_in:
            raise ValueError(
                f"embeddings in {data.source} have {data.width} columns, but the model takes {model.config.d_in}"
            )
    if args.eval_strategy != "no" and eval_data is None:
        raise ValueError(f"eval_strategy is {args.eval_strategy}, but there is no evaluation data: give eval_data")
    if args.report_to and not accelerator.log_with:
        raise ValueError(
            f"report_to is {args.report_to}, but the accelerator was made without trackers: give them to its log_with"
        )
    if args.resample_steps and accelerator.is_fsdp2:
        raise ValueError("resample_steps is given, but latents of a model in pieces (FSDP2) cannot be resampled")
    if args.torch_compile and accelerator.device.type == "cpu":
        logger.warning("torch_compile takes the place of the fused computation of the loss, which is faster on a CPU")
    if not model.latent_bias.requires_grad:
        raise ValueError("latent_bias is frozen, but its gradient is what tells which latents fire: let it train")
    dtypes = {parameter.dtype for parameter in model.parameters()}
    if dtypes != {torch.float32}:
        raise ValueError(
            f"the model's parameters are {', '.join(map(str, dtypes))}: train in float32 (load with "
            f"dtype=torch.float32) and set mixed_precision for speed"
        )


def adopt_provenance(config: MSAEConfig, data: EmbeddingDataset) -> None:
    """Note in the config from which backbone, revision and hook point the training data was extracted."""
    provenance = data.provenance
    if config.base_model_name_or_path is None:
        config.base_model_name_or_path = provenance.get("base_model_name_or_path")
    # A revision belongs to the backbone that the data names, not to another that the user may have named.
    if config.base_model_name_or_path == provenance.get("base_model_name_or_path"):
        config.base_model_revision = config.base_model_revision or provenance.get("base_model_revision")
    hook_point, named = provenance.get("hook_point", config.hook_point), config.hook_point
    if hook_point != named:
        logger.warning(f"{data.source} holds {hook_point}, so this becomes the model's hook_point instead of {named}.")
        config.hook_point = hook_point
    config.validate_architecture()  # saving would, and refuse when training is over


def measure_data(
    accelerator: Accelerator, train_data: EmbeddingDataset, eval_data: EmbeddingDataset | None, progress: bool
) -> EmbeddingStatistics:
    """Statistics of the training data, taken by the main process for all.

    Raises:
        ValueError: either data set has NaN or infinite rows, or no variance, or the evaluation data has rows for
            which a metric is undefined.
    """
    found = [None]
    if accelerator.is_main_process:
        try:
            found = [train_data.statistics(progress=progress)]
            if eval_data is not None:
                check_evaluable(eval_data)
        except ValueError as error:
            found = [error]  # raised by all processes, since the others wait for an answer
    (found,) = broadcast_object_list(found)
    if isinstance(found, ValueError):
        raise found
    return found


def check_evaluable(data: EmbeddingDataset) -> None:
    """Find now what would stop an evaluation when training is over.

    Raises:
        ValueError: a row is NaN or infinite, or has no metrics, such as a zero vector; names the data and the row.
    """
    from ..metrics import ReconstructionAccumulator

    mean = data.statistics().mean
    accumulator = ReconstructionAccumulator(mean)
    first_row = 0
    for embeddings in data.batches(4096):
        try:
            accumulator.update(embeddings, mean.expand_as(embeddings), first_row)
        except ValueError as error:
            raise ValueError(f"{data.source}: {error}") from None
        first_row += len(embeddings)


def shuffle_window(data: EmbeddingDataset, memory_budget: float | None) -> int | None:
    """Rows to shuffle at a time where the data is larger than `memory_budget` GB (the machine's memory), else None."""
    # Whole GB: machines that are called equal differ by a few MB, and a run may be resumed on another one.
    budget = (psutil.virtual_memory().total // 10**9 if memory_budget is None else memory_budget) * 1e9
    if data.nbytes <= budget:
        return None
    rows = max(1, int(budget / data.nbytes * len(data)))
    logger.warning(
        f"{data.source} ({data.nbytes / 1e9:.1f} GB) is larger than {budget / 1e9:.1f} GB of memory: its rows are "
        f"shuffled within windows of {rows}, put together from blocks of neighbouring rows"
    )
    return rows


def keep_on_device(data: EmbeddingDataset, device: torch.device, wanted: bool | None) -> torch.Tensor | None:
    """All embeddings as one float32 tensor on the device; None where they are to stay on disk."""
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


def build_optimizer(model: MSAEModel, args: MSAETrainingArguments, total_steps: int) -> tuple[Adam, LambdaLR]:
    """Adam, and the schedule of its learning rate; by default it stays, and falls linearly to 0 at the end."""
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
