"""Bias: which concepts drive a classifier, found by intervening on them."""

from .analysis import bias_report
from .probabilities import as_classifier
from .result import BiasReport

__all__ = ["BiasReport", "as_classifier", "bias_report"]
