"""Checks that all readers of foreign checkpoints share; their errors name the file."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

GATED_NOTE = "A gated SAE, converted to a JumpReLU one that computes the same."
OTHER_OUTPUT = "it predicts other embeddings than it encodes"
PER_SAMPLE = {
    "constant_norm_rescale": "it scales every embedding to the same length, which no fixed input_scale can do",
    "layer_norm": "it standardizes each embedding on its own, which no fixed input_mean and input_scale can do",
}
"""Kinds of normalize_activations that no MSAE can do."""

PARAMETERS = {"W_enc": "d n", "b_enc": "n", "W_dec": "n d", "b_dec": "d"}
"""Tensors that most libraries name alike, and their shapes."""


class CodeInFileError(ValueError):
    """A file asks for a class or function, named in `asked_for`, so loading it would run code."""

    def __init__(self, name: str, asked_for: str) -> None:
        super().__init__(
            f"{name} holds more than tensors and numbers: it asks for {asked_for}, and loading that could run code "
            "hidden in the file. If you trust it, save the tensors alone: torch.save(module.state_dict(), ...)"
        )
        self.asked_for = asked_for


class Settings(dict):
    """Settings of a checkpoint, with the name of their file for errors and the overrides that the user gave."""

    def __init__(self, values: Mapping[str, Any], name: str, given: Mapping[str, Any] | None = None) -> None:
        super().__init__(values)
        self.name, self.given = name, given or {}

    def _typed(self, key: str, kind: type, expected: str, default: Any = None) -> Any:
        value = self.get(key, default)
        if value is not None and not isinstance(value, kind):
            raise ValueError(f"{key} of {self.name} is {_shown(value)}, expected {expected}")
        return value

    def flag(self, key: str, default: bool = False) -> bool:
        """Return a boolean, or the default if it is missing or null; refuse anything else, such as "false"."""
        value = self._typed(key, bool, "true or false")
        return default if value is None else value

    def word(self, key: str, default: str | None = None) -> str | None:
        """Return a string, the default if it is missing, or None if it is null."""
        return self._typed(key, str, "a text", default)

    def inner(self, key: str) -> Settings:
        """Return settings within these, empty if they are missing or null."""
        return Settings(self._typed(key, Mapping, "names and values") or {}, f"{key} of {self.name}", self.given)

    def choice(
        self, key: str, known: Iterable[str], default: str | None = None, refused: Mapping[str, str] | None = None
    ) -> str:
        """Return one of the known words; raise ValueError with the reason for a refused one, and for any other."""
        value = self.word(key, default)
        if value in (refused or {}):
            raise ValueError(f"{self.name} has {key}={value!r}: {refused[value]}, so it cannot be converted")
        if value not in known:
            raise ValueError(f"{self.name} has {key}={value!r}; hf_msae reads {', '.join(map(str, known))}")
        return value

    def whole(self, key: str) -> int:
        """Return a positive whole number."""
        return whole_number(self.get(key), f"{key} of {self.name}")

    def number(self, key: str) -> float:
        """Return a finite number."""
        return finite_number(self.get(key), f"{key} of {self.name}")

    def k(self, key: str, default: int | None = None) -> int:
        """Return the number of kept activations: what the user gave, or else what is stored."""
        if self.given.get("k") is not None:
            return whole_number(self.given["k"], "k")
        if self.get(key, default) is None:
            raise ValueError(f"{key} of {self.name} is missing: give the number of kept activations as k")
        return whole_number(self.get(key, default), f"{key} of {self.name}")

    def sizes(self, d: str, n: str, factor: str) -> dict[str, int]:
        """Return the width d and the number of latents n, which may be stored as a multiple of d."""
        width = self.whole(d)
        return {"d": width, "n": self.whole(n) if self.get(n) else width * self.whole(factor)}

    def refuse(self, reasons: Mapping[str, str]) -> None:
        """Raise ValueError with the reason if one of these flags is true."""
        for key, reason in reasons.items():
            if self.flag(key):
                raise ValueError(f"{self.name} has {key}={self[key]}: {reason}, so it cannot be converted")

    def refuse_transcoder(self) -> None:
        """Raise ValueError if it predicts embeddings of another width than it encodes."""
        if self.get("d_out") not in (None, self.get("d_in")):
            raise ValueError(f"{self.name} has d_in={self.get('d_in')} and d_out={self['d_out']}: {OTHER_OUTPUT}")


def state_dict(
    content: Any,
    name: str,
    required: Mapping[str, str],
    optional: Mapping[str, str] | None = None,
    counters: Sequence[str] = (),
    **sizes: int,
) -> tuple[dict[str, torch.Tensor], dict[str, int]]:
    """Return the tensors of a state dict and the sizes of all axes.

    Tables map names to shapes, with axes by name: `{"W_enc": "d n", "b_enc": "n"}`. Axes whose size is not given get
    that of the first tensor that has them. `counters` names further tensors, which need not be floating-point numbers.
    Raises ValueError for a tensor that is missing, unknown, of another shape or not finite.
    """
    tensors = tensors_of(content, name, counters)
    shapes = {**required, **(optional or {})}
    check_keys(tensors, required, (*shapes, *counters), name)
    for key, axes in shapes.items():
        if key in tensors:
            check_shape(tensors[key], axes, f"{key} of {name}", sizes)
    return tensors, sizes


def check_shape(tensor: torch.Tensor, axes: str, what: str, sizes: dict[str, int]) -> None:
    """Check a tensor's shape, e.g. "n d", against known sizes; sizes that are not known yet are added to them."""
    shape, names = tuple(tensor.shape), axes.split()
    if len(shape) == len(names):
        for axis, size in zip(names, shape, strict=True):
            sizes.setdefault(axis, size)
    if shape != tuple(sizes.get(axis) for axis in names):
        expected = ", ".join(str(sizes.get(axis, axis)) for axis in names) + ("," if len(names) == 1 else "")
        raise ValueError(f"{what} has shape {shape}, expected ({expected})")


def tensors_of(content: Any, name: str, counters: Sequence[str] = ()) -> dict[str, torch.Tensor]:
    """Return a state dict after checking that it holds only names and tensors of finite floating-point numbers."""
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{name} holds {type(content).__name__} {str(content)[:40]!r}, not names and tensors")
    for key, value in content.items():
        if not isinstance(value, torch.Tensor):
            raise ValueError(f"{name} holds a {type(value).__name__} under {key!r}, expected a tensor")
        if key not in counters:
            check_tensor(value, f"{key} of {name}")
    return dict(content)


def check_tensor(tensor: torch.Tensor, what: str) -> None:
    """Raise ValueError unless a tensor holds finite floating-point numbers."""
    if not tensor.is_floating_point():
        raise ValueError(f"{what} is of {tensor.dtype}, expected floating-point numbers")
    if not torch.isfinite(tensor).all():
        raise ValueError(f"{what} holds NaN or infinite values")


def check_keys(content: Mapping[str, Any], required: Iterable[str], known: Iterable[str], name: str) -> None:
    """Raise ValueError for a missing key, and for an unknown one: its part of the computation would be left out."""
    if missing := [key for key in required if key not in content]:
        raise ValueError(f"{name} has no {', '.join(missing)}; it has {', '.join(map(str, content)) or 'nothing'}")
    if other := [key for key in content if key not in set(known)]:
        raise ValueError(
            f"{name} also has {', '.join(map(str, other))}, which hf_msae does not know: leaving it out could change "
            "what the model computes"
        )


def only_one(tensors: Mapping[str, Any], names: Iterable[str], where: str) -> str | None:
    """Return the only name that is there, None if none is; raise ValueError if several are."""
    found = [name for name in names if name in tensors]
    if len(found) > 1:
        raise ValueError(f"{where} holds both {' and '.join(found)}: which is used is unclear")
    return found[0] if found else None


def finite_number(value: Any, what: str, expected: str = "one finite number") -> float:
    """Return a finite number, which may be in a tensor without dimensions; raise ValueError for anything else."""
    if getattr(value, "ndim", None) == 0:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{what} is {_shown(value)}, expected {expected}")
    return float(value)


def whole_number(value: Any, what: str) -> int:
    """Return a positive whole number, which may be in a tensor without dimensions; raise ValueError otherwise."""
    expected = "a whole number above 0"
    number = finite_number(value, what, expected)
    if number < 1 or not number.is_integer():
        raise ValueError(f"{what} is {_shown(value)}, expected {expected}")
    return int(number)


def _shown(value: Any) -> str:
    if isinstance(value, torch.Tensor) and value.ndim:
        return f"a tensor of shape {tuple(value.shape)}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def the_one(candidates: Sequence[str], name: str, what: str) -> str:
    """Return the only candidate; raise ValueError if there is none, or more than one."""
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        raise ValueError(f"{name} holds no {what}")
    shown = ", ".join(candidates[:20]) + (", ..." if len(candidates) > 20 else "")
    raise ValueError(f"{name} holds {len(candidates)} checkpoints, name one as subfolder: {shown}")


def reached(threshold: float | torch.Tensor) -> float:
    """Return the smallest float32 above a threshold that has to be exceeded: ours only has to be reached."""
    return float(torch.nextafter(torch.as_tensor(float(threshold)), torch.tensor(torch.inf)))


def gated_as_jump_relu(
    encoder: torch.Tensor, gate_bias: torch.Tensor, magnitude_bias: torch.Tensor, log_growth: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Express a gated encoder (arXiv 2404.16014) with shared directions as JumpReLU with other thresholds.

    With s = x' @ encoder, the code is relu(e s + magnitude_bias) where s + gate_bias > 0, e = exp(log_growth). In the
    pre-activation p = e s + magnitude_bias that is p > magnitude_bias - e gate_bias.
    """
    growth = log_growth.double().exp()
    threshold = (magnitude_bias.double() - growth * gate_bias.double()).clamp_min(0)
    return {"encoder": encoder.double() * growth, "latent_bias": magnitude_bias.double(), "threshold": threshold}
