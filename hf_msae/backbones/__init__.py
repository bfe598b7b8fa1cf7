"""Backbones: transformers' vision-language models, read or edited at a hook point."""

from .backbone import Backbone, prepare_images

__all__ = ["Backbone", "prepare_images"]
