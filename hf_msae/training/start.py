"""The start of a run: check the inputs, measure the data, clear the output folder, and set the state."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from .._utils.acceleration import check_distribution, main_process_logger, on_main_process
from ..model.configuration_msae import MSAEConfig
from ..model.products import multiplies_slowly
from .arguments import NUMERIC_FIELDS, MSAETrainingArguments
from .best import adopt_best, is_exhausted
from .checkpointing import TrainerState, check_output_dir, clear_output_dir
from .resuming import describe_differences, find_checkpoint

if TYPE_CHECKING:
    from ..embeddings import EmbeddingDataset, EmbeddingStatistics
    from ..model.modeling_msae import MSAEModel
    from .trainer import MSAETrainer

logger = main_process_logger(__name__)

# Fields of MSAEConfig about the source of the embeddings, not about what the model computes.
PROVENANCE_FIELDS = (
    *("base_model_name_or_path", "base_model_revision", "base_model_weights_sha256", "base_model_processor_sha256"),
    "hook_point",
)


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
            f"mixed_precision is {args.mixed_precision}, but the accelerator was created with "
            f"{accelerator.mixed_precision}: make both agree"
        )
    precision, device = str(accelerator.mixed_precision), accelerator.device.type
    if precision != "no" and not accelerator.native_amp:  # Accelerate would train in float32 without a word
        other = "bf16 or no" if device == "cpu" else "no"
        raise ValueError(f"mixed_precision is {precision}, which is not available on {device}: set it to {other}")
    for data in filter(None, (train_data, eval_data)):
        if data.width != model.config.d_in:
            raise ValueError(f"{data.source} has {data.width} columns, but the model takes {model.config.d_in}")
    if args.eval_strategy != "no" and eval_data is None:
        asking = ("early_stopping_patience", "load_best_model_at_end")
        asking = next((name for name in asking if getattr(args, name)), "eval_strategy")
        raise ValueError(f"{asking} is {getattr(args, asking)}, but there is no eval_data (--eval_data)")
    if args.report_to and not accelerator.log_with:
        raise ValueError(f"report_to is {args.report_to}: create the accelerator with these trackers (log_with)")
    if args.resample_steps and accelerator.is_fsdp2:
        raise ValueError("resample_steps cannot be used with FSDP2, which splits the model: leave it unset")
    if args.torch_compile and accelerator.device.type == "cpu":
        logger.warning("torch_compile replaces the fused computation of the loss, which is faster on a CPU")
    if precision == "bf16" and multiplies_slowly(torch.bfloat16, accelerator.device):
        logger.warning_once(
            "mixed_precision is bf16, but this processor has no instructions for bfloat16: products are computed in "
            "float32, which is faster here"
        )
    if not model.latent_bias.requires_grad:
        raise ValueError("latent_bias is frozen, but its gradient shows which latents fire: set requires_grad to True")
    dtypes = {parameter.dtype for parameter in model.parameters()}
    if dtypes != {torch.float32}:
        raise ValueError(
            f"the model's parameters are {', '.join(map(str, dtypes))}: train in float32 (load with "
            f"dtype=torch.float32) and set mixed_precision for speed"
        )


def adopt_provenance(config: MSAEConfig, data: EmbeddingDataset) -> None:
    """Write the backbone, revision and hook point that the training data was extracted with into the config."""
    provenance = data.provenance
    if config.base_model_name_or_path is None:
        config.base_model_name_or_path = provenance.get("base_model_name_or_path")
    found, named = provenance.get("base_model_name_or_path"), config.base_model_name_or_path
    weights = config.base_model_weights_sha256, provenance.get("base_model_weights_sha256")
    if found not in (None, named) and (None in weights or weights[0] != weights[1]):
        logger.warning(
            f"{data.source} is of {found}, but the model's base_model_name_or_path is {named}, which stays: train a "
            "new model, unless both name the same backbone."
        )
    # The data's revision belongs to the data's backbone, not to another one that the user named.
    if config.base_model_name_or_path == provenance.get("base_model_name_or_path"):
        config.base_model_revision = config.base_model_revision or provenance.get("base_model_revision")
        if provenance.get("base_model_dtype") == "float32":  # hashes of rounded weights would fit no other precision
            for name in ("base_model_weights_sha256", "base_model_processor_sha256"):
                setattr(config, name, getattr(config, name) or provenance.get(name))
    hook_point, named = provenance.get("hook_point", config.hook_point), config.hook_point
    if hook_point != named:
        logger.warning(f"{data.source} holds {hook_point}: the model's hook_point changes from {named} to this.")
        config.hook_point = hook_point
    config.validate_architecture()  # saving would refuse as well, but only after training


def check_evaluable(data: EmbeddingDataset) -> None:
    """Check rows before training that would stop the evaluation after it."""
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


def measure_data(trainer: MSAETrainer) -> EmbeddingStatistics:
    """Compute the statistics of the training data in the main process and share them."""

    def measure() -> EmbeddingStatistics:
        found = trainer.train_data.statistics(progress=not trainer.args.disable_tqdm)
        if trainer.eval_data is not None:
            check_evaluable(trainer.eval_data)
        return found

    return on_main_process(trainer.accelerator, measure)


def start(
    trainer: MSAETrainer, resume_from_checkpoint: str | Path | bool | None = None, keep_stopped: bool = False
) -> Path | None:
    """Set a trainer's state and prepare its output folder for a run; return the checkpoint to continue from, if any.

    The model gets the input statistics unless it has some. `resume_from_checkpoint` is as in [`MSAETrainer.train`];
    `keep_stopped` says whether a run that a callback stopped stays stopped when it is resumed.
    """
    resume_from = trainer.args.resume_from_checkpoint if resume_from_checkpoint is None else resume_from_checkpoint
    checkpoint = None
    if resume_from:
        checkpoint = on_main_process(trainer.accelerator, lambda: find_checkpoint(resume_from, trainer.output_dir))
    outside = checkpoint is None or checkpoint.parent.resolve() != trainer.output_dir.resolve()
    if outside:
        check_output_dir(trainer.output_dir, trainer.args.overwrite_output_dir)
    trainer.accelerator.wait_for_everyone()  # every process has checked the folder before the main one writes
    set_seed(trainer.args.seed)
    trainer.state = _new_state(trainer)
    if checkpoint is not None:
        trainer.state = _resumed_state(trainer, checkpoint)
        exhausted = is_exhausted(trainer.args, trainer.state)
        trainer.state.stopped = trainer.state.stopped and (keep_stopped or exhausted)
    if outside and trainer.accelerator.is_main_process:
        clear_output_dir(trainer.output_dir)
    trainer.output_dir.mkdir(parents=True, exist_ok=True)
    return checkpoint


def _new_state(trainer: MSAETrainer) -> TrainerState:
    model, args, plan = trainer.model, trainer.args, trainer.plan
    statistics = measure_data(trainer)
    if not model.input_mean.any() and model.input_scale == 1:
        model.set_input_statistics(statistics.mean, statistics.input_scale)
    arguments = {name: getattr(args, name) for name in NUMERIC_FIELDS}
    arguments["global_batch_size"] = plan.global_batch_size
    arguments["total_steps"] = trainer.total_steps
    arguments["shuffle_window_rows"] = plan.window_rows
    arguments["mixed_precision"] = trainer.mixed_precision
    data = {
        "num_rows": len(trainer.train_data),
        "width": trainer.train_data.width,
        "mean_squared_distance": float(statistics.mean_squared_distance),
    }
    own = [name for name in model.config.own_fields() if name not in PROVENANCE_FIELDS]
    run = {"arguments": arguments, "data": data, "model": {name: getattr(model.config, name) for name in own}}
    return TrainerState(num_processes=trainer.accelerator.num_processes, run=run)


def _resumed_state(trainer: MSAETrainer, checkpoint: Path) -> TrainerState:
    state = TrainerState.read(checkpoint)
    if differences := describe_differences(state.run, trainer.state.run):
        raise ValueError(
            f"{checkpoint} belongs to another run and cannot be resumed with these settings:\n  "
            + "\n  ".join(differences)
        )
    adopt_best(trainer.args, state, checkpoint)
    state.num_processes = trainer.accelerator.num_processes
    logger.info(f"Resuming from {checkpoint} at step {state.global_step} of {trainer.total_steps}.")
    return state
