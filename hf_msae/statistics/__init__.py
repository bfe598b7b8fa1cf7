"""Statistics that every audit uses: intervals, multiple testing, null distributions, and the base of results."""

from .findings import SEVERITIES, Finding, candidate, confirmed
from .intervals import auroc, auroc_interval, bootstrap_interval, resampled_auroc, resampled_means, wilson_interval
from .multiple_testing import benjamini_hochberg, holm
from .nulls import matched_null, null_p_values, permutation_p_value, robust_spread
from .result import Result

__all__ = [
    "SEVERITIES",
    "Finding",
    "Result",
    "auroc",
    "auroc_interval",
    "benjamini_hochberg",
    "bootstrap_interval",
    "candidate",
    "confirmed",
    "holm",
    "matched_null",
    "null_p_values",
    "permutation_p_value",
    "resampled_auroc",
    "resampled_means",
    "robust_spread",
    "wilson_interval",
]
