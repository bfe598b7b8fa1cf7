"""The settings of a training run, named as in `transformers.TrainingArguments` where they mean the same."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

# What decides the numbers of a run. A resumed run must agree on these with the run it continues; everything else
# (logging, evaluation, saving, how a global batch is cut over processes and accumulation steps) may change.
NUMERIC_FIELDS = (
    "learning_rate",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "max_grad_norm",
    "warmup_steps",
    "lr_scheduler_type",
    "lr_decay_fraction",
    "auxiliary_k",
    "auxiliary_coefficient",
    "resample_steps",
    "dead_steps",
    "seed",
)

_SCHEDULES = ("warmup_stable_decay", "cosine", "linear", "constant_with_warmup")


@dataclass
class MSAETrainingArguments:
    """How [`MSAETrainer`] trains: batch sizes, optimiser, schedule, and what is logged, evaluated and saved when.

    The defaults are the hyper-parameters of the MSAE paper (arXiv 2502.20578): Adam at 1e-4 with epsilon 6.25e-10,
    30 epochs of batches of 4096, gradient norm clipped at 1, a constant learning rate that falls linearly to zero over
    the last fifth of the run. Every field is a flag of `hf-msae train`; its help text is in the field's
    metadata.

    Raises:
        ValueError: a value that cannot work, or two that contradict each other; names the field and the way out.
    """

    _argument_group_name: ClassVar[str] = "training"

    output_dir: str = field(
        metadata={"help": "Folder for the model, its checkpoints (checkpoint-STEP) and training_log.jsonl."}
    )
    overwrite_output_dir: bool = field(
        default=False,
        metadata={"help": "Start afresh in an output_dir that holds a run already; its checkpoints are deleted."},
    )
    resume_from_checkpoint: str | None = field(
        default=None,
        metadata={
            "help": "Continue a stopped run: 'last' for the newest complete checkpoint in output_dir, or a path."
        },
    )

    per_device_train_batch_size: int = field(
        default=4096,
        metadata={
            "help": "Embeddings per process and forward pass. An optimizer step sees this many times the number of "
            "processes times gradient_accumulation_steps. Lowered, with a warning, when the data holds fewer rows."
        },
    )
    per_device_eval_batch_size: int = field(
        default=4096, metadata={"help": "Embeddings per process and forward pass in evaluation; changes speed only."}
    )
    gradient_accumulation_steps: int = field(
        default=1, metadata={"help": "Forward passes whose gradients are averaged into one optimizer step."}
    )
    num_train_epochs: float = field(default=30.0, metadata={"help": "Passes over the training data."})
    max_steps: int = field(
        default=-1, metadata={"help": "Optimizer steps to train for; overrides num_train_epochs when above 0."}
    )

    learning_rate: float = field(default=1e-4, metadata={"help": "Adam's learning rate on the plateau."})
    warmup_steps: int = field(
        default=0, metadata={"help": "Optimizer steps over which the learning rate rises linearly from 0."}
    )
    lr_scheduler_type: Literal["warmup_stable_decay", "cosine", "linear", "constant_with_warmup"] = field(
        default="warmup_stable_decay",
        metadata={
            "help": "Course of the learning rate after its warm-up: a plateau, then a linear fall to 0 "
            "(warmup_stable_decay); a cosine or a line from there to 0; or a plateau to the end."
        },
    )
    lr_decay_fraction: float = field(
        default=0.2,
        metadata={
            "help": "Last part of the run, 0 to 1, over which the learning rate of warmup_stable_decay falls to 0."
        },
    )
    adam_beta1: float = field(default=0.9, metadata={"help": "Adam's decay of the gradient's running mean."})
    adam_beta2: float = field(default=0.999, metadata={"help": "Adam's decay of the squared gradient's running mean."})
    adam_epsilon: float = field(
        default=6.25e-10,
        metadata={"help": "Adam's epsilon. Small, since the gradients of rarely firing latents are."},
    )
    max_grad_norm: float = field(
        default=1.0, metadata={"help": "Gradients are scaled down to this joint norm; 0 leaves them as they are."}
    )
    auxiliary_k: int = field(
        default=0,
        metadata={
            "help": "Dead latents that learn to decode what the others leave over of an embedding (arXiv 2406.04093); "
            "0 leaves them alone. docs/training.md says when it helps."
        },
    )
    auxiliary_coefficient: float = field(
        default=1 / 32, metadata={"help": "Weight of that auxiliary loss beside the main one."}
    )
    resample_steps: int | None = field(
        default=None,
        metadata={
            "help": "Optimizer steps after which dead latents get the directions of badly reconstructed embeddings, "
            "again and again. Unset: never."
        },
    )
    dead_steps: int | None = field(
        default=None,
        metadata={"help": "Optimizer steps without firing that make a latent dead. Unset: those of an epoch."},
    )
    mixed_precision: Literal["no", "bf16", "fp16"] | None = field(
        default=None,
        metadata={
            "help": "Precision of the matrix products: no, bf16 or fp16; weights, optimizer and losses stay float32. "
            "Unset: what `accelerate launch` was told, otherwise no."
        },
    )
    seed: int = field(default=42, metadata={"help": "Seed of the weights and of the order of the training data."})

    logging_steps: int = field(
        default=50, metadata={"help": "Optimizer steps between two records of the log; the first and last are logged."}
    )
    eval_strategy: Literal["no", "steps", "epoch"] | None = field(
        default=None,
        metadata={
            "help": "Evaluate during training: no, every eval_steps steps, or after every epoch. Unset: steps where "
            "eval_steps is given, otherwise no."
        },
    )
    eval_steps: int | None = field(
        default=None,
        metadata={"help": "Optimizer steps between two evaluations. Unset: logging_steps, with eval_strategy steps."},
    )
    save_strategy: Literal["no", "steps", "epoch"] | None = field(
        default=None,
        metadata={
            "help": "Save checkpoints: no, every save_steps steps, or after every epoch; unless no, the end of the "
            "run saves one too. An interruption always does. Unset: steps."
        },
    )
    save_steps: int | None = field(
        default=None,
        metadata={"help": "Optimizer steps between two checkpoints. Unset: 500, with save_strategy steps."},
    )
    save_total_limit: int | None = field(
        default=2, metadata={"help": "Checkpoints kept; the oldest are deleted. null in YAML keeps them all."}
    )
    cknna_batch_size: int = field(
        default=1024, metadata={"help": "Rows per batch of the CKNNA metric, whose value depends on it."}
    )

    memory_budget: float | None = field(
        default=None,
        metadata={
            "help": "GB of training data to shuffle at a time. Larger data is shuffled by blocks of rows, within "
            "windows of this size, instead of being read from all over the disk. Unset: the machine's memory."
        },
    )
    keep_on_device: bool | None = field(
        default=None,
        metadata={
            "help": "Hold the training data on the GPU and take batches from there. Unset: where it fills less than "
            "half of the GPU's free memory."
        },
    )
    torch_compile: bool = field(
        default=False,
        metadata={
            "help": "Compile the forward pass with torch.compile, for GPUs. On a CPU in float32 the built-in fused "
            "computation is faster, and would not be used."
        },
    )
    use_cpu: bool = field(default=False, metadata={"help": "Train on the CPU where there is an accelerator too."})
    dataloader_num_workers: int = field(
        default=0, metadata={"help": "Processes that read batches ahead; 0 reads them in the training process."}
    )
    report_to: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Trackers that get every record of the log besides training_log.jsonl: tensorboard, trackio, "
            "wandb, or another that Accelerate knows. Each has to be installed."
        },
    )
    disable_tqdm: bool = field(default=False, metadata={"help": "No progress bars."})

    def __post_init__(self):
        for name in (
            "per_device_train_batch_size",
            "per_device_eval_batch_size",
            "gradient_accumulation_steps",
            "num_train_epochs",
            "learning_rate",
            "adam_epsilon",
            "logging_steps",
            "eval_steps",
            "save_steps",
            "save_total_limit",
            "memory_budget",
            "resample_steps",
            "dead_steps",
        ):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name} is {value}, but has to be above 0")
        for name in (
            "warmup_steps",
            "max_grad_norm",
            "seed",
            "dataloader_num_workers",
            "auxiliary_k",
            "auxiliary_coefficient",
        ):
            if not (getattr(self, name) >= 0 and math.isfinite(getattr(self, name))):
                raise ValueError(f"{name} is {getattr(self, name)}, but has to be 0 or above")
        for name in ("adam_beta1", "adam_beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, but has to lie between 0 and 1, 1 excluded")
        if not 0 <= self.lr_decay_fraction <= 1:
            raise ValueError(f"lr_decay_fraction is {self.lr_decay_fraction}, but has to lie between 0 and 1")
        if self.lr_scheduler_type not in _SCHEDULES:
            raise ValueError(f"lr_scheduler_type is {self.lr_scheduler_type!r}; choose one of {', '.join(_SCHEDULES)}")
        if self.max_steps == 0 or self.max_steps < -1:
            raise ValueError(
                f"max_steps is {self.max_steps}; give a number above 0, or -1 for num_train_epochs to count"
            )
        if self.cknna_batch_size < 11:
            raise ValueError(
                f"cknna_batch_size is {self.cknna_batch_size}, but CKNNA compares 10 neighbours and needs batches of "
                f"at least 11 rows"
            )
        if not str(self.output_dir).strip():
            raise ValueError("output_dir is empty; name the folder that the model and its checkpoints go to")
        if self.mixed_precision not in (None, "no", "bf16", "fp16"):
            raise ValueError(f"mixed_precision is {self.mixed_precision!r}; choose no, bf16 or fp16")
        self._settle("eval", strategy="no", steps=self.logging_steps)
        self._settle("save", strategy="steps", steps=500)

    def _settle(self, event: str, strategy: str, steps: int) -> None:
        """Fill in `<event>_strategy` and `<event>_steps`, and see to it that neither is silently without effect."""
        given_strategy, given_steps = getattr(self, f"{event}_strategy"), getattr(self, f"{event}_steps")
        if given_strategy not in (None, "no", "steps", "epoch"):
            raise ValueError(f"{event}_strategy is {given_strategy!r}; choose no, steps or epoch")
        if given_steps is not None and given_strategy in ("no", "epoch"):
            raise ValueError(
                f"{event}_strategy is {given_strategy}, but {event}_steps is {given_steps}: leave one of the two out, "
                f"or set {event}_strategy to steps"
            )
        strategy = given_strategy or (strategy if given_steps is None else "steps")
        setattr(self, f"{event}_strategy", strategy)
        setattr(self, f"{event}_steps", (given_steps or steps) if strategy == "steps" else None)

    def is_due(self, event: Literal["eval", "save"], step: int, steps_per_epoch: int) -> bool:
        """Whether `event` falls on optimizer step number `step` (1 is the first)."""
        strategy = getattr(self, f"{event}_strategy")
        if strategy == "no":
            return False
        return step % (steps_per_epoch if strategy == "epoch" else getattr(self, f"{event}_steps")) == 0

    def total_steps(self, steps_per_epoch: int) -> int:
        """Optimizer steps of the whole run; a started epoch part counts as a whole step."""
        if self.max_steps > 0:
            return self.max_steps
        # The rounding forgives what floating point adds: 0.1 epochs of 30 steps are 3 steps, not 4.
        return max(1, math.ceil(round(self.num_train_epochs * steps_per_epoch, 6)))

    def to_dict(self) -> dict[str, Any]:
        """All fields, as JSON can hold them."""
        return asdict(self)
