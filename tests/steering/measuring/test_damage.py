"""What removing a bias does to a classifier, and when that is perfect."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import norm

from hf_msae.steering import METHODS, NotDefinedError, gaussian_task
from hf_msae.steering.damage import GROUPS, Judge, damage_figures
from hf_msae.steering.doses import removal_doses
from hf_msae.steering.tasks import TASKS
from hf_msae.steering.verdict import EPSILON, MIN_VERDICT_ROWS, is_perfect
from tests.steering.measuring.known_edits import STRENGTH, KnownAsWithout, Oracle, fit


def test_moving_along_the_true_direction_is_as_exact_as_the_noise_allows(task, judge):
    edit = fit(KnownAsWithout(task.provenance["directions"][0]), task)
    figures, _ = damage_figures(edit, judge, seed=0)
    _, low, high = figures["exactness"]
    assert low < 1 - 1 / STRENGTH**2 < high
    value, low, high = figures["recovery"]
    assert low < 1.1 and high > 0.9 and value > 0.85
    assert figures["success"][0] > 0.1


def test_success_damage_and_over_correction_have_their_closed_forms(task, known, judge, damage):
    """The classifier is linear, so given a row without its noise, how often it is right is normal."""
    scaler, regression = (step for _, step in judge.head.steps)
    weights = regression.coef_[0] / scaler.scale_
    bias = regression.intercept_[0] - scaler.mean_ @ weights
    directions = np.array(task.provenance["directions"])
    present = np.column_stack(list(task.concepts.values()))
    plain = STRENGTH * (present @ directions + np.outer(task.target, task.provenance["target_direction"]))
    flip = STRENGTH * np.outer(1 - 2.0 * present[:, 0], directions[0])
    axis, center = (known["bias"].parameters[name].double().numpy() for name in ("direction", "center"))

    def accuracy(rows, means, weights):
        sign = 2 * task.target[rows] - 1
        return norm.cdf(sign * (means[rows] @ weights + bias) / np.linalg.norm(weights)).mean()

    def removed(rows):
        moved = plain + np.outer(center - plain @ axis, axis)
        of_noise = weights - (weights @ axis) * axis  # no noise is left along the direction
        sign = 2 * task.target[rows] - 1
        return norm.cdf(sign * (moved[rows] @ weights + bias) / np.linalg.norm(of_noise)).mean()

    biased, unbiased, aligned = (judge.groups[name] for name in GROUPS)
    expected = {
        "success": removed(biased) - accuracy(biased, plain, weights),
        "damage": accuracy(unbiased, plain, weights) - removed(unbiased),
        "over_correction": accuracy(aligned, plain + flip, weights) - removed(aligned),
    }
    for name, value in expected.items():
        found, low, high = damage[name]
        assert abs(found - value) < 3 * (high - low) / (2 * 1.96) and high - low < 0.1
    assert expected["success"] > 0.1


def test_the_counterfactual_itself_is_perfect_and_no_change_is_not(task, judge):
    figures, gains = damage_figures(Oracle(task), judge, seed=0)
    assert figures["recovery"] == (1, 1, 1) and figures["exactness"] == (1, 1, 1)
    assert figures["damage"] == (0, 0, 0) == figures["flip_rate"] == figures["drift"]
    assert is_perfect(figures, judge.num_rows)
    assert gains["biased"].mean() == pytest.approx(figures["success"][0])
    assert figures["over_correction"] == (0, 0, 0) and figures["net_gain"] == pytest.approx(figures["success"])
    assert not gains["unbiased"].any() and not gains["aligned"].any()

    class Nothing(Oracle):
        def _remove(self, x):
            return x

    figures, gains = damage_figures(Nothing(task), judge, seed=0)
    assert figures["success"] == (0, 0, 0) and figures["recovery"][0] == 0 and figures["exactness"][0] == 0
    assert not is_perfect(figures, judge.num_rows) and not gains["biased"].any() and not gains["unbiased"].any()
    assert figures["over_correction"][0] == pytest.approx(-gains["aligned"].mean())
    assert figures["over_correction"][0] < 0  # the bias still helps, which is no gain
    assert figures["net_gain"] == (0, 0, 0)


def test_moving_all_rows_away_from_the_label_of_the_bias_is_not_perfect(task, judge):
    """It misleads no biased row any more and leaves unbiased ones alone, but is wrong about all aligned ones."""
    away = 10 * torch.tensor(task.provenance["target_direction"], dtype=torch.float32)
    oracle = Oracle(task)

    class Away(Oracle):
        def _remove(self, x):
            counterfactuals = oracle._remove(x)
            return torch.where((counterfactuals != x).any(dim=-1, keepdim=True), counterfactuals - away, x)

    figures, gains = damage_figures(Away(task), judge, seed=0)
    assert figures["recovery"][1] > 1 and figures["damage"] == (0, 0, 0)
    assert figures["over_correction"][1] > 0.5 and is_perfect(figures, MIN_VERDICT_ROWS) is False
    assert figures["net_gain"][0] == pytest.approx(gains["biased"].mean() + gains["aligned"].mean())


def test_recovery_is_not_defined_where_the_bias_costs_nothing(task):
    """Where removal hurts and the reference is worse too, their ratio would look like a success."""
    away = np.float32(STRENGTH) * np.asarray(task.provenance["target_direction"], dtype=np.float32)
    worse = replace(task, counterfactuals=task.features + away)
    figures, _ = damage_figures(Oracle(worse), Judge(worse), seed=0)
    assert figures["success"][2] < 0 and figures["bias_cost"] == figures["success"]
    assert np.isnan(figures["recovery"]).all()
    assert is_perfect(figures, MIN_VERDICT_ROWS) is None


def test_a_gain_of_nothing_is_not_perfect():
    nothing = dict.fromkeys(("success", "damage", "over_correction"), (0.0, 0.0, 0.0))
    assert is_perfect({**nothing, "recovery": (1.0, 1.0, 1.0)}, MIN_VERDICT_ROWS) is False


@pytest.mark.parametrize(
    ("worst", "num_labels", "perfect"),
    [
        ((0.9, 0.8, 0.95), 2, True),
        ((0.55, 0.45, 0.65), 2, False),
        ((0.55, 0.45, 0.65), 4, True),
        ((0.013, 0.0, 0.04), 2, False),
        (None, 2, None),
    ],
)
def test_a_group_at_chance_is_not_perfect(worst, num_labels, perfect):
    figures = {"success": (0.5, 0.4, 0.6), "damage": (0.0, 0.0, 0.0), "over_correction": (0.0, 0.0, 0.0)}
    figures |= {"recovery": (1.0, 1.0, 1.0)} | ({} if worst is None else {"worst_group": worst})
    assert is_perfect(figures, MIN_VERDICT_ROWS, num_labels=num_labels) is perfect
    partly = {**figures, "recovery": (0.5, 0.4, 0.6)}
    assert is_perfect(partly, MIN_VERDICT_ROWS, num_labels=num_labels) is False


@pytest.mark.slow
def test_no_method_is_perfect_where_the_classifier_cannot_tell_the_label():
    """Of a random layer, it knows the bias and nothing else: nothing is left to damage."""
    control = TASKS["random_features"](num_rows=600, seed=0)
    figures, _ = damage_figures(fit(METHODS["reactive_clarc"](), control, control.bias), Judge(control), seed=0)
    assert figures["worst_group"][0] < 0.1 and figures["worst_group_before"][0] < 0.1
    assert is_perfect(figures, MIN_VERDICT_ROWS) is False
    assert is_perfect({**figures, "worst_group": (1.0, 1.0, 1.0)}, MIN_VERDICT_ROWS)


def test_a_label_that_is_not_correlated_with_the_bias_has_no_groups():
    """Which label goes with the bias would be chance, and recovery a ratio of two of them."""
    judge = Judge(gaussian_task(num_rows=800, width=12, num_concepts=2, correlation=0.0, seed=0))
    with pytest.raises(NotDefinedError, match="not correlated in the training rows"):
        judge.groups  # noqa: B018
    assert Judge(gaussian_task(num_rows=800, width=12, num_concepts=2, correlation=-0.5, seed=0)).groups


def test_without_counterfactuals_the_reference_is_of_unbiased_rows(task, judge):
    without = Judge(replace(task, counterfactuals=None))
    assert judge.reference_from == "pairs" and without.reference_from == "unbiased"
    figures, _ = damage_figures(fit(METHODS["lda"](), task), without, seed=0)
    assert np.isnan(figures["exactness"]).all() and np.isfinite(figures["recovery"][0])


def test_labels_that_go_with_the_bias_are_found_in_training(task, judge):
    assert judge.goes_with_bias.tolist() == [1]
    biased = judge.groups["biased"]
    assert (task.target[biased] == 0).all() and task.concepts["bias"][biased].all()
    assert set(biased) <= set(task.test)


def test_a_task_without_aligned_rows_has_all_other_figures(task, judge):
    aligned = judge.groups["aligned"]
    split = task.split.copy()
    split[aligned] = "train"
    figures, _ = damage_figures(Oracle(task), Judge(replace(task, split=split)), seed=0)
    assert np.isnan(figures["over_correction"]).all() and is_perfect(figures, MIN_VERDICT_ROWS)
    record = removal_doses(Oracle(task), Judge(replace(task, split=split)), seed=0)[0][-1]
    assert np.isnan(record["over_correction"]) and np.isfinite([record["success"], record["damage_high"]]).all()
    assert np.isfinite([figures["recovery"], figures["worst_group"], figures["net_gain"]]).all()


@pytest.mark.parametrize("group", ["biased", "unbiased", "aligned"])
def test_few_rows_have_no_verdict(task, group, judge):
    rows = judge.groups[group]
    rows = rows[np.argsort(judge.correct(task.features[rows], rows), kind="stable")]  # those that mislead it first
    oracle, found, perfect = Oracle(task), [], []
    for number in (MIN_VERDICT_ROWS, MIN_VERDICT_ROWS - 1, 10, 9):
        fewer = Judge(task)
        vars(fewer).update(head=judge.head, groups={**judge.groups, group: rows[:number]})
        figures, _ = damage_figures(oracle, fewer, seed=0)
        assert fewer.num_rows == number
        found.append({**figures, "worst_group": (1.0, 1.0, 1.0)})  # the rows were chosen for being wrong
        perfect.append(is_perfect(found[-1], number))
    assert perfect == [True, None, None, None]
    name = {"biased": "success", "unbiased": "damage", "aligned": "over_correction"}[group]
    assert np.isfinite(found[2][name]).all() and np.isfinite(found[3][name]).tolist() == [True, False, False]


def test_a_method_that_fails_as_often_as_allowed_hardly_looks_faultless():
    assert (1 - EPSILON) ** MIN_VERDICT_ROWS < 0.025 < (1 - EPSILON) ** (MIN_VERDICT_ROWS - 1)


@pytest.mark.parametrize(("number", "has_interval"), [(10, True), (9, False)])
def test_a_worst_group_of_few_rows_has_no_interval(task, number, has_interval, judge):
    """The groups are of label and bias, so one may be small though all that lack the bias are many."""
    without = judge.groups["unbiased"]
    split = task.split.copy()
    split[without[task.target[without] == 1][number:]] = "train"
    judge = Judge(replace(task, split=split))
    figures, _ = damage_figures(Oracle(task), judge, seed=0)
    assert judge.num_rows > MIN_VERDICT_ROWS and np.isfinite(figures["damage"]).all()
    for name in ("worst_group", "worst_group_before"):
        assert np.isfinite(figures[name]).tolist() == [True, has_interval, has_interval]
    assert (is_perfect(figures, judge.num_rows) is not None) == has_interval


def test_a_task_without_biased_rows_is_not_defined(task):
    has = task.concepts["bias"]
    split = np.where((task.split == "test") & has & (task.target == 0), "train", task.split)
    with pytest.raises(NotDefinedError, match="no biased"):
        damage_figures(Oracle(task), Judge(replace(task, split=split)), seed=0)
