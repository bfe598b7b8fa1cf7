"""Pairs with and without a concept: drops, the exact test, intervals, and pairs that do not match."""

from itertools import product

import numpy as np
import pytest
from scipy.stats import permutation_test

from hf_msae.neuron_labels.evaluation.pairs import PairConfirmation, confirm_by_pairs, sign_flip_p_value


def test_a_planted_drop_is_found_with_its_share_of_the_range():
    rng = np.random.default_rng(0)
    without = rng.random(60)
    found = confirm_by_pairs(without + 0.5 + 0.1 * rng.normal(size=60), without, reference=np.array([0.0, 2.0]))
    assert found.drop == pytest.approx(0.5, abs=0.05)
    assert found.low < 0.5 < found.high
    assert found.share_of_range == pytest.approx(found.drop / 2)
    assert found.share == 1 and found.share_high == 1 and 0.9 < found.share_low < 1
    assert found.p_value == pytest.approx(1 / 10_000)
    assert found.num_pairs == 60


def test_a_concept_that_does_not_matter_is_not_confirmed():
    rng = np.random.default_rng(1)
    p_values = [sign_flip_p_value(rng.normal(size=8)) for _ in range(1000)]
    assert 0.03 <= np.mean(np.array(p_values) <= 0.05) <= 0.07


@pytest.mark.parametrize("n", [2, 5, 9])
def test_few_pairs_have_an_exact_p_value(n):
    drops = np.random.default_rng(n).normal(size=n).round(1) + 0.5
    means = [np.mean(np.array(signs) * drops) for signs in product((1, -1), repeat=n)]
    assert sign_flip_p_value(drops) == pytest.approx(np.mean(np.array(means) >= drops.mean() - 1e-12))


def test_many_pairs_have_the_p_value_of_scipy():
    drops = np.random.default_rng(3).normal(size=40) + 0.25
    wanted = permutation_test((drops,), np.mean, permutation_type="samples", alternative="greater", rng=0).pvalue
    assert sign_flip_p_value(drops) == pytest.approx(wanted, abs=0.01)


def test_pairs_that_stay_the_same_do_not_drop():
    found = confirm_by_pairs(np.ones(6), np.ones(6))
    assert (found.drop, found.low, found.high, found.share, found.p_value) == (0, 0, 0, 0, 1)
    assert np.isnan(found.share_of_range)
    half = confirm_by_pairs(np.array([1.0, 1, 1, 1]), np.array([0.0, 0, 1, 1]))
    assert half.share == 0.5 and half.share_of_range == 0.5


def test_a_rise_counts_against_the_concept():
    found = confirm_by_pairs(np.zeros(8), np.arange(1.0, 9))
    assert found.drop < 0 and found.share == 0 and found.p_value == 1


def test_a_confirmation_is_a_result(tmp_path):
    found = confirm_by_pairs(np.arange(1.0, 9), np.zeros(8))
    found.save(tmp_path / "pairs.json")
    assert PairConfirmation.load(tmp_path / "pairs.json") == found
    assert "100% of 8 pairs" in str(found)


@pytest.mark.parametrize(
    ("there", "gone", "reference", "message"),
    [
        (np.zeros(3), np.zeros(4), None, r"\(3,\).*\(4,\)"),
        (np.zeros(1), np.zeros(1), None, "at least 2 pairs"),
        (np.array([0, np.nan]), np.zeros(2), None, "nan"),
        (np.zeros(2), np.zeros(2), np.zeros(0), "reference"),
    ],
)
def test_pairs_that_do_not_match_are_refused(there, gone, reference, message):
    with pytest.raises(ValueError, match=message):
        confirm_by_pairs(there, gone, reference)
