"""What several readers of foreign checkpoints need: names in a file, tensors, shapes, and one file of many."""

from __future__ import annotations

import math
import os
import pickletools
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

_FLOATING = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def names_in_torch_file(path: Path) -> set[str]:
    """All strings and all names of classes in a file of torch.save, without loading or running any of it.

    The keys of a state dict are among them, and "overcomplete.sae.topk_sae" where a module of that library is. Empty
    for what is no such file.
    """
    names: set[str] = set()
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                inner = next((name for name in archive.namelist() if name.endswith("data.pkl")), None)
                if inner is not None:
                    with archive.open(inner) as file:
                        _collect_names(_Bounded(file, archive.getinfo(inner).file_size), names)
        else:  # before torch 1.6: a magic number, a version, the machine's sizes, and then what was saved
            with open(path, "rb") as file:
                for _ in range(4):
                    _collect_names(_Bounded(file, os.path.getsize(path)), names)
    # Whatever bytes may do to a parser: a file that is no pickle has no names, and loading it says what is wrong.
    except (
        ValueError,
        EOFError,
        LookupError,
        AttributeError,
        OverflowError,
        RuntimeError,
        zipfile.BadZipFile,
        zlib.error,
    ):
        pass
    return names


class _Bounded:
    """A file of which no more is asked for than there is: a pickle may claim a string of a terabyte."""

    def __init__(self, file: Any, size: int):
        self.file, self.size, self.readline = file, size, file.readline

    def read(self, size: int = -1) -> bytes:
        return self.file.read(min(size, self.size) if size >= 0 else -1)


def _collect_names(file: Any, names: set[str]) -> None:
    for opcode, argument, _ in pickletools.genops(file):
        if isinstance(argument, str):
            # GLOBAL has "module name", the newer STACK_GLOBAL takes two strings.
            names.update(argument.split(" ") if opcode.name == "GLOBAL" else [argument])


def holds_class_of(names: set[str], package: str) -> bool:
    """Whether a file with these names asks for something of a package."""
    return any(name == package or name.startswith(f"{package}.") for name in names)


def tensors_of(content: Any, name: str, counters: Sequence[str] = ()) -> dict[str, torch.Tensor]:
    """A state dict, checked to be one: names and tensors of finite floating-point numbers.

    Args:
        content: what a file holds.
        name: for messages.
        counters: names of tensors that hold whole numbers.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{name} holds {type(content).__name__} {str(content)[:40]!r}, not names and tensors")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise ValueError(f"{name} holds a {type(value).__name__} under {key!r}, where a tensor is expected")
        if key not in counters:
            check_tensor(value, f"{key} of {name}")
    return dict(content)


def check_tensor(tensor: torch.Tensor, what: str) -> None:
    """Raises:
    ValueError: it holds anything but finite floating-point numbers, each in its place.
    """
    if tensor.layout != torch.strided or tensor.is_meta or tensor.dtype not in _FLOATING:
        kind = str(tensor.dtype).removeprefix("torch.")
        layout = "" if tensor.layout == torch.strided else f" ({str(tensor.layout).removeprefix('torch.')})"
        raise ValueError(f"{what} is of {kind}{layout}, expected floating-point numbers (float32, float16, ...)")
    if not torch.isfinite(tensor).all():
        raise ValueError(f"{what} holds NaN or infinite values")


def check_shapes(tensors: Mapping[str, torch.Tensor], shapes: Mapping[str, tuple[int, ...]], name: str) -> None:
    """Raises:
    ValueError: a tensor that is there has another shape.
    """
    for key, shape in shapes.items():
        if key in tensors and tuple(tensors[key].shape) != shape:
            raise ValueError(f"{key} of {name} has shape {tuple(tensors[key].shape)}, expected {shape}")


def matrix_shape(tensors: Mapping[str, torch.Tensor], key: str, name: str) -> tuple[int, int]:
    """Raises:
    ValueError: the tensor has another number of dimensions than two.
    """
    shape = tuple(tensors[key].shape)
    if len(shape) != 2:
        raise ValueError(f"{key} of {name} has shape {shape}, expected two dimensions: not one autoencoder")
    return shape


def whole_number(value: Any, what: str) -> int:
    """Raises:
    ValueError: it is no whole number above 0.
    """
    if isinstance(value, torch.Tensor) and value.dim() == 0:
        value = value.item()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{what} is {_shown(value)}, expected a whole number above 0")
    return value


def finite_number(value: Any, what: str) -> float:
    """One number, which may be in a tensor without dimensions.

    Raises:
        ValueError: it is none, or NaN or infinite.
    """
    if isinstance(value, (torch.Tensor, np.ndarray, np.generic)) and value.ndim == 0:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{what} is {_shown(value)}, expected one finite number")
    return float(value)


def flag(settings: Mapping[str, Any], key: str, default: bool, name: str) -> bool:
    """A setting that is true or false; the default where it is missing or null.

    Raises:
        ValueError: it is something else; "false", for one, would count as true.
    """
    value = settings.get(key)
    if value is not None and not isinstance(value, bool):
        raise ValueError(f"{key} of {name} is {_shown(value)}, expected true or false")
    return default if value is None else value


def word(settings: Mapping[str, Any], key: str, default: str | None, name: str) -> str | None:
    """A setting that is a text; the default where it is missing, None where it is null.

    Raises:
        ValueError: it is something else.
    """
    value = settings.get(key, default)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{key} of {name} is {_shown(value)}, expected a text")
    return value


def settings_in(settings: Mapping[str, Any], key: str, name: str) -> Mapping[str, Any]:
    """Settings within settings; none where they are missing or null.

    Raises:
        ValueError: it is something else.
    """
    value = settings.get(key)
    if value is not None and not isinstance(value, Mapping):
        raise ValueError(f"{key} of {name} is {_shown(value)}, expected names and values")
    return value or {}


def k_of(stored: Any, given: Mapping[str, Any], what: str) -> int:
    """How many activations are kept: what the user said, or else what is stored.

    Raises:
        ValueError: neither tells, or it is no whole number above 0.
    """
    if given.get("k") is not None:
        return whole_number(given["k"], "k")
    if stored is None:
        raise ValueError(f"{what} is not there, so nothing tells how many activations are kept: say k=...")
    return whole_number(stored, what)


def _shown(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def the_one(candidates: Sequence[str], name: str, what: str) -> str:
    """Raises:
    ValueError: there is none, or more than one.
    """
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        raise ValueError(f"{name} holds no {what}")
    shown = ", ".join(candidates[:20]) + (", ..." if len(candidates) > 20 else "")
    raise ValueError(f"{name} holds {len(candidates)} checkpoints, name one as subfolder: {shown}")


def reached(threshold: float | torch.Tensor) -> float:
    """The smallest float32 above a threshold, for thresholds that have to be exceeded: ours has to be reached."""
    return float(torch.nextafter(torch.as_tensor(float(threshold)), torch.tensor(torch.inf)))


def gated_as_jump_relu(
    encoder: torch.Tensor, gate_bias: torch.Tensor, magnitude_bias: torch.Tensor, log_growth: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A gated encoder (arXiv 2404.16014) whose two parts share their directions is JumpReLU with other thresholds.

    With s = x' @ encoder, the code is relu(e s + magnitude_bias) where s + gate_bias > 0, e = exp(log_growth). In the
    pre-activation p = e s + magnitude_bias that is p > magnitude_bias - e gate_bias.

    Args:
        encoder: (d, n).
        gate_bias, magnitude_bias, log_growth: (n,).

    Returns:
        Encoder (d, n), bias of the latents (n,) and thresholds (n,), float64.
    """
    growth = log_growth.double().exp()
    threshold = (magnitude_bias.double() - growth * gate_bias.double()).clamp_min(0)
    return encoder.double() * growth, magnitude_bias.double(), threshold
