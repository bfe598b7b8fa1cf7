"""Hyperspectral patches of fields: data, features, models, and what these models rely on and where they fail."""

import lazy_loader

# Imported when they are first used, so that a reader of patches needs neither shap nor PyWavelets.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
