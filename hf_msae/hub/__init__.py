"""The Hub: releases and their cards, models by name, other libraries' checkpoints, and embeddings."""

from .activations import push_activations, render_activations_card
from .card import render_model_card, write_model_card
from .converters import FORMATS, convert_checkpoint
from .registry import ReleasedModel, get_released, list_released
from .release import Release, push_to_hub
from .remote_code import add_remote_code
from .saelens_export import export_saelens

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
