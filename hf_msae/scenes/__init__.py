"""Synthetic scenes: images and captions whose ground truth is known, and a small SigLIP trained on them."""

import lazy_loader

# Imported when they are first used: the location of the SigLIP is needed without datasets.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
