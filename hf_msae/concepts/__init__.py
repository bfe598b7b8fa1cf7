"""Concepts: names for latents with their evidence, explanations of embeddings, and hierarchies."""

import lazy_loader

# Imported when they are first used: an explanation needs neither the data's libraries nor scipy.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
