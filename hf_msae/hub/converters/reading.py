"""What several readers of foreign checkpoints need: names in a file, shapes, one file of many, and where from."""

from __future__ import annotations

import pickletools
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch


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
                        _collect_names(file, names)
        else:  # before torch 1.6: a magic number, a version, the machine's sizes, and then what was saved
            with open(path, "rb") as file:
                for _ in range(4):
                    _collect_names(file, names)
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


def _collect_names(file: Any, names: set[str]) -> None:
    for opcode, argument, _ in pickletools.genops(file):
        if isinstance(argument, str):
            # GLOBAL has "module name", the newer STACK_GLOBAL takes two strings.
            names.update(argument.split(" ") if opcode.name == "GLOBAL" else [argument])


def holds_class_of(names: set[str], package: str) -> bool:
    """Whether a file with these names asks for something of a package."""
    return any(name == package or name.startswith(f"{package}.") for name in names)


def tensors_of(content: Any, name: str) -> dict[str, torch.Tensor]:
    """A state dict, checked to be one: names and tensors.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{name} holds {type(content).__name__} {str(content)[:40]!r}, not names and tensors")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise ValueError(f"{name} holds a {type(value).__name__} under {key!r}, where a tensor is expected")
    return dict(content)


def check_shapes(tensors: Mapping[str, torch.Tensor], shapes: Mapping[str, tuple[int, ...]], name: str) -> None:
    """
    Raises:
        ValueError: a tensor that is there has another shape.
    """
    for key, shape in shapes.items():
        if key in tensors and tuple(tensors[key].shape) != shape:
            raise ValueError(f"{key} of {name} has shape {tuple(tensors[key].shape)}, expected {shape}")


def matrix_shape(tensors: Mapping[str, torch.Tensor], key: str, name: str) -> tuple[int, int]:
    """
    Raises:
        ValueError: the tensor has another number of dimensions than two.
    """
    shape = tuple(tensors[key].shape)
    if len(shape) != 2:
        raise ValueError(f"{key} of {name} has shape {shape}, expected two dimensions: not one autoencoder")
    return shape


def whole_number(value: Any, what: str) -> int:
    """
    Raises:
        ValueError: it is no whole number above 0.
    """
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{what} is {value!r}, expected a whole number above 0")
    return value


def the_one(candidates: Sequence[str], name: str, what: str) -> str:
    """
    Raises:
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


def tower_of(model: Any) -> str:
    """ "text" for what is named like a language model, "vision" for what is named like an image encoder."""
    words = ("clip", "siglip", "vit", "dino", "deit", "mae", "vision", "perception")
    return "vision" if any(word in str(model).lower() for word in words) else "text"


def place_of(hook_point: str | None, place: str | None, given: Mapping[str, Any], notes: list[str]) -> dict:
    """The field hook_point, or a note that the checkpoint does not tell.

    Args:
        hook_point: ours; None where hf_msae has no name for it.
        place: what the checkpoint says, for people; None where it says nothing.
        given: what the user said; a hook_point there wins.
        notes: gets the note.

    Raises:
        ValueError: the embeddings are of a place that hf_msae has no name for, and no hook_point was given.
    """
    if given.get("hook_point") is not None:
        return {}
    if hook_point is not None:
        return {"hook_point": hook_point}
    if place:
        raise ValueError(
            f"the checkpoint was trained on {place}, where hf_msae cannot read by itself. To use it with embeddings "
            "from there that you bring along, say which kind they are: hook_point=image_embeds or text_embeds (one of "
            "each input), vision.layers.9 or text.layers.9 (one of each token)"
        )
    notes.append(
        "The checkpoint does not tell what it was trained on: give it embeddings from there; hook_point stays at its "
        "default, image_embeds, until you say hook_point=..."
    )
    return {}
