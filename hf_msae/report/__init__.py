"""One HTML page about a model: how good it is, what its latents show, what drives a classifier, what it finds."""

import lazy_loader

# Imported when they are first used: the page of a red team needs neither steering nor an MSAE.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
