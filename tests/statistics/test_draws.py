"""Means over draws that are measured on samples: intervals that cover both, whatever rows the draws share."""

import numpy as np
import pytest
from scipy import stats

from hf_msae.statistics import draws_interval, mean_over_draws


@pytest.mark.parametrize("shared", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("spread", [0.0, 0.5, 1.0, 4.0])
def test_intervals_cover_the_expected_value(spread, shared):
    """Draws with the given spread, each measured with an error of 1, of which a part is the same for all."""
    rng, draws, times = np.random.default_rng(0), 3, 20_000
    common, own = rng.standard_normal((1, times)), rng.standard_normal((draws, times))
    errors = np.sqrt(shared) * common + np.sqrt(1 - shared) * own
    values = spread * rng.standard_normal((draws, times)) + errors
    z = stats.norm.ppf(0.975)
    mean, low, high = draws_interval(values, values - z, values + z, shared)
    covered = ((low < 0) & (high > 0)).mean()
    assert 0.92 < covered < 0.975
    np.testing.assert_allclose(mean, values.mean(axis=0))
    if shared and spread < 1:  # taken as independent, common rows make intervals too short
        _, low, high = draws_interval(values, values - z, values + z, 0.0)
        assert ((low < 0) & (high > 0)).mean() < covered - 0.02


def test_one_draw_keeps_its_interval():
    assert [float(each) for each in draws_interval([0.3], [0.1], [0.4], 1.0)] == pytest.approx([0.3, 0.1, 0.4])


def test_many_draws_have_an_interval_around_their_mean():
    """Also where theirs are skewed, and one side of them is wide enough to explain how they differ."""
    mean, low, high = draws_interval([0.1, 0.2, 0.3], [0.05, 0.15, 0.25], [0.6, 0.7, 0.8])
    assert mean == pytest.approx(0.2) and high - mean == pytest.approx(mean - low)


def test_draws_without_errors_have_the_interval_of_student():
    values = np.array([1.0, 2.0, 4.0, 4.5])
    found = draws_interval(values, values, values)
    expected = stats.t.interval(0.95, 3, values.mean(), stats.sem(values))
    assert [float(each) for each in found[1:]] == pytest.approx(expected)


def test_draws_that_agree_have_the_error_of_their_rows():
    mean, error, freedom = mean_over_draws(np.full(4, 0.2), np.full(4, 0.1))
    assert (mean, error, freedom) == (pytest.approx(0.2), pytest.approx(0.05), np.inf)
    assert mean_over_draws(np.full(4, 0.2), np.full(4, 0.1), 1.0)[1] == pytest.approx(0.1)
    assert np.isnan(draws_interval([0.1, 0.2], [0.0, np.nan], [0.2, np.nan])[1])


@pytest.mark.parametrize(
    ("given", "said"), [(([], []), r"\(0,\)"), (([1.0], [1.0, 2.0]), r"\(2,\)"), (([1.0], [1.0], 1.5), "1.5")]
)
def test_what_cannot_be_combined_is_refused(given, said):
    with pytest.raises(ValueError, match=said):
        mean_over_draws(*given)
