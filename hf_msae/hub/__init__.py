"""The Hub: releases and their cards, models by name, other libraries' checkpoints, and embeddings."""

import lazy_loader

# Imported when they are first used: who loads a model by name needs the list of names alone.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
