"""Checks of settings, and of what users pass to a model."""

from __future__ import annotations

import math
import operator
import os
import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch

from .activations import FAMILIES

if TYPE_CHECKING:
    from .configuration_msae import MSAEConfig

HOOK_POINT = re.compile(r"(image_embeds|text_embeds|(vision|text)\.layers\.\d+)")


def check_schema_version(version: Any, newest: int, source: str = "this config") -> None:
    """Raise ValueError if `version` is not the number of a schema up to the newest that this version knows."""
    if type(version) is not int or version < 1:
        raise ValueError(f"schema_version must be an integer of at least 1, got {version!r} in {source}")
    if version > newest:
        raise ValueError(
            f"{source} has schema_version={version} and was written by a newer hf_msae (this one knows versions up to "
            f"{newest}); upgrade with `pip install --upgrade hf_msae`"
        )


def check_dtype(dtype: Any, source: str) -> None:
    """Raise ValueError if the dtype in config.json is not one of torch's that weights can have."""
    found = getattr(torch, str(dtype).removeprefix("torch."), None)
    if dtype is not None and not (isinstance(found, torch.dtype) and found.is_floating_point):
        raise ValueError(f"{source}: dtype is {dtype!r}, but must be a floating-point dtype of torch, such as float32")


def check_settings(config: MSAEConfig, newest_schema: int) -> None:
    """Raise ValueError if a field that does not describe the levels is invalid."""
    check_schema_version(config.schema_version, newest_schema)
    family, n = FAMILIES[config.activation], config.num_latents
    for name in ("d_in", "num_latents"):
        _require(getattr(config, name) >= 1, f"{name} must be at least 1, got {getattr(config, name)}")
    _require(config.k is None or 1 <= config.k <= n, f"k must be between 1 and num_latents={n}, got {config.k}")
    _require(
        config.k is not None or not family.needs_k,
        f'activation="{config.activation}" needs k, the number of activations to keep',
    )
    _require(
        config.sparsity_penalty in (None, *family.penalties),
        f'sparsity_penalty="{config.sparsity_penalty}" has no gradient with activation="{config.activation}": use '
        + " or ".join(f'"{penalty}"' for penalty in family.penalties),
    )
    coefficient, cap = config.sparsity_coefficient, config.soft_cap
    _require(0 <= coefficient < math.inf, f"sparsity_coefficient must be a number of at least 0, got {coefficient}")
    _require(cap is None or 0 < cap < math.inf, f"soft_cap must be above 0, or None for no cap; got {cap}")
    _require(
        HOOK_POINT.fullmatch(config.hook_point),
        f"hook_point must be image_embeds, text_embeds, vision.layers.{{i}} or text.layers.{{i}}, got "
        f"{config.hook_point!r}",
    )


def check_levels(config: MSAEConfig) -> None:
    """Raise ValueError if the levels or their weights are invalid; fields that may be None are resolved."""
    ks, widths, n = config.nesting_ks, config.nesting_widths, config.num_latents
    _require(ks, f"nesting_ks={ks} has no level; give at least one k, or None for 64, 128, ...")
    if config.nesting != "topk":
        levels = "one level, the full code" if config.nesting == "none" else "levels in nesting_widths"
        _require(
            ks == [n],
            f'nesting="{config.nesting}" has {levels}, but nesting_ks={ks}; leave it out or set nesting="topk"',
        )
    _require(1 <= min(ks) and max(ks) <= n, f"nesting_ks must lie between 1 and num_latents={n}, got {ks}")
    _require(_ascends(ks), f"nesting_ks must ascend strictly, got {ks}")
    FAMILIES[config.activation].check(config)
    _require(
        0 <= config.random_prefixes <= n,
        f"random_prefixes must be between 0 and num_latents={n}, got {config.random_prefixes}",
    )
    if config.nesting == "prefix":
        _require(
            widths and widths[0] >= 1 and widths[-1] == n and _ascends(widths),
            f"nesting_widths must ascend strictly from at least 1 to num_latents={n}, got {widths}",
        )
        _require(
            not config.random_prefixes or config.nesting_weights == "uniform",
            f'random_prefixes need nesting_weights="uniform", got {config.nesting_weights!r}',
        )
        ks = widths
    else:
        _require(
            not config.random_prefixes and widths is None,
            f'nesting_widths and random_prefixes need nesting="prefix", got nesting="{config.nesting}"',
        )
    weights = config.nesting_weights
    if isinstance(weights, str):
        _require(
            weights in ("uniform", "reverse"),
            f'nesting_weights must be "uniform", "reverse" or one weight per level, got {weights!r}',
        )
        return
    _require(len(weights) == len(ks), f"nesting_weights has {len(weights)} weights for {len(ks)} levels ({ks})")
    _require(
        all(0 < weight < math.inf for weight in weights), f"nesting_weights must be positive numbers, got {weights}"
    )


def check_size(config: MSAEConfig) -> None:
    """Raise ValueError if this machine does not have the memory for the parameters, before any is allocated."""
    needed = config.d_in * config.num_latents * 4 * (1 if config.tied else 2)
    if hasattr(os, "sysconf") and needed > (memory := os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")):
        raise ValueError(
            f"an MSAE with d_in={config.d_in} and num_latents={config.num_latents} needs {needed / 1e9:,.0f} GB for "
            f"its parameters, and this machine has {memory / 1e9:,.0f} GB of memory: make it smaller"
        )


def _require(holds: Any, message: str) -> None:
    if not holds:
        raise ValueError(message)


def _ascends(numbers: list[int]) -> bool:
    return all(earlier < later for earlier, later in pairwise(numbers))


def check_tensor(tensor: torch.Tensor, what: str, config: MSAEConfig, finite: bool = True) -> None:
    """Refuse a tensor that a model cannot use as what it is called, "embeddings" or "latents".

    Refusing NaN and infinite values (`finite`) reads the whole tensor and synchronizes a GPU.
    """
    width = config.d_in if what == "embeddings" else config.num_latents
    _check_floating(tensor, what)
    if tensor.dim() == 0:
        raise ValueError(f"{what} must have shape (..., {width}), got a single number")
    if tensor.shape[-1] != width:
        source = ", ".join(filter(None, (config.base_model_name_or_path, config.hook_point)))
        expected = f"was trained on {width} ({source})" if what == "embeddings" else f"has {width} latents"
        raise ValueError(f"{what} have {tensor.shape[-1]} columns, but this MSAE {expected}")
    if finite:
        _check_finite(tensor, what)


def check_entries(values: torch.Tensor, indices: torch.Tensor, num_latents: int) -> None:
    """Refuse activations and their latents that no code can have."""
    _check_floating(values, "values")
    if getattr(indices, "dtype", None) != torch.int64:
        raise TypeError(f"indices must be an int64 tensor, got {getattr(indices, 'dtype', type(indices).__name__)}")
    if values.shape != indices.shape or values.dim() == 0:
        shapes = f"{tuple(values.shape)} and {tuple(indices.shape)}"
        raise ValueError(f"values and indices must both have shape (..., k), got {shapes}")
    if indices.numel() and not 0 <= int(indices.min()) <= int(indices.max()) < num_latents:
        outside = indices[(indices < 0) | (indices >= num_latents)][0]
        raise ValueError(f"indices must lie between 0 and {num_latents - 1}, the last latent; got {int(outside)}")
    _check_finite(values, "values")


def _check_floating(tensor: torch.Tensor, what: str) -> None:
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"{what} must be a torch.Tensor, got {type(tensor).__name__}; use torch.as_tensor(...)")
    if not tensor.is_floating_point():
        raise TypeError(f"{what} must be floating point, got {tensor.dtype}; convert them with {what}.float()")


def _check_finite(tensor: torch.Tensor, what: str) -> None:
    # A sum with a NaN or infinite term is not finite, and takes one pass without a copy. It may also overflow.
    if not torch.compiler.is_compiling() and not torch.isfinite(tensor.detach().sum()):
        bad = (~torch.isfinite(tensor)).nonzero()
        if len(bad):
            row = bad[0, :-1].tolist()
            where = f", first in row {row[0] if len(row) == 1 else tuple(row)}" if row else ""
            raise ValueError(f"{what} hold NaN or infinite values{where}")


def check_k(k: Any, config: MSAEConfig) -> int:
    """Return k as an int; refuse what is no whole number from 1 to num_latents."""
    try:
        number = None if isinstance(k, bool) else operator.index(k)
    except TypeError:  # refused below
        number = None
    if number is None:
        raise TypeError(f"k must be an integer, got {k!r}")
    if not 1 <= number <= config.num_latents:
        raise ValueError(f"k must be between 1 and num_latents={config.num_latents}, got {number}")
    return number


def check_statistics(mean: torch.Tensor, scale: torch.Tensor, config: MSAEConfig) -> None:
    """Refuse input statistics that embeddings cannot be normalized with."""
    if mean.shape != (config.d_in,):
        raise ValueError(f"the input mean has shape {tuple(mean.shape)}, expected ({config.d_in},)")
    if not torch.isfinite(mean).all():
        raise ValueError("the input mean holds NaN or infinite values")
    if scale.dim() != 0 or not (torch.isfinite(scale) and scale > 0):
        raise ValueError(f"the input scale must be one positive number, got {scale.tolist()}")
