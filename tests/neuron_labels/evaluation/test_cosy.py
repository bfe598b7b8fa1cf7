"""CoSy's scores against a literal computation, their intervals, and what cannot be scored."""

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu
from sklearn.metrics import roc_auc_score

from hf_msae.neuron_labels.evaluation.cosy import CosyScore, cosy_score
from hf_msae.neuron_labels.scoring import score, score_interval


@pytest.fixture(scope="module")
def activations():
    rng = np.random.default_rng(0)
    return np.maximum(rng.normal(size=800), 0).round(2), np.maximum(rng.normal(size=50) + 1, 0).round(2)


def test_scores_are_cosys(activations):
    control, synthetic = map(torch.from_numpy, activations)
    found = cosy_score(*activations)
    classes = torch.cat([torch.zeros(len(control)), torch.ones(len(synthetic))])
    assert found.auc == pytest.approx(roc_auc_score(classes, torch.cat([control, synthetic])))
    assert found.mad == pytest.approx(float((synthetic.mean() - control.mean()) / control.std()))
    u, p_value = mannwhitneyu(synthetic, control)
    assert (found.u, found.p_value) == (pytest.approx(u), pytest.approx(p_value))
    assert (found.num_control, found.num_synthetic) == (800, 50)


def test_intervals_hold_the_scores_and_shrink_with_images(activations):
    few, many = cosy_score(activations[0], activations[1][:8]), cosy_score(*activations)
    for found in (few, many):
        assert found.auc_low < found.auc < found.auc_high
        assert found.mad_low < found.mad < found.mad_high
    assert many.auc_high - many.auc_low < few.auc_high - few.auc_low
    assert many.mad_high - many.mad_low < few.mad_high - few.mad_low


def test_the_interval_of_mad_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    inside = 0
    for trial in range(100):
        found = cosy_score(rng.normal(size=200), rng.normal(size=40) + 1, num_resamples=200, seed=trial)
        inside += found.mad_low <= 1 <= found.mad_high
    assert 0.88 <= inside / 100 <= 1


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6 / 3])
@pytest.mark.parametrize("number", [2, 3, 30, 1000])
def test_rounding_gives_a_constant_control_no_deviation(value, number):
    found = cosy_score(np.full(number, value), np.array([value + 1, value + 2]))
    assert (found.mad, found.mad_low, found.mad_high, found.auc) == (0, 0, 0, 1)
    assert score("mad", np.array([value + 1, value + 2]), np.full(number, value)) == 0
    assert score_interval("mad", np.array([value + 1, value + 2]), np.full(number, value)) == (0, 0)


def test_a_constant_control_has_a_mad_of_0_and_no_difference_no_evidence():
    found = cosy_score(np.zeros(20), np.ones(5))
    assert (found.mad, found.mad_low, found.mad_high, found.auc) == (0, 0, 0, 1)
    same = cosy_score(np.zeros(20), np.zeros(5))
    assert (same.auc, same.mad, same.p_value) == (0.5, 0, 1)


def test_large_activations_keep_their_precision(activations):
    control, synthetic = activations
    shifted = cosy_score(control + 1e6, synthetic + 1e6)
    plain = cosy_score(control, synthetic)
    assert shifted.mad == pytest.approx(plain.mad, rel=1e-6)
    assert shifted.mad_low == pytest.approx(plain.mad_low, rel=1e-6)


def test_a_score_is_a_result(activations, tmp_path):
    found = cosy_score(*activations)
    found.save(tmp_path / "score.json")
    assert CosyScore.load(tmp_path / "score.json") == found
    assert f"{found.auc:.3f}" in str(found)
    assert cosy_score(*activations, seed=0) == found and cosy_score(*activations, seed=1) != found


@pytest.mark.parametrize(
    ("control", "synthetic", "message"),
    [
        (np.zeros(1), np.zeros(5), "control"),
        (np.zeros(5), np.zeros(0), "synthetic"),
        (np.zeros((5, 2)), np.zeros(5), r"\(5, 2\)"),
        (np.array([0, np.inf]), np.zeros(5), "inf"),
    ],
)
def test_what_cannot_be_scored_is_refused(control, synthetic, message):
    with pytest.raises(ValueError, match=message):
        cosy_score(control, synthetic)
