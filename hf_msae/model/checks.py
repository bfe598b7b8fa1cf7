"""Checks of what users give to a model."""

from __future__ import annotations

import operator
from typing import Any

import torch

from .configuration_msae import MSAEConfig


def check_tensor(tensor: torch.Tensor, what: str, config: MSAEConfig, finite: bool = True) -> None:
    """Refuse tensors that are not `what` the model takes.

    Args:
        tensor: What the user gave.
        what: "embeddings" or "latents".
        config: The model's.
        finite: Whether to refuse NaN and infinite values, which takes a pass over the tensor and, on a GPU, a
            synchronization.

    Raises:
        TypeError: It is not a floating-point tensor.
        ValueError: It has another width, or NaN or infinite values.
    """
    width = config.d_in if what == "embeddings" else config.num_latents
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"{what} must be a torch.Tensor, got {type(tensor).__name__}; use torch.as_tensor(...)")
    if not tensor.is_floating_point():
        raise TypeError(f"{what} must be floating point, got {tensor.dtype}; convert them with {what}.float()")
    if tensor.dim() == 0:
        raise ValueError(f"{what} must have shape (..., {width}), got a single number")
    if tensor.shape[-1] != width:
        source = ", ".join(filter(None, (config.base_model_name_or_path, config.hook_point)))
        expected = f"was trained on {width} ({source})" if what == "embeddings" else f"has {width} latents"
        raise ValueError(f"{what} have {tensor.shape[-1]} columns, but this MSAE {expected}")
    # A sum is one pass without a copy, and not finite if any term is not. It may also overflow: then look closely.
    if finite and not torch.compiler.is_compiling() and not torch.isfinite(tensor.detach().sum()):
        bad = (~torch.isfinite(tensor)).nonzero()
        if len(bad):
            row = bad[0, :-1].tolist()
            where = f", first in row {row[0] if len(row) == 1 else tuple(row)}" if row else ""
            raise ValueError(f"{what} hold NaN or infinite values{where}")


def check_k(k: Any, config: MSAEConfig) -> int:
    """Return k as an int.

    Raises:
        TypeError: It is not an integer.
        ValueError: It is not between 1 and num_latents.
    """
    try:
        number = None if isinstance(k, bool) else operator.index(k)
    except TypeError:
        number = None
    if number is None:
        raise TypeError(f"k must be an integer, got {k!r}")
    if not 1 <= number <= config.num_latents:
        raise ValueError(f"k must be between 1 and num_latents={config.num_latents}, got {number}")
    return number


def check_statistics(mean: torch.Tensor, scale: torch.Tensor, config: MSAEConfig) -> None:
    """Refuse input statistics that embeddings cannot be normalized with.

    Raises:
        ValueError: The mean has another shape or is not finite, or the scale is not a positive number.
    """
    if mean.shape != (config.d_in,):
        raise ValueError(f"the input mean has shape {tuple(mean.shape)}, expected ({config.d_in},)")
    if not torch.isfinite(mean).all():
        raise ValueError("the input mean holds NaN or infinite values")
    if scale.dim() != 0 or not (torch.isfinite(scale) and scale > 0):
        raise ValueError(f"the input scale must be one positive number, got {scale.tolist()}")


def unused_arguments_error(arguments: dict[str, Any]) -> ValueError:
    """Return the error for keyword arguments that neither `from_pretrained` nor the config used."""
    fields = [name for name in arguments if name in MSAEConfig.own_fields()]
    if fields:
        return ValueError(f"{', '.join(fields)} given together with a config: set the fields of the config instead")
    return MSAEConfig.unknown_keys_error(arguments)
