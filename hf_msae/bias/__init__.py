"""Bias: which concepts drive a classifier, found by intervening on them."""

from .analysis import BiasReport, bias_report
from .probabilities import as_classifier

__all__ = ["BiasReport", "as_classifier", "bias_report"]
