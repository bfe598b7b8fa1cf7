"""Statistics that every audit uses: intervals, multiple testing, null distributions, and the base of results."""

from .intervals import auroc, auroc_interval, bootstrap_interval, resampled_means, wilson_interval
from .multiple_testing import benjamini_hochberg, holm
from .nulls import matched_null, null_p_values, permutation_p_value, robust_spread
from .result import Result

__all__ = [
    "Result",
    "auroc",
    "auroc_interval",
    "benjamini_hochberg",
    "bootstrap_interval",
    "holm",
    "matched_null",
    "null_p_values",
    "permutation_p_value",
    "resampled_means",
    "robust_spread",
    "wilson_interval",
]
