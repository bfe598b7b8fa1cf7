"""The Hub: releases and their cards, models by name, other libraries' checkpoints, and embeddings."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

# Public name -> the module that defines it, imported when the name is first used: who loads a model by name needs the
# list of names alone.
_PUBLIC = {
    "FORMATS": "converters",
    "Release": "release",
    "ReleasedModel": "registry",
    "add_remote_code": "remote_code",
    "convert_checkpoint": "converters",
    "export_saelens": "saelens_export",
    "get_released": "registry",
    "list_released": "registry",
    "push_activations": "activations",
    "push_to_hub": "release",
    "render_activations_card": "activations",
    "render_model_card": "card",
    "write_model_card": "card",
}

__all__ = [
    "FORMATS",
    "Release",
    "ReleasedModel",
    "add_remote_code",
    "convert_checkpoint",
    "export_saelens",
    "get_released",
    "list_released",
    "push_activations",
    "push_to_hub",
    "render_activations_card",
    "render_model_card",
    "write_model_card",
]

if TYPE_CHECKING:
    from .activations import push_activations, render_activations_card
    from .card import render_model_card, write_model_card
    from .converters import FORMATS, convert_checkpoint
    from .registry import ReleasedModel, get_released, list_released
    from .release import Release, push_to_hub
    from .remote_code import add_remote_code
    from .saelens_export import export_saelens


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_PUBLIC[name]}", __name__), name)
    globals()[name] = value  # found without this function from now on
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
