"""Checkpoints of a training run: folders `checkpoint-STEP` to resume from.

A checkpoint holds the model as `MSAEModel.from_pretrained` reads it (config.json, model.safetensors), what
`Accelerator.save_state` writes (optimizer.bin, scheduler.bin, random_states_RANK.pkl, scaler.pt with fp16),
trainer_state.json, and best_weights.safetensors where the best weights are kept. It is written under a temporary name
and renamed when every process is done, so a folder with the final name is complete.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import load_model, save_file
from transformers.utils import logging as transformers_logging

from .._utils.atomic import atomic_path, remove
from .._utils.file_integrity import sha256_of
from .._utils.json_files import from_json, write_json
from .best import BEST_FILE
from .log import LOG_FILE

if TYPE_CHECKING:
    from ..model.modeling_msae import MSAEModel

STATE_FILE = "trainer_state.json"
WEIGHTS_FILE = "model.safetensors"
FAILURE_FILE = "diverged.json"
_RUN_FILES = (WEIGHTS_FILE, "config.json", "metrics.json", "training.json", "README.md", FAILURE_FILE)
_TEMPORARY = ".tmp-"
DAMAGED = ".damaged"
# What torch says depends on which of its writes fails.
_FULL_DISK = (
    r"PytorchStreamWriter|unexpected pos \d+ vs|iostream error|No space left|File too large|Disk quota exceeded"
)


@dataclass
class TrainerState:
    """The progress of a run."""

    global_step: int = 0  # optimizer steps done
    num_processes: int = 1  # processes that train together
    # Settings that determine the numbers of the run: arguments, data and model.
    run: dict[str, Any] = field(default_factory=dict)
    log_history: list[dict[str, Any]] = field(default_factory=list)  # records logged so far
    # Loss of each step since the last record; the next record averages them.
    pending_losses: list[float] = field(default_factory=list)
    # For each latent, the optimizer steps since it last fired.
    steps_since_fired: list[int] = field(default_factory=list)
    stopped: bool = False  # whether a callback or early stopping ended the run before its last step
    # The best evaluation: its metric, value and step, and the `evaluations_since` without improvement.
    best: dict[str, Any] | None = None
    # FVU of the same training rows at "half" and "three quarters" of the run.
    fvu_at: dict[str, float] = field(default_factory=dict)
    # SHA-256 of the checkpoint's other files by name; empty in checkpoints of earlier versions.
    files: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, checkpoint: Path) -> TrainerState:
        """Read the state in a checkpoint folder."""
        try:
            content = json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))
            return from_json(cls, content, "it")
        except (AttributeError, ValueError) as error:
            raise ValueError(f"{checkpoint / STATE_FILE} is damaged: {error}") from error


def list_checkpoints(output_dir: Path) -> list[Path]:
    """List the complete checkpoints in a folder by ascending step."""
    found = {}
    for path in output_dir.glob("checkpoint-*"):
        match = re.fullmatch(r"checkpoint-(\d+)", path.name)
        if match and (path / STATE_FILE).is_file():
            found[int(match[1])] = path
    return [found[step] for step in sorted(found)]


def check_output_dir(output_dir: Path, overwrite: bool = False) -> None:
    """Refuse the output folder of a new run that training would destroy something in.

    That is another run, unless `overwrite` allows it, or files with the names that a run writes and no run, such as
    the clone of a project.
    """
    checkpoints = list_checkpoints(output_dir)
    existing = [name for name in _RUN_FILES if (output_dir / name).exists()]
    if existing and not checkpoints and not (output_dir / LOG_FILE).exists():
        raise FileExistsError(
            f"training would replace {', '.join(existing)} in {output_dir}, which is not the folder of a training run "
            f"(it has no {LOG_FILE}): choose another --output_dir"
        )
    taken = [*(name for name in existing if name == WEIGHTS_FILE), *(path.name for path in checkpoints)]
    if taken and not overwrite:
        way_out = " continue it with --resume_from_checkpoint last," if checkpoints else ""
        raise FileExistsError(
            f"{output_dir} already holds a run ({', '.join(taken)}):{way_out} choose another --output_dir, "
            f"or replace it with --overwrite_output_dir"
        )


def clear_output_dir(output_dir: Path) -> None:
    """Delete the files and checkpoints of a run in `output_dir`, and nothing else."""
    damaged = output_dir.glob(f"checkpoint-*{DAMAGED}")
    for path in (*(output_dir / name for name in _RUN_FILES), *list_checkpoints(output_dir), *damaged):
        remove(path)


def save_pretrained(model: MSAEModel, folder: str | Path) -> None:
    """Write config.json and model.safetensors to a folder that may hold other files."""
    folder = Path(folder)
    temporary = folder / f"{_TEMPORARY}model"
    remove(temporary)
    with _naming_full_disk(folder):
        _save_quietly(model, temporary)
    for file in sorted(temporary.iterdir(), reverse=True):  # the weights before the config that announces them
        with atomic_path(folder / file.name) as path:
            os.replace(file, path)
    temporary.rmdir()


@contextmanager
def _naming_full_disk(folder: Path) -> Iterator[None]:
    """Turn what torch and safetensors raise on a full disk into an OSError that names the folder."""
    try:
        yield
    except (RuntimeError, SafetensorError, OSError) as error:
        if not re.search(_FULL_DISK, str(error)):
            raise
        raise OSError(
            errno.ENOSPC,
            f"no space left for {folder}: free some, and continue from the last checkpoint with "
            "--resume_from_checkpoint last",
        ) from error


def _save_quietly(model: MSAEModel, folder: Path) -> None:
    """Call `model.save_pretrained` without its progress bar."""
    had_bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        model.save_pretrained(folder)
    finally:
        if had_bars:
            transformers_logging.enable_progress_bar()


def load_weights(model: MSAEModel, checkpoint: Path) -> None:
    """Load the weights of a checkpoint into a model."""
    load_model(model, checkpoint / WEIGHTS_FILE, device=str(model.device))


@contextmanager
def model_as_pretrained(accelerator: Accelerator, model: MSAEModel) -> Iterator[None]:
    """Make `save_state` write the model like `save_pretrained`, and `load_state` leave the model alone."""

    def save(models: list, weights: list, folder: str) -> None:
        # By default Accelerate saves the state of the DDP wrapper, whose keys have a "module." prefix.
        weights.clear()
        if accelerator.is_main_process:
            _save_quietly(model, Path(folder))

    def load(models: list, folder: str) -> None:
        models.clear()  # `load_weights` has loaded the model

    handles = [accelerator.register_save_state_pre_hook(save), accelerator.register_load_state_pre_hook(load)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def save_checkpoint(
    accelerator: Accelerator,
    state: TrainerState,
    output_dir: Path,
    best_weights: dict[str, torch.Tensor] | None = None,
) -> Path:
    """Write `output_dir/checkpoint-STEP` and return it; all processes call this inside `model_as_pretrained`."""
    # All processes write into the same folder, so its name cannot hold a process id as atomic_path's does.
    final = output_dir / f"checkpoint-{state.global_step}"
    temporary, outdated = (final.with_name(f"{_TEMPORARY}{kind}{final.name}") for kind in ("", "old-"))
    if accelerator.is_main_process:
        for leftover in (temporary, outdated):
            remove(leftover)
        temporary.mkdir(parents=True)
    accelerator.wait_for_everyone()
    with _naming_full_disk(final):
        accelerator.save_state(str(temporary))
        if best_weights is not None and accelerator.is_main_process:
            save_file(best_weights, temporary / BEST_FILE)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        files = sorted(file for file in temporary.rglob("*") if file.is_file())
        state.files = {file.relative_to(temporary).as_posix(): sha256_of(file) for file in files}
        (temporary / STATE_FILE).write_text(json.dumps(asdict(state)), encoding="utf-8")
        if final.exists():
            os.replace(final, outdated)
        with atomic_path(final) as path:
            os.replace(temporary, path)
        remove(outdated)
    accelerator.wait_for_everyone()
    return final


def write_failure(output_dir: Path, message: str) -> None:
    """Record that the run in `output_dir` has diverged."""
    write_json(output_dir / FAILURE_FILE, {"error": message})


def read_failure(output_dir: Path) -> FloatingPointError | None:
    """Read the error that ended the run in `output_dir`, if any."""
    file = output_dir / FAILURE_FILE
    return FloatingPointError(json.loads(file.read_text(encoding="utf-8"))["error"]) if file.exists() else None


def prune_checkpoints(newest: Path, total_limit: int | None) -> None:
    """Delete the oldest checkpoints beyond `total_limit`, but never `newest`."""
    if total_limit is not None:
        others = [path for path in list_checkpoints(newest.parent) if path != newest]
        for path in others[: max(0, len(others) + 1 - total_limit)]:
            remove(path)
