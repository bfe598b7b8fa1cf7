"""Several models trained in one pass over the data: `--sweep` of training/train_msae.py."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml
from accelerate.logging import get_logger
from sklearn.model_selection import ParameterGrid

from .arguments import ModelArguments
from .checkpointing import list_checkpoints
from .configuration_msae import MSAEConfig
from .trainer import MSAETrainer
from .training_args import MSAETrainingArguments
from .training_log import TrainingResult
from .training_loop import train_together
from .training_run import TrainingRun

logger = get_logger(__name__)

MODEL_FIELDS = tuple(name for name in MSAEConfig.own_fields() if name not in ("d_in", "hook_point"))
TRAINING_FIELDS = (
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
)
"""Training arguments that models of one sweep may differ in: those that leave the order of the data as it is."""


def read_sweep(file: str | Path) -> dict[str, dict[str, Any]]:
    """
    The variants that a YAML file describes.

    Args:
        file: a mapping from names to settings, `wide: {num_latents: 4096}`; or a grid, a mapping from settings to
            lists of values, `num_latents: [1024, 4096]`, of which every combination is a variant.

    Returns:
        Settings by name. In a grid the name says the values: "num_latents=1024,nesting_weights=reverse".

    Raises:
        ValueError: the file is neither, a setting is unknown or cannot differ between the models of a sweep, or two
            variants are equal.
    """
    file = Path(file)
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(found, dict) or not found:
        raise ValueError(
            f"{file} has to map names to settings (wide: {{num_latents: 4096}}) or settings to lists of values "
            f"(num_latents: [1024, 4096]), but holds {type(found).__name__}"
        )
    if all(isinstance(values, list) for values in found.values()):
        _check_names(file, found)
        if empty := [name for name, values in found.items() if not values]:
            raise ValueError(f"{file}: {empty[0]} lists no value")
        grid = list(ParameterGrid(found))
        variants = {",".join(f"{name}={_word(value)}" for name, value in each.items()): each for each in grid}
        if len(variants) < len(grid):
            raise ValueError(f"{file} lists a value twice")
        return variants
    for name, settings in found.items():
        if not isinstance(settings, dict):
            raise ValueError(
                f"{file}: {name} is {settings!r}: write settings ({{num_latents: 4096}}), or lists of values for all"
            )
        if not re.fullmatch(r"[\w.,=+-]+", str(name)) or str(name).strip(".") == "":
            raise ValueError(f"{file}: {name!r} names a folder; use letters, digits and . , = + - _ alone")
        _check_names(file, settings)
    return {str(name): settings for name, settings in found.items()}


def _check_names(file: Path, settings: Mapping[str, Any]) -> None:
    for name in settings:
        if name not in MODEL_FIELDS + TRAINING_FIELDS:
            raise ValueError(
                f"{file}: models of one sweep cannot differ in {name!r}, but in {', '.join(MODEL_FIELDS)} (the model) "
                f"and {', '.join(TRAINING_FIELDS)} (its training)"
            )


def _word(value: Any) -> str:
    """A value as part of a folder's name."""
    words = value if isinstance(value, list) else [value]
    return re.sub(r"[^\w.+-]", "_", "-".join(map(str, words)))


def variant_arguments(
    model_args: Any, training_args: MSAETrainingArguments, name: str, settings: Mapping[str, Any]
) -> tuple[Any, MSAETrainingArguments]:
    """
    The arguments of one variant: its settings beat the common ones, and its folder lies in theirs.

    Raises:
        ValueError: a value that its setting does not take; names the variant.
    """
    changed: tuple[dict, dict] = ({}, {"output_dir": str(Path(training_args.output_dir) / name)})
    kinds = get_type_hints(ModelArguments) | get_type_hints(MSAETrainingArguments)
    for key, value in settings.items():
        if isinstance(value, str) and float in (kinds[key], *get_args(kinds[key])):
            try:
                value = float(value)  # 1e-4, which YAML reads as a word
            except ValueError:
                pass  # reverse, say
        if key == "nesting_weights":  # as the command line gives them
            value = [str(weight) for weight in (value if isinstance(value, list) else [value])]
        changed[key in TRAINING_FIELDS][key] = value
    try:
        return dataclasses.replace(model_args, **changed[0]), dataclasses.replace(training_args, **changed[1])
    except (TypeError, ValueError) as error:
        raise ValueError(f"the sweep's {name}: {error}") from None


def train_sweep(
    trainers: Sequence[MSAETrainer], resume_from_checkpoint: str | bool | None = None
) -> list[TrainingResult | FloatingPointError]:
    """
    Train the models of several trainers on the same batches, each of which is read once. Every model ends as if its
    trainer had been used alone.

    Args:
        trainers: with the same data, batches, steps and processes, in folders of their own.
        resume_from_checkpoint: "last" for the last step of which every trainer has a checkpoint.

    Returns:
        The result of each trainer; or the error that ended it, where its loss has diverged.

    Raises:
        ValueError: trainers do not read the same batches.
        FileNotFoundError: there is no step of which every trainer has a checkpoint.
        Others, as [`MSAETrainer.train`].
    """
    first = trainers[0]
    for other in trainers[1:]:
        if (other.plan, other.total_steps) != (first.plan, first.total_steps) or (
            other.train_data is not first.train_data
        ):
            raise ValueError(
                "the trainers of a sweep have to read the same batches: give them the same data, seed, batch sizes "
                "and number of steps"
            )
    if resume_from_checkpoint:
        if str(resume_from_checkpoint).lower() not in ("last", "true"):
            raise ValueError(f"a sweep can resume from 'last' alone, not from {resume_from_checkpoint!r}")
        checkpoints = _newest_common([trainer.output_dir for trainer in trainers])
    else:
        checkpoints = [None] * len(trainers)
    runs = []
    for trainer, checkpoint in zip(trainers, checkpoints, strict=True):
        runs.append(TrainingRun(trainer, trainer._begin(checkpoint or False), progress=trainer is first))
    results = train_together(runs, survive_failures=len(trainers) > 1)
    for trainer, result in zip(trainers, results, strict=True):
        if isinstance(result, FloatingPointError):
            logger.warning(f"{trainer.output_dir}: {result}")
    return results


def _newest_common(folders: Sequence[Path]) -> list[Path]:
    """Of the last step that all folders have a checkpoint of: a sweep may be killed between two of them."""
    checkpoints = [{path.name: path for path in list_checkpoints(folder)} for folder in folders]
    common = set.intersection(*map(set, checkpoints))
    if not common:
        pairs = zip(folders, checkpoints, strict=True)
        have = "; ".join(f"{folder}: {', '.join(found) or 'none'}" for folder, found in pairs)
        raise FileNotFoundError(f"there is no step of which every model of the sweep has a checkpoint ({have})")
    name = max(common, key=lambda name: int(name.split("-")[1]))
    return [found[name] for found in checkpoints]
