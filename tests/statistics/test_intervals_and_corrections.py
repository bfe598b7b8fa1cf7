"""Intervals, corrections and null distributions, against known values, scipy, and their promises."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from hf_msae.statistics import (
    auroc,
    auroc_interval,
    benjamini_hochberg,
    bootstrap_interval,
    holm,
    intervals,
    matched_null,
    null_p_values,
    percentiles,
    resampled_auroc,
    resampled_means,
    robust_spread,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [  # Newcombe, Statistics in Medicine 1998, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval_of_known_values(successes, trials, low, high):
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_wilson_interval_is_scipys_and_takes_arrays(level):
    successes = np.arange(0, 21)
    low, high = wilson_interval(successes, 20, level)
    for k in successes:
        expected = stats.binomtest(int(k), 20).proportion_ci(level, method="wilson")
        assert (low[k], high[k]) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize(("successes", "trials", "level"), [(3, 2, 0.95), (-1, 2, 0.95), (0, 0, 0.95), (1, 2, 95)])
def test_wilson_interval_refuses_impossible_counts(successes, trials, level):
    with pytest.raises(ValueError, match=str(level if level > 1 else float(successes))):
        wilson_interval(successes, trials, level)


def test_auroc_interval_of_known_values():
    low, high = auroc_interval(np.array([0.893, 1.0, 0.5]), np.array([51, 10, 30]), np.array([58, 1000, 30]))
    # Hanley and McNeil's example, whose own interval is 0.893 +- 1.96 * 0.0325: the lower end lies farther away.
    assert (low[0], high[0]) == pytest.approx((0.8115, 0.9399), abs=1e-4)
    assert low[1] == pytest.approx(0.905, abs=5e-3) and high[1] == 1, "a perfect area of ten samples proves little"
    assert low[2] + high[2] == pytest.approx(1)


def test_percentiles_leave_out_resamples_without_a_value():
    draws = np.append(np.arange(201.0), [np.nan, np.inf, -np.inf])
    assert percentiles(draws) == (5, 195)
    assert np.isnan(percentiles(draws[200:])).all()


def test_draws_are_of_the_seed_and_of_all_rows_whether_they_are_kept_or_not(monkeypatch):
    first, again, other = (resampled_means(np.eye(5), 200, seed) for seed in (0, 0, 1))
    assert (first == again).all() and (first != other).any() and (first.max(axis=0) > 0).all()
    monkeypatch.setattr(intervals, "_DRAWS_KEPT", 0)
    assert (resampled_means(np.eye(5), 200) == first).all()


def test_areas_of_resamples_are_those_of_the_rows_that_means_are_of():
    rng = np.random.default_rng(0)
    truth, scores = rng.random(30) < 0.4, rng.integers(5, size=(30, 2)) / 4  # with ties
    found = resampled_auroc(truth, scores, 8, seed=3)
    counts = np.rint(30 * resampled_means(np.eye(30), 8, seed=3)).astype(int)
    for areas, often in zip(found, counts, strict=True):
        rows = np.repeat(np.arange(30), often)
        assert areas == pytest.approx([roc_auc_score(truth[rows], column[rows]) for column in scores.T])
    assert np.isnan(resampled_auroc(np.array([True, False]), np.zeros((2, 1)), 20)).any()


def test_auroc_interval_covers_the_truth():
    rng, truth = np.random.default_rng(0), stats.norm.cdf(1.5 / 2**0.5)
    drawn = ((rng.normal(1.5, 1, (40, 1)), rng.normal(0, 1, 200)) for _ in range(300))
    low, high = auroc_interval(np.array([(positive > negative).mean() for positive, negative in drawn]), 40, 200)
    assert 0.9 < ((low <= truth) & (truth <= high)).mean() < 0.99


@pytest.mark.parametrize(("auroc", "positives"), [(1.2, 3), (-0.1, 3), (0.5, 0)])
def test_auroc_interval_refuses_impossible_figures(auroc, positives):
    with pytest.raises(ValueError, match=str(auroc if positives else positives)):
        auroc_interval(auroc, positives, 5)


def test_percentile_bootstrap_of_a_mean():
    values = np.random.default_rng(0).normal(3, 2, (2, 400))
    low, high = bootstrap_interval(values, num_resamples=4000, seed=1)
    error = values.std(axis=1, ddof=1) / 20
    np.testing.assert_allclose(low, values.mean(axis=1) - 1.96 * error, atol=0.03)
    np.testing.assert_allclose(high, values.mean(axis=1) + 1.96 * error, atol=0.03)
    again = bootstrap_interval(values[1], num_resamples=4000, seed=1)
    assert again == pytest.approx((low[1], high[1])), "samples share the draws"
    narrow = bootstrap_interval(values[0], level=0.5, seed=1)
    assert low[0] < narrow[0] < narrow[1] < high[0]


def test_bootstrap_of_other_statistics_and_methods():
    values = np.random.default_rng(0).exponential(size=200)
    low, high = bootstrap_interval(values, np.median, seed=0)
    assert low < np.median(values) < high < bootstrap_interval(values, np.max, seed=0)[1] == values.max()
    expected = stats.bootstrap((values,), np.mean, n_resamples=1000, rng=np.random.default_rng(5), method="bca")
    found = bootstrap_interval(values, method="bca", seed=5)
    assert found == pytest.approx(tuple(expected.confidence_interval), rel=0.02)


def test_bootstrap_covers_the_truth_as_often_as_it_says():
    samples = np.random.default_rng(0).normal(size=(500, 40))
    low, high = bootstrap_interval(samples, level=0.9, num_resamples=400)
    assert 0.85 < ((low < 0) & (high > 0)).mean() < 0.94


@pytest.mark.parametrize(("values", "level", "named"), [([1.0], 0.95, "1,"), ([1.0, 2.0], 0.0, "0.0")])
def test_bootstrap_refuses(values, level, named):
    with pytest.raises(ValueError, match=named):
        bootstrap_interval(values, level=level)


P = np.array([0.01, 0.04, 0.03, 0.005])


def test_corrections_of_known_values():
    # by hand: 4 * .005, 3 * .01, 2 * .03, 1 * .04, ascending; and 4/1 * .005, 4/2 * .01, 4/3 * .03, 4/4 * .04
    assert holm(P) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert benjamini_hochberg(P) == pytest.approx([0.02, 0.04, 0.04, 0.02])
    assert holm(np.array([0.9, 0.8])).tolist() == [1.0, 1.0]
    assert holm([]).size == benjamini_hochberg([]).size == 0


@pytest.mark.parametrize("correct", [holm, benjamini_hochberg])
@pytest.mark.parametrize(("p", "named"), [([0.5, 1.5], "1.5"), ([np.nan], "nan"), ([[0.1]], r"\(1, 1\)")])
def test_corrections_refuse_what_is_no_p_value(correct, p, named):
    with pytest.raises(ValueError, match=named):
        correct(np.array(p))


def test_corrections_keep_their_rates():
    """950 true null hypotheses beside 50 false ones: FDR below 5%, and hardly ever one false rejection with Holm."""
    rng, shares, families = np.random.default_rng(0), [], []
    for _ in range(200):
        z = rng.normal(size=1000) + np.r_[np.full(50, 4.0), np.zeros(950)]
        p = stats.norm.sf(z)
        found = benjamini_hochberg(p) <= 0.05
        shares.append(found[50:].sum() / max(1, found.sum()))
        families.append((holm(p)[50:] <= 0.05).any())
    assert np.mean(shares) < 0.055 and np.mean(families) < 0.09


def test_null_p_values_count_the_observed_value():
    null = np.array([1.0, 2.0, 3.0, 4.0])
    assert null_p_values(np.array([[5.0, 4.0], [2.5, 0.0]]), null).tolist() == [[0.2, 0.4], [0.6, 1.0]]
    with pytest.raises(ValueError, match="no draws"):
        null_p_values(1.0, [])


def test_matched_controls_are_the_nearest():
    candidates = np.arange(100.0)
    drawn = matched_null(50, candidates, 5, np.random.default_rng(0))
    assert len(set(drawn)) == 5 and (abs(drawn - 50) <= 5).all()
    assert set(matched_null(0, candidates, 3, np.random.default_rng(0), pool=3)) == {0, 1, 2}
    assert len(matched_null(0, candidates[:2], 5, np.random.default_rng(0))) == 2


def test_robust_spread_is_the_standard_deviation_and_ignores_outliers():
    values = np.random.default_rng(0).normal(0, 2, 10_000)
    assert robust_spread(values) == pytest.approx(2, rel=0.03)
    assert robust_spread(np.r_[values, np.full(1000, 1e6)]) == pytest.approx(2, rel=0.2)


def test_a_p_value_may_be_0_or_1():
    assert benjamini_hochberg([0.0, 1.0]).tolist() == holm([0.0, 1.0]).tolist() == [0.0, 1.0]


def test_auroc_is_that_of_scikit_learn_with_ties():
    rng = np.random.default_rng(0)
    truth, scores = rng.random(300) < 0.2, rng.integers(0, 9, (300, 4)).astype(float)
    expected = [roc_auc_score(truth, column) for column in scores.T]
    np.testing.assert_allclose(auroc(truth, scores), expected, rtol=1e-12)
    assert auroc(truth, scores[:, 0]) == pytest.approx(expected[0], rel=1e-12)
