"""LINE: open-vocabulary labels for neurons, found by a proposer, an imager and the neuron in a closed loop."""

import lazy_loader

# Imported when they are first used, so that none of torch, scikit-learn and pandas is needed to name a class.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
