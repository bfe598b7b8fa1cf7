"""Statistics that every audit uses: intervals, multiple testing, null distributions, and the base of results."""

from .draws import draws_interval, mean_over_draws
from .findings import SEVERITIES, Finding, candidate, confirmed, graded
from .intervals import (
    auroc,
    auroc_interval,
    auroc_shares,
    bootstrap_interval,
    log_odds,
    resampled_auroc,
    resampled_means,
    wilson_interval,
)
from .multiple_testing import benjamini_hochberg, holm
from .nulls import matched_null, null_p_values, permutation_p_value, robust_spread
from .result import Result

__all__ = [
    "SEVERITIES",
    "Finding",
    "Result",
    "auroc",
    "auroc_interval",
    "auroc_shares",
    "benjamini_hochberg",
    "bootstrap_interval",
    "candidate",
    "confirmed",
    "draws_interval",
    "graded",
    "holm",
    "log_odds",
    "matched_null",
    "mean_over_draws",
    "null_p_values",
    "permutation_p_value",
    "resampled_auroc",
    "resampled_means",
    "robust_spread",
    "wilson_interval",
]
