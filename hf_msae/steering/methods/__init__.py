"""The methods, one file each. Importing this package registers them."""

from . import classifiers, mean_difference, pattern

__all__ = ["classifiers", "mean_difference", "pattern"]
