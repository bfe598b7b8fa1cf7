"""How good labels are: CoSy, measures that pass sanity tests, pairs, baselines, and scores of sets of neurons."""

import lazy_loader

# Imported when they are first used: scores of activations need neither the data's libraries nor the concepts.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
