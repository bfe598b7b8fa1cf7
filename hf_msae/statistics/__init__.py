"""Statistics that every audit uses: intervals, multiple testing, null distributions, and the base of results."""

from .draws import draws_interval as draws_interval
from .draws import mean_over_draws as mean_over_draws
from .findings import SEVERITIES as SEVERITIES
from .findings import Finding as Finding
from .findings import candidate as candidate
from .findings import confirmed as confirmed
from .findings import graded as graded
from .intervals import auroc as auroc
from .intervals import auroc_interval as auroc_interval
from .intervals import auroc_shares as auroc_shares
from .intervals import auroc_standard_error as auroc_standard_error
from .intervals import bootstrap_interval as bootstrap_interval
from .intervals import log_odds as log_odds
from .intervals import percentiles as percentiles
from .intervals import resampled_auroc as resampled_auroc
from .intervals import resampled_means as resampled_means
from .intervals import wilson_interval as wilson_interval
from .multiple_testing import benjamini_hochberg as benjamini_hochberg
from .multiple_testing import holm as holm
from .multiple_testing import matched_null as matched_null
from .multiple_testing import null_p_values as null_p_values
from .multiple_testing import robust_spread as robust_spread
from .result import Result as Result
