"""The statistics that embeddings are normalized with, if a checkpoint does not hold them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ..._utils.tensors import as_tensor
from .reading import finite_number
from .source import CheckpointSource


def require_statistics(source: CheckpointSource, name: str, why: str, mean: bool = True, scale: bool = True) -> None:
    """Raise ValueError, with the reason, if the user gave no mean or scale although the checkpoint needs it.

    A given input_scale=1.0 without input_mean means that embeddings were not normalized.
    """
    factor = source.given.get("input_scale")
    factor = None if factor is None else finite_number(factor, "input_scale")
    missing = []
    if mean and source.given.get("input_mean") is None and factor != 1.0:
        missing.append("input_mean")
    if scale and factor is None:
        missing.append("input_scale")
    if missing:
        raise ValueError(
            f"{name} needs {' and '.join(missing)}: {why}, and the checkpoint does not hold these numbers. Give "
            "input_mean (a .npy or .safetensors file, a tensor or a list) and input_scale (the factor of embeddings "
            "after the mean is subtracted); or only input_scale=1.0 if it was trained on raw embeddings"
        )


def input_mean_of(value: Any, d: int) -> torch.Tensor:
    """Return a given input_mean as float64 (d,): a tensor, a list, or the path of a .npy or .safetensors file."""
    what = "input_mean"
    try:
        if isinstance(value, (str, os.PathLike)):
            what = f"input_mean, {value},"
            value = _in_file(Path(value).expanduser())
        mean = as_tensor(value).detach().double().cpu()
    except (TypeError, ValueError, RuntimeError, EOFError, SafetensorError) as error:
        raise ValueError(f"{what} holds no numbers that can be read: {error}") from error
    if mean.shape != (d,) or not mean.isfinite().all():
        raise ValueError(f"{what} has shape {tuple(mean.shape)}, expected {d} finite numbers")
    return mean


def _in_file(path: Path) -> Any:
    if path.suffix == ".npy":
        return np.load(path, allow_pickle=False)
    if path.suffix != ".safetensors":
        raise ValueError("expected a file of type .npy or .safetensors")
    tensors = load_file(path)
    names = list(tensors) if len(tensors) == 1 else sorted({"input_mean", "mean"} & set(tensors))
    if len(names) != 1:
        raise ValueError(f"it has {', '.join(tensors)}: expected one tensor, or one called input_mean or mean")
    return tensors[names[0]]
