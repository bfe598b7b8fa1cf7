"""Types of the fields of config.json, and errors in one line: the file, the field, its value, what it has to be."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import torch
from huggingface_hub.errors import StrictDataclassError

T = TypeVar("T")

_LISTS = ("nesting_ks", "nesting_widths", "nesting_weights")
_FLOATS = ("sparsity_coefficient", "soft_cap", "jump_relu_threshold", "jump_relu_bandwidth")


def accept_tuples_and_ints(cls: type) -> type:
    """Convert tuples to lists and ints to floats, as JSON would, before a strict config checks their types."""
    checked_setattr = cls.__setattr__

    def as_float(number: Any) -> Any:
        return float(number) if type(number) is int else number

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _LISTS and isinstance(value, (list, tuple)):
            value = [as_float(weight) for weight in value] if name == "nesting_weights" else list(value)
        checked_setattr(self, name, as_float(value) if name in _FLOATS else value)

    cls.__setattr__ = __setattr__
    return cls


class MissingConfigError(OSError):
    """A folder or repository has no config.json."""


def _is_dtype(name: Any) -> bool:
    found = getattr(torch, name.removeprefix("torch."), None) if isinstance(name, str) else None
    return isinstance(found, torch.dtype) and found.is_floating_point


# Fields of every transformers config, which transformers uses without looking at them.
_DTYPE = (lambda value: value is None or _is_dtype(value), "a floating-point dtype of torch, such as float32")
_ATTENTION = (lambda value: value in (None, "eager"), "null or eager, since an MSAE has no attention")
_LABELS = (
    lambda value: isinstance(value, dict) and all(str(key).isdecimal() for key in value),
    "a map from numbers to names",
)
_UNCHECKED = {
    "dtype": _DTYPE,
    "torch_dtype": _DTYPE,
    "attn_implementation": _ATTENTION,
    "_attn_implementation": _ATTENTION,
    "id2label": (lambda value: value is None or _LABELS[0](value), _LABELS[1]),
    "num_labels": (lambda value: type(value) is int and 0 <= value <= 10_000, "an integer from 0 to 10,000"),
    "quantization_config": (lambda value: value is None, "null, since an MSAE cannot be quantized"),
}


def check_has_settings(config: Path, error: Exception | None = None) -> None:
    """Raise ValueError if config.json exists but has no settings."""
    if not config.is_file():
        return
    content = json.loads(config.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or not content:
        kind = type(content).__name__ if content else repr(content)
        raise ValueError(f"{config} holds {kind}, but must map the names of settings to values") from error


def read_config(cls: type, content: Mapping[str, Any], source: str, read: Callable[[dict[str, Any]], T]) -> T:
    """Make a config of the content of config.json by calling `read`; errors name the file and the field."""
    for name, (holds, wanted) in _UNCHECKED.items():
        if name in content and not holds(content[name]):
            raise _error(source, name, content[name], wanted)
    try:
        return read(dict(content))
    except (AttributeError, LookupError, TypeError, ValueError, StrictDataclassError) as error:
        if isinstance(error, ValueError) and not isinstance(error, StrictDataclassError):
            raise ValueError(f"{source}: {error}") from error
        kinds = {field.name: field.type for field in fields(cls)}
        for name in content:  # without which one can it be read?
            try:
                read({key: value for key, value in content.items() if key != name})
            except (AttributeError, LookupError, TypeError, ValueError, StrictDataclassError):
                continue  # it is not this one, or not this one alone
            wanted = _spelled(kinds[name]) if name in kinds else "of another type"
            raise _error(source, name, content[name], wanted) from error
        raise ValueError(f"{source}: {' '.join(str(error).split())}") from error


def _error(source: str, name: str, value: Any, wanted: str) -> ValueError:
    shown = repr(value)
    return ValueError(f"{source}: {name} is {shown if len(shown) <= 100 else shown[:99] + '…'}, but must be {wanted}")


def _spelled(kind: Any) -> str:
    """Write a type as people and JSON name it."""
    if kind is type(None):
        return "null"
    if get_origin(kind) is Literal:
        return " or ".join(map(str, get_args(kind)))
    if get_origin(kind) in (list, dict) or not get_args(kind):
        return {"str": "a string", "int": "an integer", "float": "a number", "bool": "true or false"}.get(
            getattr(kind, "__name__", ""), str(kind)
        )
    return " or ".join(map(_spelled, get_args(kind)))
