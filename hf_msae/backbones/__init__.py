"""Backbones: transformers' vision-language models, with hook points to read and edit."""

from .backbone import Backbone
from .tokens import prepare_images

__all__ = ["Backbone", "prepare_images"]
