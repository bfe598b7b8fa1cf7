"""The statistics that embeddings are normalized with, if a checkpoint does not hold them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from .reading import finite_number

_NAMES = ("input_mean", "mean")
"""Names of the tensor to take from a .safetensors file with several."""


def require_statistics(given: Mapping[str, Any], name: str, why: str, mean: bool = True, scale: bool = True) -> None:
    """Check that the statistics are given that a checkpoint needs and does not hold.

    Args:
        given: The user's overrides; input_scale=1.0 without input_mean means that embeddings were not normalized.
        name: Name of the checkpoint in messages.
        why: What its library does with embeddings.
        mean: Whether the mean is needed.
        scale: Whether the scale is needed.

    Raises:
        ValueError: One is needed and not given.
    """
    has_mean, factor = given.get("input_mean") is not None, given.get("input_scale")
    factor = None if factor is None else finite_number(factor, "input_scale")
    missing = []
    if mean and not has_mean and factor != 1.0:
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
    """Return a given input_mean as float64 (d,).

    Args:
        value: A tensor, a list of numbers, or the path of a .npy or .safetensors file.
        d: Width of the embeddings.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds something else.
    """
    what = "input_mean"
    if isinstance(value, (str, os.PathLike)):
        what, value = f"input_mean, {value},", _in_file(Path(value).expanduser())
    try:
        mean = torch.as_tensor(value).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{what} is a {type(value).__name__}, not a list of numbers: {error}") from error
    if mean.dtype.is_complex or mean.dtype == torch.bool or tuple(mean.shape) != (d,):
        kind = str(mean.dtype).removeprefix("torch.")
        raise ValueError(f"{what} is of {kind} and has shape {tuple(mean.shape)}, expected numbers and shape ({d},)")
    if not torch.isfinite(mean).all():
        raise ValueError(f"{what} holds NaN or infinite values")
    return mean.double().cpu()


def _in_file(path: Path) -> Any:
    if path.suffix == ".npy":
        try:
            return np.load(path, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ValueError(f"{path}, given as input_mean, holds no array: {error}") from error
    if path.suffix != ".safetensors":
        raise ValueError(f"input_mean is {str(path)!r}, expected a file of type .npy or .safetensors")
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path}, given as input_mean, is damaged or incomplete: {error}") from error
    names = list(tensors) if len(tensors) == 1 else [name for name in _NAMES if name in tensors]
    if len(names) != 1:
        raise ValueError(
            f"{path}, given as input_mean, holds {', '.join(tensors) or 'nothing'}: expected one tensor, or one that "
            f"is called {' or '.join(_NAMES)}"
        )
    return tensors[names[0]]
