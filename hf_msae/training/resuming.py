"""Where a run is resumed from: the newest checkpoint that is whole, and whether it belongs to the same run."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .._utils.acceleration import main_process_logger
from .._utils.atomic import remove
from .._utils.file_integrity import sha256_of
from .checkpointing import DAMAGED, STATE_FILE, TrainerState, list_checkpoints

logger = main_process_logger(__name__)


def find_checkpoint(resume_from: str | Path, output_dir: Path) -> Path:
    """Find the checkpoint to resume from: the given folder, or for "last" or "true" the newest in `output_dir`.

    Newer ones in `output_dir` that are damaged are set aside with a warning.
    """
    if str(resume_from).lower() in ("last", "true"):
        checkpoints = list_checkpoints(output_dir)
        if not checkpoints:
            raise FileNotFoundError(
                f"{output_dir} holds no complete checkpoint to resume from: leave out resume_from_checkpoint to start "
                f"a new run"
            )
        problems = {}
        for checkpoint in reversed(checkpoints):
            problem = find_damage(checkpoint)
            if problem is None:
                set_aside(problems)
                return checkpoint
            problems[checkpoint] = problem
        raise ValueError(
            f"no checkpoint in {output_dir} can be continued: {'; '.join(problems.values())}. Start again with "
            "--overwrite_output_dir"
        )
    path = Path(os.path.abspath(Path(resume_from).expanduser()))  # which has a parent, unlike "."
    if not (path / STATE_FILE).is_file():
        complete = ", ".join(checkpoint.name for checkpoint in list_checkpoints(output_dir))
        raise FileNotFoundError(
            f"resume_from_checkpoint is {str(resume_from)!r}, which is not a checkpoint folder (it has no "
            f"{STATE_FILE}); complete checkpoints in {output_dir}: {complete or 'none'}"
        )
    if problem := find_damage(path):
        raise ValueError(f"resume_from_checkpoint is {str(resume_from)!r}, but {problem}: name another checkpoint")
    return path


def find_damage(checkpoint: Path) -> str | None:
    """Describe the first damaged file of a checkpoint; None if the checkpoint is whole."""
    try:
        state = TrainerState.read(checkpoint)
    except ValueError as error:
        return str(error)
    for name, sha256 in state.files.items():
        file = checkpoint / name
        if not file.is_file():
            return f"{file} is missing"
        if sha256_of(file) != sha256:
            return f"{file} has changed since it was written"
    return None


def set_aside(problems: Mapping[Path, str]) -> None:
    """Rename damaged checkpoints, so that they are no longer taken for checkpoints, and warn of each."""
    for checkpoint, problem in problems.items():
        aside = checkpoint.with_name(f"{checkpoint.name}{DAMAGED}")
        remove(aside)
        os.replace(checkpoint, aside)
        logger.warning(f"{problem}: the checkpoint is now {aside.name}, and an older one is continued.")


def describe_differences(saved: dict[str, Any], current: dict[str, Any]) -> list[str]:
    """List how the settings of two runs differ, as "arguments.seed: 42 in the checkpoint, 43 now".

    Floats that agree to six digits count as equal, since statistics of the same data differ by rounding.
    """
    before, now = dict(_leaves(saved)), dict(_leaves(current))
    return [
        f"{key}: {before.get(key)} in the checkpoint, {now.get(key)} now"
        for key in sorted(before | now)
        if not _is_equal(before.get(key), now.get(key))
    ]


def _leaves(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the settings at every depth with their dotted names."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _is_equal(one: Any, other: Any) -> bool:
    both_floats = isinstance(one, float) and isinstance(other, float)
    return math.isclose(one, other, rel_tol=1e-6) if both_floats else one == other
