"""Checkpoints of a training run: folders `checkpoint-STEP` from which it goes on as if it had never stopped.

A checkpoint holds the model as `MSAEModel.from_pretrained` reads it (config.json, model.safetensors), what
`Accelerator.save_state` writes (optimizer.bin, scheduler.bin, random_states_RANK.pkl, scaler.pt with fp16) and
trainer_state.json. It is written under a temporary name and renamed when every process is done, so a folder with the
final name is complete.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate import Accelerator
from safetensors.torch import load_model
from transformers.utils import logging as transformers_logging

from .log import LOG_FILE

if TYPE_CHECKING:
    from ..model.modeling_msae import MSAEModel

STATE_FILE = "trainer_state.json"
WEIGHTS_FILE = "model.safetensors"
FAILURE_FILE = "diverged.json"
_RUN_FILES = (WEIGHTS_FILE, "config.json", "metrics.json", "README.md", FAILURE_FILE)
_TEMPORARY = ".tmp-"


@dataclass
class TrainerState:
    """Where a run stands.

    Attributes:
        global_step: optimizer steps done.
        num_processes: processes that train together.
        run: what decides the run's numbers, as nested dicts; see `describe_differences`.
        log_history: records logged so far.
        pending_losses: loss of each step since the last record, which will be part of the next record's mean.
        steps_since_fired: for each latent, the optimizer steps since it last fired.
        stopped: whether somebody has ended the run here, before its last step.
    """

    global_step: int = 0
    num_processes: int = 1
    run: dict[str, Any] = field(default_factory=dict)
    log_history: list[dict[str, Any]] = field(default_factory=list)
    pending_losses: list[float] = field(default_factory=list)
    steps_since_fired: list[int] = field(default_factory=list)
    stopped: bool = False

    @classmethod
    def read(cls, checkpoint: Path) -> TrainerState:
        """The state in a checkpoint folder."""
        return cls(**json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8")))


def list_checkpoints(output_dir: Path) -> list[Path]:
    """Complete checkpoints in `output_dir`, by ascending step."""
    found = {}
    for path in output_dir.glob("checkpoint-*"):
        match = re.fullmatch(r"checkpoint-(\d+)", path.name)
        if match and (path / STATE_FILE).is_file():
            found[int(match[1])] = path
    return [found[step] for step in sorted(found)]


def find_checkpoint(resume_from: str | Path, output_dir: Path) -> Path:
    """The checkpoint that `resume_from_checkpoint` means: "last" or "true" is the newest one in `output_dir`.

    Raises:
        FileNotFoundError: there is none, or the path is not a complete checkpoint.
    """
    if str(resume_from).lower() in ("last", "true"):
        checkpoints = list_checkpoints(output_dir)
        if not checkpoints:
            raise FileNotFoundError(
                f"{output_dir} holds no complete checkpoint to resume from; leave out resume_from_checkpoint to start "
                f"a new run"
            )
        return checkpoints[-1]
    path = Path(resume_from)
    if not (path / STATE_FILE).is_file():
        complete = ", ".join(checkpoint.name for checkpoint in list_checkpoints(output_dir))
        raise FileNotFoundError(
            f"resume_from_checkpoint is {str(resume_from)!r}, which is not a checkpoint folder (it has no "
            f"{STATE_FILE}); complete checkpoints in {output_dir}: {complete or 'none'}"
        )
    return path


def check_output_dir(output_dir: Path) -> None:
    """Refuse a folder that holds a run already, or files of the names that a run writes.

    Raises:
        FileExistsError: a model, checkpoints, or such files are there; says what can be done.
    """
    check_not_foreign(output_dir)
    checkpoints = list_checkpoints(output_dir)
    taken = [path.name for path in (output_dir / WEIGHTS_FILE, *checkpoints) if path.exists()]
    if taken:
        way_out = " continue it with --resume_from_checkpoint last," if checkpoints else ""
        raise FileExistsError(
            f"{output_dir} holds a run already ({', '.join(taken)}):{way_out} choose another --output_dir, "
            f"or replace it with --overwrite_output_dir"
        )


def check_not_foreign(output_dir: Path) -> None:
    """Refuse a folder with files that a run would replace but that no run has written: a clone of some project, say.

    Raises:
        FileExistsError: names the files.
    """
    if (output_dir / LOG_FILE).exists() or list_checkpoints(output_dir):
        return  # a run's folder: these files are its own
    foreign = [name for name in _RUN_FILES if (output_dir / name).exists()]
    if foreign:
        raise FileExistsError(
            f"{output_dir} has {', '.join(foreign)} but no {LOG_FILE}, so it is no folder of a training run, and "
            f"training would replace {'them' if len(foreign) > 1 else 'it'}: choose another --output_dir"
        )


def clear_output_dir(output_dir: Path) -> None:
    """Delete what a finished or stopped run has left in `output_dir`, and nothing else."""
    for name in _RUN_FILES:
        (output_dir / name).unlink(missing_ok=True)
    for checkpoint in list_checkpoints(output_dir):
        shutil.rmtree(checkpoint)


def save_pretrained(model: MSAEModel, folder: str | Path) -> None:
    """Write config.json and model.safetensors to `folder`, under a temporary name first and without progress bars."""
    folder = Path(folder)
    temporary = folder / f"{_TEMPORARY}model"
    shutil.rmtree(temporary, ignore_errors=True)
    had_bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        model.save_pretrained(temporary)
    finally:
        if had_bars:
            transformers_logging.enable_progress_bar()
    for file in sorted(temporary.iterdir(), reverse=True):  # the weights before the config that announces them
        os.replace(file, folder / file.name)
    temporary.rmdir()


def load_weights(model: MSAEModel, checkpoint: Path) -> None:
    """Read the weights of a checkpoint into a model."""
    load_model(model, checkpoint / WEIGHTS_FILE, device=str(model.device))


@contextmanager
def model_as_pretrained(accelerator: Accelerator, model: MSAEModel) -> Iterator[None]:
    """Within this context `save_state` writes the model as `save_pretrained` does, and `load_state` reads none."""

    def save(models: list, weights: list, folder: str) -> None:
        # Left to itself accelerate saves the DDP wrapper's state, whose keys carry a "module." prefix.
        weights.clear()
        if accelerator.is_main_process:
            save_pretrained(model, folder)

    def load(models: list, folder: str) -> None:
        models.clear()  # `load_weights` has read them

    handles = [accelerator.register_save_state_pre_hook(save), accelerator.register_load_state_pre_hook(load)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def save_checkpoint(accelerator: Accelerator, state: TrainerState, output_dir: Path) -> Path:
    """Write `output_dir/checkpoint-STEP`, replacing one of that name.

    All processes call it, within `model_as_pretrained`. Returns the folder.
    """
    final = output_dir / f"checkpoint-{state.global_step}"
    temporary, outdated = (final.with_name(f"{_TEMPORARY}{kind}{final.name}") for kind in ("", "old-"))
    if accelerator.is_main_process:
        for leftover in (temporary, outdated):
            shutil.rmtree(leftover, ignore_errors=True)
        temporary.mkdir(parents=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(temporary))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        (temporary / STATE_FILE).write_text(json.dumps(asdict(state)), encoding="utf-8")
        if final.exists():
            os.replace(final, outdated)
        os.replace(temporary, final)
        shutil.rmtree(outdated, ignore_errors=True)
    accelerator.wait_for_everyone()
    return final


def write_failure(output_dir: Path, message: str) -> None:
    """Leave word that the run in `output_dir` has diverged."""
    temporary = output_dir / f"{_TEMPORARY}{FAILURE_FILE}"
    temporary.write_text(json.dumps({"error": message}), encoding="utf-8")
    os.replace(temporary, output_dir / FAILURE_FILE)


def read_failure(output_dir: Path) -> FloatingPointError | None:
    """The error that has ended the run in `output_dir`, if one has."""
    file = output_dir / FAILURE_FILE
    return FloatingPointError(json.loads(file.read_text(encoding="utf-8"))["error"]) if file.exists() else None


def prune_checkpoints(newest: Path, total_limit: int | None) -> None:
    """Delete the oldest checkpoints beside `newest` beyond `total_limit` in all."""
    if total_limit is not None:
        others = [path for path in list_checkpoints(newest.parent) if path != newest]
        for path in others[: max(0, len(others) + 1 - total_limit)]:
            shutil.rmtree(path)


def describe_differences(saved: dict[str, Any], current: dict[str, Any], prefix: str = "") -> list[str]:
    """One line for each entry in which two nested dicts differ: "arguments.seed: 42 in the checkpoint, 43 now".

    Floats that agree to six digits are equal: statistics of the same data differ by rounding between machines.
    """
    lines = []
    for key in sorted(saved.keys() | current.keys()):
        before, now = saved.get(key), current.get(key)
        if isinstance(before, dict) and isinstance(now, dict):
            lines += describe_differences(before, now, f"{prefix}{key}.")
        elif isinstance(before, float) and isinstance(now, float) and math.isclose(before, now, rel_tol=1e-6):
            continue
        elif before != now:
            lines.append(f"{prefix}{key}: {before} in the checkpoint, {now} now")
    return lines
