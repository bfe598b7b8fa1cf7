"""Several models trained in one pass over the data: `hf-msae train --sweep`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from sklearn.model_selection import ParameterGrid

from .._utils.acceleration import main_process_logger, on_main_process
from .._utils.argument_parser import MSAEArgumentParser
from ..model.configuration_msae import MSAEConfig
from .arguments import NUMERIC_FIELDS, MSAETrainingArguments
from .checkpointing import (
    WEIGHTS_FILE,
    TrainerState,
    check_output_dir,
    clear_output_dir,
    list_checkpoints,
    read_failure,
)
from .log import LOG_FILE, TrainingResult
from .loop import train_together
from .resuming import find_damage, set_aside
from .run import TrainingRun
from .start import start
from .trainer import MSAETrainer

logger = main_process_logger(__name__)

MODEL_FIELDS = tuple(name for name in MSAEConfig.own_fields() if name not in ("d_in", "hook_point"))
TRAINING_FIELDS = tuple(name for name in NUMERIC_FIELDS if name != "seed")
"""Training arguments in which the models of a sweep may differ; they leave the order of the data unchanged."""


def read_sweep(file: str | Path) -> dict[str, dict[str, Any]]:
    """Read the variants that a YAML file describes: settings by name.

    The file maps names to settings, `wide: {num_latents: 4096}`, or it is a grid, which maps settings to lists of
    values, `num_latents: [1024, 4096]`, and whose combinations are called "num_latents=1024,nesting_weights=reverse".
    """
    file = Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"there is no sweep file {file}: give a YAML file that maps names to settings")
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
        for name in ("nesting_ks", "nesting_widths"):
            if any(not isinstance(value, list) for value in found.get(name, [])):
                raise ValueError(f"{file}: in a grid every value of {name} is a list itself: [[4, 8, 64], [8, 64]]")
        if empty := [name for name, values in found.items() if not values]:
            raise ValueError(f"{file}: {empty[0]} lists no value")
        grid = list(ParameterGrid(found))
        variants = {",".join(f"{name}={_word(value)}" for name, value in each.items()): each for each in grid}
        if len(variants) < len(grid):
            raise ValueError(f"{file} lists a value twice")
        return variants
    for name, settings in found.items():
        if not isinstance(settings, dict):
            raise ValueError(f"{file}: {name} is {settings!r}, not settings such as {{num_latents: 4096}}")
        if not re.fullmatch(r"[\w.,=+-]+", str(name)) or str(name).strip(".") == "":
            raise ValueError(f"{file}: {name!r} becomes a folder name: use only letters, digits and . , = + - _")
        _check_names(file, settings)
    return {str(name): settings for name, settings in found.items()}


def _check_names(file: Path, settings: Mapping[str, Any]) -> None:
    for name in settings:
        if name not in MODEL_FIELDS + TRAINING_FIELDS:
            raise ValueError(
                f"{file}: models of one sweep cannot differ in {name!r}, only in "
                f"{', '.join(MODEL_FIELDS + TRAINING_FIELDS)}"
            )


def _word(value: Any) -> str:
    """Spell a value as part of a folder name."""
    words = value if isinstance(value, list) else [value]
    return re.sub(r"[^\w.+-]", "_", "-".join(map(str, words)))


def parse_variant(
    parser: MSAEArgumentParser, argv: Sequence[str] | None, name: str, settings: Mapping[str, Any]
) -> tuple[Any, ...]:
    """Parse the command line `argv` with the settings of one variant, whose folder is inside the output folder.

    Invalid values end the process with a message that names the variant.
    """
    parser.context = f"the sweep's {name}: "
    parsed = parser.parse(argv, settings)
    parser.context = ""
    for arguments in parsed:
        if isinstance(arguments, MSAETrainingArguments):
            arguments.output_dir = str(Path(arguments.output_dir) / name)
    return parsed


def train_sweep(
    trainers: Sequence[MSAETrainer], resume_from_checkpoint: str | bool | None = None
) -> list[TrainingResult | FloatingPointError]:
    """Train the models of several trainers on the same batches, reading each batch once.

    Every model ends as if it had been trained alone. The trainers have the same data, batches, steps and processes,
    each its own output folder and accelerator. "last" resumes from the last step of which every trainer has a
    checkpoint; the sweep begins again if it ended before each had saved one. Returns each result, or the error that
    ended it if its loss diverged.
    """
    if not trainers:
        raise ValueError("a sweep needs at least one trainer")
    first = trainers[0]
    if len({trainer.output_dir.resolve() for trainer in trainers}) < len(trainers):
        raise ValueError("two trainers of the sweep have the same output_dir: give each its own")
    if len({id(trainer.accelerator) for trainer in trainers}) < len(trainers):
        # A checkpoint holds all that its accelerator has prepared: the weights of one model for both.
        raise ValueError("two trainers of the sweep have the same accelerator: give each its own, or none")
    for other in trainers[1:]:
        if (other.plan, other.total_steps) != (first.plan, first.total_steps) or (
            other.train_data is not first.train_data
        ):
            raise ValueError(
                "the trainers of a sweep must read the same batches: give them the same data, seed, batch sizes and "
                "number of steps"
            )
    failures: dict[MSAETrainer, FloatingPointError] = {}
    checkpoints: dict[MSAETrainer, Path | None] = {}
    if resume_from_checkpoint:
        if str(resume_from_checkpoint).lower() not in ("last", "true"):
            raise ValueError(f"a sweep can only resume from 'last', not from {resume_from_checkpoint!r}")
        failures = {trainer: error for trainer in trainers if (error := read_failure(trainer.output_dir))}
        going_on = [trainer for trainer in trainers if trainer not in failures]
        found = on_main_process(first.accelerator, lambda: _newest_common(going_on))
        checkpoints = dict(zip(going_on, found, strict=True))
    else:
        for trainer in trainers:  # all, before the first one clears its folder
            check_output_dir(trainer.output_dir, trainer.args.overwrite_output_dir)
    runs = {}
    for trainer in trainers:
        if trainer not in failures:
            checkpoint = start(trainer, checkpoints.get(trainer) or False, keep_stopped=True)
            runs[trainer] = TrainingRun(trainer, checkpoint, progress=not runs)
    results = train_together(list(runs.values()), survive_failures=len(trainers) > 1) if runs else []
    ended = {**failures, **dict(zip(runs, results, strict=True))}
    for trainer, result in ended.items():
        if isinstance(result, FloatingPointError):
            logger.warning(f"{trainer.output_dir}: {result}")
        else:
            trainer.result = result
    return [ended[trainer] for trainer in trainers]


def _newest_common(trainers: Sequence[MSAETrainer]) -> list[Path | None]:
    """Find the checkpoint from which each trainer continues, or None where it begins again.

    For trainers that a callback stopped, this is their last checkpoint; for the others, it is the last step of which
    all have a checkpoint, since a sweep may be killed while it saves. Damaged ones are set aside.
    """
    damaged = {
        path: damage
        for each in trainers
        for path in list_checkpoints(each.output_dir)
        if (damage := find_damage(path))
    }
    set_aside(damaged)
    checkpoints = {trainer: {path.name: path for path in list_checkpoints(trainer.output_dir)} for trainer in trainers}
    newest = {trainer: list(found.values())[-1] for trainer, found in checkpoints.items() if found}
    stopped = {trainer: path for trainer, path in newest.items() if TrainerState.read(path).stopped}
    others = {trainer: found for trainer, found in checkpoints.items() if trainer not in stopped}
    common = set.intersection(*map(set, others.values())) if others else set()
    if others and not common:
        have = "; ".join(f"{each.output_dir}: {', '.join(found) or 'none'}" for each, found in checkpoints.items())
        # Nothing is lost if the sweep was killed while it saved its first checkpoints, and only then.
        begun = all(found or (trainer.output_dir / LOG_FILE).exists() for trainer, found in checkpoints.items())
        finished = any((trainer.output_dir / WEIGHTS_FILE).exists() for trainer in trainers)
        first = begun and not damaged and not finished and max(map(len, checkpoints.values())) == 1
        if not newest or all(others.values()) or not first:
            raise FileNotFoundError(
                f"no step has a checkpoint of every model of the sweep ({have}): start again with "
                "--overwrite_output_dir"
            )
        logger.warning(f"The sweep ended before every model had a checkpoint, so training begins again ({have}).")
        for trainer in others:
            clear_output_dir(trainer.output_dir)
    name = max(common, key=lambda name: int(name.split("-")[1]), default="")
    return [stopped.get(trainer) or others[trainer].get(name) for trainer in trainers]
