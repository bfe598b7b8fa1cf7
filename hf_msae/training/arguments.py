"""The settings of a training run, named as in `transformers.TrainingArguments` where they mean the same."""

from __future__ import annotations

import math
import os
from argparse import ArgumentTypeError
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal, get_args

from transformers.hf_argparser import string_to_bool

from .._utils.argument_parser import flag

# Fields that determine the numbers of a run. A resumed run must agree with the checkpoint on these; everything else
# (logging, evaluation, saving, how a global batch is divided among processes and accumulation steps) may change.
NUMERIC_FIELDS = (
    *("learning_rate", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm"),
    *("warmup_steps", "lr_scheduler_type", "lr_decay_fraction"),
    *("auxiliary_k", "auxiliary_coefficient", "resample_steps", "dead_steps", "seed"),
)
_POSITIVE = (
    *("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"),
    *("num_train_epochs", "learning_rate", "adam_epsilon", "logging_steps", "eval_steps", "save_steps"),
    *("save_total_limit", "memory_budget", "resample_steps", "dead_steps", "early_stopping_patience"),
)
_NOT_NEGATIVE = (
    "warmup_steps",
    "max_grad_norm",
    "seed",
    "dataloader_num_workers",
    "auxiliary_k",
    "auxiliary_coefficient",
    "early_stopping_threshold",
)
_PATIENCE = 3  # of early_stopping
# Metrics that may choose the best evaluation -> whether a greater value is better.
_BEST_METRICS = {
    **dict.fromkeys(("fvu", "fvu_per_sample", "normalized_mae"), False),
    **dict.fromkeys(("cosine_similarity", "cosine_similarity_centered", "cknna", "cknna_reconstruction"), True),
}

_Schedule = Literal["warmup_stable_decay", "cosine", "linear", "constant_with_warmup"]
_Strategy = Literal["no", "steps", "epoch"]
_Precision = Literal["no", "bf16", "fp16"]
_CHOICES = {
    "lr_scheduler_type": get_args(_Schedule),
    "mixed_precision": (None, *get_args(_Precision)),
    "eval_strategy": (None, *get_args(_Strategy)),
    "save_strategy": (None, *get_args(_Strategy)),
    "metric_for_best_model": tuple(_BEST_METRICS),
}


@dataclass
class MSAETrainingArguments:
    """Arguments of [`MSAETrainer`]: batch sizes, optimizer, schedule, and when to log, evaluate and save.

    The defaults are the hyperparameters of the MSAE paper (arXiv 2502.20578): Adam at 1e-4 with epsilon 6.25e-10,
    30 epochs of batches of 4096, gradient norm clipped at 1, and a constant learning rate that decays linearly to 0 in
    the last fifth of the run. Every field is a flag of `hf-msae train`, whose help text is in the field's metadata.

    Raises:
        ValueError: A value is invalid, or two contradict each other.
    """

    _argument_group_name: ClassVar[str] = "training"

    output_dir: str = flag("Folder for the model, its checkpoints (checkpoint-STEP) and training_log.jsonl.")
    overwrite_output_dir: bool = flag("Replace a run in output_dir, and delete its checkpoints.", False)
    resume_from_checkpoint: str | None = flag(
        "Checkpoint to resume from: its folder, or 'last' for the newest complete one in output_dir.", None
    )

    per_device_train_batch_size: int = flag(
        "Embeddings per process and forward pass in training. An optimizer step uses this many times the number of "
        "processes times gradient_accumulation_steps. Reduced, with a warning, if the data has fewer rows.",
        4096,
    )
    per_device_eval_batch_size: int = flag(
        "Embeddings per process and forward pass in evaluation; affects speed only.", 4096
    )
    gradient_accumulation_steps: int = flag("Forward passes to accumulate gradients over per optimizer step.", 1)
    num_train_epochs: float = flag("Passes over the training data.", 30.0)
    max_steps: int = flag("Number of optimizer steps; overrides num_train_epochs if above 0.", -1)

    learning_rate: float = flag("Peak learning rate of Adam.", 1e-4)
    warmup_steps: int = flag("Optimizer steps over which the learning rate rises linearly from 0.", 0)
    lr_scheduler_type: _Schedule = flag(
        "Learning rate after the warmup: constant, then a linear decay to 0 (warmup_stable_decay); a cosine or linear "
        "decay to 0; or constant to the end.",
        "warmup_stable_decay",
    )
    lr_decay_fraction: float = flag(
        "Fraction of the run, at its end, over which the learning rate of warmup_stable_decay decays to 0.", 0.2
    )
    adam_beta1: float = flag("Adam's decay rate of the running mean of the gradient.", 0.9)
    adam_beta2: float = flag("Adam's decay rate of the running mean of the squared gradient.", 0.999)
    adam_epsilon: float = flag(
        "Adam's epsilon; small, because latents that rarely fire have small gradients.", 6.25e-10
    )
    max_grad_norm: float = flag("Largest norm of the gradient of all parameters; 0 turns clipping off.", 1.0)
    auxiliary_k: int = flag(
        "Number of dead latents per embedding that learn to decode its residual (arXiv 2406.04093); 0 turns this off. "
        "docs/training.md says when it helps.",
        0,
    )
    auxiliary_coefficient: float = flag("Weight of the auxiliary loss of auxiliary_k.", 1 / 32)
    resample_steps: int | None = flag(
        "Optimizer steps between resets of dead latents to the directions of badly reconstructed embeddings. "
        "Defaults to no resets.",
        None,
    )
    dead_steps: int | None = flag(
        "Optimizer steps without firing after which a latent counts as dead. Defaults to one epoch.", None
    )
    mixed_precision: _Precision | None = flag(
        "Precision of matrix products: no, bf16 or fp16; weights, optimizer and losses stay float32. Defaults to the "
        "precision given to `accelerate launch`, otherwise no.",
        None,
    )
    seed: int = flag("Random seed of the weights and of the order of the training data.", 42)

    logging_steps: int = flag("Optimizer steps between log records; the first and last step are always logged.", 50)
    eval_strategy: _Strategy | None = flag(
        "When to evaluate during training: no, every eval_steps steps, or every epoch. Defaults to steps if "
        "eval_steps is given, to epoch with early_stopping_patience or load_best_model_at_end, otherwise no.",
        None,
    )
    eval_steps: int | None = flag(
        "Optimizer steps between evaluations. Defaults to logging_steps, if eval_strategy is steps.", None
    )
    early_stopping: bool = flag(
        f"Stop training when evaluations no longer improve: short for an early_stopping_patience of {_PATIENCE}.",
        False,
    )
    early_stopping_patience: int | None = flag(
        "Evaluations without an improvement after which training stops. Defaults to training all steps.", None
    )
    early_stopping_threshold: float = flag(
        "Change of metric_for_best_model that an evaluation must exceed to count as an improvement for "
        "early_stopping_patience.",
        0.0,
    )
    load_best_model_at_end: bool | None = flag(
        "Keep the weights of the best evaluation instead of the last ones. The last step is evaluated too. Defaults "
        "to true with early_stopping_patience.",
        None,
    )
    metric_for_best_model: str = flag(f"Metric that selects the best evaluation: {', '.join(_BEST_METRICS)}.", "fvu")
    save_strategy: _Strategy | None = flag(
        "When to save checkpoints: no, every save_steps steps, or every epoch; the last two also save the last step. "
        "An interruption always saves one. Defaults to steps.",
        None,
    )
    save_steps: int | None = flag(
        "Optimizer steps between checkpoints. Defaults to 500, if save_strategy is steps.", None
    )
    save_total_limit: int | None = flag(
        "Number of checkpoints to keep; the oldest are deleted. null in YAML keeps all.", 2
    )
    cknna_batch_size: int = flag("Rows per batch of the CKNNA metric, whose value depends on it.", 1024)

    memory_budget: float | None = flag(
        "GB of training data to shuffle at a time. Larger data is shuffled in blocks of rows within windows of this "
        "size. Defaults to the memory of the machine.",
        None,
    )
    keep_on_device: bool | None = flag(
        "Keep the training data in GPU memory. Defaults to true if it takes less than half of the free GPU memory.",
        None,
    )
    torch_compile: bool = flag(
        "Compile the forward pass with torch.compile, for GPUs. It replaces the built-in fused computation on a CPU, "
        "which is faster.",
        False,
    )
    use_cpu: bool = flag("Use the CPU even if there is a GPU.", False)
    dataloader_num_workers: int = flag("Processes that read batches ahead; 0 reads in the training process.", 0)
    report_to: list[str] = flag(
        "Trackers to log to besides training_log.jsonl: tensorboard, trackio, wandb or others of Accelerate, which "
        "must be installed.",
        [],
    )
    disable_tqdm: bool = flag("Hide the progress bars, which are only shown on a terminal.", False)

    def __post_init__(self):
        # Not the types of the fields, which HfArgumentParser changes.
        kinds = MSAETrainingArguments.__annotations__
        for name in (each.name for each in fields(self)):
            setattr(self, name, _plain(name, getattr(self, name), kinds.get(name, "").removesuffix(" | None")))
        report_to = [self.report_to] if isinstance(self.report_to, str) else list(self.report_to or ())
        self.report_to = [] if report_to == ["none"] else report_to  # as in transformers
        optional = {name for name, kind in kinds.items() if "None" in kind}
        for names, holds, wanted in (
            (_POSITIVE, lambda value: value > 0, "above 0"),
            (_NOT_NEGATIVE, lambda value: value >= 0, "0 or above"),
            (("adam_beta1", "adam_beta2"), lambda value: 0 <= value < 1, "between 0 and 1, 1 excluded"),
            (("lr_decay_fraction",), lambda value: 0 <= value <= 1, "between 0 and 1"),
            (("max_steps",), lambda value: value > 0 or value == -1, "above 0, or -1 for num_train_epochs"),
            (("cknna_batch_size",), lambda value: value >= 11, "at least 11, since CKNNA compares 10 neighbors"),
        ):
            for name in names:
                value = getattr(self, name)
                if value is None and name in optional:
                    continue
                if value is None or not (math.isfinite(value) and holds(value)):
                    raise ValueError(f"{name} must be {wanted}, got {value}")
        self.metric_for_best_model = self.metric_for_best_model.removeprefix("eval_")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                known = ", ".join(filter(None, choices))
                raise ValueError(f"{name} must be one of {known}, got {getattr(self, name)!r}")
        if not str(self.output_dir).strip():
            raise ValueError("output_dir is empty: name the folder for the model and its checkpoints")
        self.output_dir = os.path.expanduser(self.output_dir)
        if self.early_stopping and self.early_stopping_patience is None:
            self.early_stopping_patience = _PATIENCE
        if self.load_best_model_at_end is None:
            self.load_best_model_at_end = self.early_stopping_patience is not None
        if self.chooses_best and self.eval_strategy == "no":
            asking = "early_stopping_patience" if self.early_stopping_patience else "load_best_model_at_end"
            raise ValueError(f"{asking} needs evaluations, but eval_strategy is no: set it to steps or epoch")
        self._settle("eval", strategy="epoch" if self.chooses_best else "no", steps=self.logging_steps)
        self._settle("save", strategy="steps", steps=500)

    def _settle(self, event: str, strategy: str, steps: int) -> None:
        """Fill in the defaults of `<event>_strategy` and `<event>_steps`, and refuse the latter without effect."""
        given_strategy, given_steps = getattr(self, f"{event}_strategy"), getattr(self, f"{event}_steps")
        if given_steps is not None and given_strategy in ("no", "epoch"):
            raise ValueError(
                f"{event}_strategy is {given_strategy}, but {event}_steps is {given_steps}: leave one of the two out, "
                f"or set {event}_strategy to steps"
            )
        strategy = given_strategy or (strategy if given_steps is None else "steps")
        setattr(self, f"{event}_strategy", strategy)
        setattr(self, f"{event}_steps", (given_steps or steps) if strategy == "steps" else None)

    @property
    def chooses_best(self) -> bool:
        """Whether evaluations are compared to find the best one."""
        return bool(self.early_stopping_patience or self.load_best_model_at_end)

    @property
    def greater_is_better(self) -> bool:
        """Whether a greater value of `metric_for_best_model` is better."""
        return _BEST_METRICS[self.metric_for_best_model]

    def is_due(self, event: Literal["eval", "save"], step: int, steps_per_epoch: int) -> bool:
        """Return whether to evaluate or save after optimizer step number `step` (1 is the first)."""
        strategy = getattr(self, f"{event}_strategy")
        if strategy == "no":
            return False
        return step % (steps_per_epoch if strategy == "epoch" else getattr(self, f"{event}_steps")) == 0

    def total_steps(self, steps_per_epoch: int) -> int:
        """Return the number of optimizer steps of the run, rounded up."""
        if self.max_steps > 0:
            return self.max_steps
        # Rounding first undoes floating-point errors: 0.1 epochs of 30 steps are 3 steps, not 4.
        return max(1, math.ceil(round(self.num_train_epochs * steps_per_epoch, 6)))

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, as values that JSON can hold."""
        return asdict(self)


def _plain(name: str, value: Any, kind: str) -> Any:
    """Return a number of numpy or torch, a path or a text as what JSON, of checkpoints and training.json, can hold."""
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if kind == "bool" and isinstance(value, str):  # "false" is true to Python
        try:
            return string_to_bool(value)
        except ArgumentTypeError:
            raise ValueError(f"{name} must be True or False, got {value!r}") from None
    if kind not in ("int", "float") or value is None or isinstance(value, int):
        return value
    try:
        number = float(value)  # YAML takes 1e-4 for a string
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be a number, got {value!r}") from None
    if kind == "float" or not math.isfinite(number):
        return number
    if not number.is_integer():  # a share of all steps in transformers
        raise ValueError(f"{name} must be a whole number, got {value}")
    return int(number)
