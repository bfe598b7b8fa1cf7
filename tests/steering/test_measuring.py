"""The figures of SwordBench, against the closed forms of the Gaussian task and against edits whose effect is known."""

import warnings

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.linear_model import Lasso, Ridge
from sklearn.svm import LinearSVC

from hf_msae.statistics import auroc
from hf_msae.steering import METHODS, Edit, NotDefinedError, Task, gaussian_task
from hf_msae.steering.cross_validation import few_rows, fit_best
from hf_msae.steering.damage import GROUPS, Judge, damage_figures
from hf_msae.steering.direction import Direction, levels
from hf_msae.steering.doses import dose_unit, injection_doses, removal_doses
from hf_msae.steering.measuring import measure
from hf_msae.steering.metrics import (
    CrossConcepts,
    concept_figures,
    cross_concept_figures,
    orthogonality_figures,
    robustness_figures,
)
from hf_msae.steering.tasks import TASKS
from hf_msae.steering.verdict import EPSILON, MIN_VERDICT_ROWS, is_perfect

STRENGTH = 2.5


class Known(Direction):
    """An edit along a given direction."""

    method = "known"

    def __init__(self, direction):
        self._given = np.asarray(direction)

    def _direction(self, X, concept, seed, others):
        return self._given


class KnownAsWithout(Known):
    """The same, but embeddings are moved to the mean of rows without the concept."""

    def _remove(self, x):
        return self._move_to(x, self._get("levels", x)[0])


class Oracle(Edit):
    """An edit that looks up the counterfactual of each row that has the bias."""

    method = "oracle"

    def __init__(self, task):
        has = task.concepts[task.bias]
        self._of = {
            row.tobytes(): other for row, other in zip(task.features[has], task.counterfactuals[has], strict=True)
        }
        self.parameters, self.provenance = {}, {"width": task.features.shape[1]}

    def _fit(self, X, concept, seed, *others):
        raise AssertionError

    def _score(self, x):
        return x[..., 0]

    def _remove(self, x):
        return torch.stack([torch.from_numpy(self._of.get(row.numpy().tobytes(), row.numpy())) for row in x])

    def _add(self, x, amount):
        return x


@pytest.fixture(scope="module")
def task():
    return gaussian_task(num_rows=6000, width=24, num_concepts=4, strength=STRENGTH, seed=3)


@pytest.fixture(scope="module")
def known(task):
    train = task.train
    return {
        concept: Known(direction).fit(task.features[train], task.concepts[concept][train])
        for concept, direction in zip(task.concepts, task.provenance["directions"], strict=True)
    }


def _fit(edit, task, concept="bias"):
    return edit.fit(task.features[task.train], task.concepts[concept][task.train])


def test_detection_and_separability_have_their_closed_forms(task, known):
    figures = concept_figures(known["concept 1"], task, "concept 1", seed=0)
    _, low, high = figures["detection_auroc"]
    assert low < norm.cdf(STRENGTH / np.sqrt(2)) < high and high - low < 0.02
    score, truth = known["concept 1"].score(task.features[task.test]), task.concepts["concept 1"][task.test]
    rng, groups = np.random.default_rng(0), [np.flatnonzero(truth), np.flatnonzero(~truth)]
    drawn = [np.concatenate([rng.choice(group, len(group)) for group in groups]) for _ in range(200)]
    error = np.std([auroc(truth[rows], score[rows]) for rows in drawn])
    assert figures["detection_auroc_se"][0] == pytest.approx(error, rel=0.25)
    assert np.isnan(figures["detection_auroc_se"][1:]).all()
    _, low, high = figures["separability"]
    assert low < STRENGTH / np.sqrt(2) < high


def test_a_removed_direction_leaves_nothing(task, known):
    figures = concept_figures(known["concept 1"], task, "concept 1", seed=0)
    assert figures["removal_auroc"][0] == 0.5
    for probe in ("leakage_linear", "leakage_nonlinear"):
        assert 0.46 < figures[probe][0] < 0.54


@pytest.mark.parametrize("kept", [0.0, 1e-6, 1e-3])
def test_probes_do_not_see_rounding_errors(task, kept):
    """A concept along one coordinate: what float32 leaves of it is no leakage, a thousandth of it is."""

    class Nearly(Known):
        def _remove(self, x):
            return kept * x + (1 - kept) * super()._remove(x)

    axis = np.eye(24)[0]
    mirror = task.provenance["directions"][1] - axis
    turned = task.features - 2 * np.outer(task.features @ mirror, mirror) / (mirror @ mirror)
    turned = _with(task, features=turned.astype(np.float32))
    figures = concept_figures(_fit(Nearly(axis), turned, "concept 1"), turned, "concept 1", seed=0)
    for probe in ("leakage_linear", "leakage_nonlinear"):
        assert figures[probe][0] > 0.85 if kept == 1e-3 else 0.46 < figures[probe][0] < 0.54


def test_half_a_removal_leaks(task):
    class Half(Known):
        def _remove(self, x):
            return 0.5 * (x + super()._remove(x))

    direction = task.provenance["directions"][1]
    figures = concept_figures(_fit(Half(direction), task, "concept 1"), task, "concept 1", seed=0)
    assert min(figures[name][0] for name in ("removal_auroc", "leakage_linear", "leakage_nonlinear")) > 0.85


def test_orthogonal_concepts_stay_when_others_go(task, known):
    cross = cross_concept_figures(known, task)
    for concept in known:
        detection = concept_figures(known[concept], task, concept, seed=0)["detection_auroc"][0]
        assert cross.areas[concept, concept] == 0.5 and cross.areas[concept, None] == pytest.approx(
            detection, abs=0.02
        )
        figures = robustness_figures(concept, cross)
        assert figures["robustness"][0] == pytest.approx(1, abs=0.01)
        assert figures["robustness_worst"][0] <= figures["robustness"][0]
        assert figures["robustness_change"][0] == pytest.approx(1, abs=0.01)
        for value, low, high in figures.values():
            assert low <= value <= high and 0 < high - low < 0.02


def test_robustness_has_the_interval_of_resampled_rows(task, known):
    """Against drawing rows and ranking them anew, for concepts that are found less well after each other's removal."""
    axes = np.array(task.provenance["directions"])
    mixed = {
        name: _fit(Known(axes[place] + 0.9 * axes[3 - place]), task, name)
        for place, name in ((1, "concept 1"), (2, "concept 2"))
    }
    cross = cross_concept_figures(mixed, task)
    value, low, high = robustness_figures("concept 1", cross)["robustness"]
    assert value < 0.985
    X = task.features[task.test]
    truth = task.concepts["concept 1"][task.test]
    before, after = mixed["concept 1"].score(X), mixed["concept 1"].score(mixed["concept 2"].remove(X))
    rng, ratios = np.random.default_rng(0), []
    rows = rng.permutation(len(X))[: sum(map(len, cross.shares["concept 1"]))]
    groups = [rows[truth[rows]], rows[~truth[rows]]]
    for _ in range(200):
        drawn = np.concatenate([rng.choice(group, len(group)) for group in groups])
        ratios.append(auroc(truth[drawn], after[drawn]) / auroc(truth[drawn], before[drawn]))
    assert high - low == pytest.approx(2 * 1.96 * np.std(ratios), rel=0.2)
    one = CrossConcepts(cross.areas, {"concept 1": (cross.shares["concept 1"][0][:1], cross.shares["concept 1"][1])})
    assert np.isfinite(robustness_figures("concept 1", one)["robustness"]).tolist() == [True, False, False]


def test_orthogonality_has_both_denominators(task, known):
    figures = orthogonality_figures(known, task)["concept 1"]
    assert figures["orthogonality"][0] == pytest.approx(1, abs=1e-5)
    assert figures["orthogonality"][2] - figures["orthogonality"][1] < 1e-6  # all rows are changed by the same
    nothing = {**known, "bias": Oracle(task)}  # its `add` changes nothing
    assert np.isnan(orthogonality_figures(nothing, task)["bias"]["orthogonality"][0])
    same = dict.fromkeys(known, known["bias"])
    figures = orthogonality_figures(same, task)["bias"]
    assert figures["orthogonality_mean"][0] == pytest.approx(0, abs=1e-6)
    assert figures["orthogonality"][0] == pytest.approx(1 / 4, abs=1e-6)


def test_orthogonality_has_the_interval_of_resampled_rows(task, known):
    """For an edit that moves half of the rows by each of two directions, its direction depends on the rows."""
    first, second = (torch.tensor(np.float32(task.provenance["directions"][place])) for place in (0, 1))

    class Varied(Known):
        def _add(self, x, amount):
            return x + amount * torch.where(x[:, :1] > 0.5, first, 0.5 * second).to(x.dtype)

    edits = {"bias": known["bias"], "varied": _fit(Varied(np.ones(24)), task)}
    figures = orthogonality_figures(edits, task)
    X = task.features[task.test].astype(np.float64)
    change, unit = edits["varied"].add(X) - X, known["bias"].direction.double().numpy()
    rng, drawn = np.random.default_rng(0), []
    for _ in range(300):
        mean = change[rng.integers(len(X), size=len(X))].mean(axis=0)
        drawn.append(1 - abs(mean @ unit) / np.linalg.norm(mean))
    for concept in edits:
        value, low, high = figures[concept]["orthogonality_mean"]
        assert low < value < high and high - low == pytest.approx(2 * 1.96 * np.std(drawn), rel=0.15)


def test_moving_along_the_true_direction_is_as_exact_as_the_noise_allows(task):
    edit = _fit(KnownAsWithout(task.provenance["directions"][0]), task)
    figures, _ = damage_figures(edit, Judge(task), seed=0)
    _, low, high = figures["exactness"]
    assert low < 1 - 1 / STRENGTH**2 < high
    value, low, high = figures["recovery"]
    assert low < 1.1 and high > 0.9 and value > 0.85
    assert figures["success"][0] > 0.1


def test_success_damage_and_over_correction_have_their_closed_forms(task, known):
    """The classifier is linear, so given a row without its noise, how often it is right is normal."""
    judge = Judge(task)
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
    figures, _ = damage_figures(known["bias"], judge, seed=0)
    for name, value in expected.items():
        found, low, high = figures[name]
        assert abs(found - value) < 3 * (high - low) / (2 * 1.96) and high - low < 0.1
    assert expected["success"] > 0.1


def test_the_counterfactual_itself_is_perfect_and_no_change_is_not(task):
    judge = Judge(task)
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


def test_moving_all_rows_away_from_the_label_of_the_bias_is_not_perfect(task):
    """It misleads no biased row any more and leaves unbiased ones alone, but is wrong about all aligned ones."""
    away = 10 * torch.tensor(task.provenance["target_direction"], dtype=torch.float32)
    oracle = Oracle(task)

    class Away(Oracle):
        def _remove(self, x):
            counterfactuals = oracle._remove(x)
            return torch.where((counterfactuals != x).any(dim=-1, keepdim=True), counterfactuals - away, x)

    figures, gains = damage_figures(Away(task), Judge(task), seed=0)
    assert figures["recovery"][1] > 1 and figures["damage"] == (0, 0, 0)
    assert figures["over_correction"][1] > 0.5 and is_perfect(figures, MIN_VERDICT_ROWS) is False
    assert figures["net_gain"][0] == pytest.approx(gains["biased"].mean() + gains["aligned"].mean())


def test_recovery_is_not_defined_where_the_bias_costs_nothing(task):
    """Where removal hurts and the reference is worse too, their ratio would look like a success."""
    away = np.float32(STRENGTH) * np.asarray(task.provenance["target_direction"], dtype=np.float32)
    worse = _with(task, counterfactuals=task.features + away)
    figures, _ = damage_figures(Oracle(worse), Judge(worse), seed=0)
    assert figures["success"][2] < 0 and figures["bias_cost"] == figures["success"]
    assert np.isnan(figures["recovery"]).all()
    assert is_perfect(figures, MIN_VERDICT_ROWS) is None


@pytest.fixture(scope="module")
def few():
    return gaussian_task(num_rows=500, width=8, num_concepts=1, strength=STRENGTH)


def _reasons(task, edit):
    found = measure(task, edit, seed=0, only_bias=True)["figures"]
    return {each["metric"]: each["reason"] for each in found if "reason" in each}


def test_the_reason_is_the_one_that_applies(few):
    """Each figure that is not defined can have several causes."""
    lda = METHODS["mean_difference"]()
    assert _reasons(few, lda) == {}
    biased = Judge(few).groups["biased"]
    split = few.split.copy()
    split[biased[4:]] = "train"
    assert _reasons(_with(few, split=split), lda)["recovery"].startswith("4 test rows are biased")
    same = _reasons(_with(few, counterfactuals=few.features.copy()), lda)
    assert f"on {len(biased)} biased rows it costs 0.000" in same["recovery"] and "0.000 to 0.000" in same["recovery"]
    assert "changes no feature" in same["exactness"] and "changes no feature" in same["injection_exactness"]
    without = _reasons(_without(few, "counterfactuals"), lda)
    assert set(without) == {"exactness", *(f"injection_{name}" for name in ("exactness", *_INJECTED))}
    assert all("no exact pairs" in each for each in without.values())


@pytest.mark.parametrize("other", ["the label", "the opposite of twin"])
def test_a_concept_that_is_another_one_says_which_by_name(few, other):
    bias = few.target == 1 if other == "the label" else few.concepts["bias"]
    given = _with(few, concepts={"bias": bias, "other": few.features[:, 0] > 0, "twin": ~few.concepts["bias"]})
    reason = _reasons(given, METHODS["joint_pattern"]())["fit"]
    assert reason.startswith(f"the concept cannot be told from {other}:") and "others[" not in reason


_INJECTED = ("gain", "gain_equal_dose", "stretch")


@pytest.mark.parametrize(("part", "said"), [(0.0, "by 0 of"), (1e-3, "by 0.00")])
def test_changes_that_are_too_small_for_equal_doses_say_how_small(few, part, said):
    reasons = _reasons(few, _scaled(part))
    assert f"`remove` changes biased rows {said}" in reasons["net_gain_equal_dose"]
    assert f"`add` changes unbiased rows {said}" in reasons["injection_gain_equal_dose"]
    assert ("stretch" in reasons) == ("injection_stretch" in reasons) == (part == 0)


def test_stretch_is_the_part_of_the_largest_equal_dose(few):
    by_part = {}
    for part in (1.0, 0.25):
        figures = measure(few, _scaled(part), seed=0, only_bias=True)["figures"]
        by_part[part] = found = {each["metric"]: each for each in figures}
        value, low, high = (found["stretch"][end] for end in ("value", "low", "high"))
        assert value * found["dose"]["value"] == pytest.approx(dose_unit(few)) and low < value < high
    for name in ("stretch", "injection_stretch"):
        assert by_part[0.25][name]["value"] == pytest.approx(4 * by_part[1.0][name]["value"], rel=1e-3)


def _scaled(part):
    class Scaled(METHODS["mean_difference"]):
        def _remove(self, x):
            return x + part * (super()._remove(x) - x)

        def _add(self, x, amount):
            return super()._add(x, part * amount)

    return Scaled()


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
    figures, _ = damage_figures(_fit(METHODS["reactive_clarc"](), control, control.bias), Judge(control), seed=0)
    assert figures["worst_group"][0] < 0.1 and figures["worst_group_before"][0] < 0.1
    assert is_perfect(figures, MIN_VERDICT_ROWS) is False
    assert is_perfect({**figures, "worst_group": (1.0, 1.0, 1.0)}, MIN_VERDICT_ROWS)


def test_the_same_fit_is_made_once(task):
    X, y = task.features[task.train].astype(np.float64), np.where(task.concepts["bias"][task.train], 1.0, -1.0)
    grid = {"C": [0.1, 1.0]}
    first = fit_best(LinearSVC(random_state=0), grid, X, y, 5, 0)
    assert fit_best(LinearSVC(random_state=0), grid, X, y, 5, 0) is first
    for other in ((LinearSVC(random_state=0), grid, X, -y, 5, 0), (LinearSVC(random_state=0), grid, X + 1, y, 5, 0)):
        assert np.abs(fit_best(*other).coef_ - first.coef_).max() > 1e-6
    assert fit_best(LinearSVC(random_state=0), {"C": [0.1]}, X, y, 5, 0) is not first


@pytest.mark.parametrize("estimator", [Ridge, Lasso])
def test_rows_that_are_sorted_by_class_have_the_same_settings(estimator):
    rng = np.random.default_rng(0)
    y = rng.permutation(np.where(np.arange(90) < 36, 1.0, -1.0))  # sorted, each fifth has one class
    X = rng.standard_normal((90, 40)) + 0.5 * y[:, None] * (np.arange(40) < 4)
    order = np.argsort(y, kind="stable")
    grid = {"alpha": [1e-5, 1e-3, 0.1, 10.0, 1000.0]}
    found = [fit_best(estimator(), grid, X[rows], y[rows], 5, 0) for rows in (slice(None), order)]
    assert found[1].alpha == found[0].alpha > 1e-3
    np.testing.assert_allclose(found[1].coef_, found[0].coef_, atol=1e-4)


def test_few_rows_keep_the_rare_class():
    concept = np.zeros(10_000, dtype=bool)
    concept[:30] = True
    rows = few_rows(concept, 500, seed=0)
    assert len(rows) == 500 == len(set(rows)) and concept[rows].sum() == 30
    assert few_rows(~concept, 40, seed=0).shape == (40,) and (~concept)[few_rows(~concept, 40, seed=0)].sum() == 20
    assert few_rows(concept[:100], 500, seed=0).tolist() == list(range(100))


def test_doses_grow_and_the_whole_is_the_removal(task, known):
    records = removal_doses(known["bias"], Judge(task), seed=0)[0]
    doses = [record["dose"] for record in records]
    assert doses == sorted(doses)
    figures, _ = damage_figures(known["bias"], Judge(task), seed=0)
    whole = next(record for record in records if record["part"] == 1)
    for name in ("success", "damage", "dose", "over_correction"):
        found = [whole[f"{name}{end}"] for end in ("", "_low", "_high")]
        assert found == pytest.approx(figures[name], abs=1e-6)


def test_at_equal_doses_the_size_of_a_removal_does_not_matter(task):
    """A removal that goes a quarter of the way gains less; scaled to the same doses, both are the same."""

    class Less(Known):
        def _remove(self, x):
            return 0.25 * super()._remove(x) + 0.75 * x

    judge, direction = Judge(task), task.provenance["directions"][0]
    found = [removal_doses(_fit(kind(direction), task), judge, seed=0) for kind in (Known, Less)]
    assert found[1][1] == pytest.approx(found[0][1], abs=1e-3)
    at_removal = [damage_figures(_fit(kind(direction), task), judge, seed=0)[0] for kind in (Known, Less)]
    assert at_removal[1]["net_gain"][0] < at_removal[0]["net_gain"][0] - 0.05
    _, (value, low, high), gains = found[0]
    means = {group: gains[group].mean() for group in gains}
    assert low < value < high
    assert value == pytest.approx(means["biased"] + means["unbiased"] + min(0, means["aligned"]))


def test_a_removal_of_nothing_has_no_equal_dose(task):
    class Nothing(Oracle):
        def _remove(self, x):
            return x

    records, figure, gains = removal_doses(Nothing(task), Judge(task), seed=0)
    assert np.isnan(figure).all() and gains == {} and [record["success"] for record in records] == [0] * len(records)


def test_injection_is_compared_with_the_counterfactual(task):
    shift = STRENGTH * torch.tensor(np.float32(task.provenance["directions"][0]))

    class Exact(Oracle):
        def _add(self, x, amount):
            return x + amount * shift

    class Opposite(Oracle):
        def _add(self, x, amount):
            return x - amount * shift

    judge = Judge(task)
    rows = judge.groups["unbiased"]
    same = judge.head.predict(task.features[rows]) == judge.head.predict(task.counterfactuals[rows])
    records, figures = injection_doses(Exact(task), judge, seed=0)
    whole = next(record for record in records if record["part"] == 1)
    assert whole["gain"] == figures["injection_gain"][0] == pytest.approx(1 - same.mean())
    assert whole["exactness"] == pytest.approx(1) and whole["gain_low"] < whole["gain"] < whole["gain_high"]
    assert max(records, key=lambda record: record["exactness"]) is whole
    doses = [record["dose"] for record in records]
    assert doses == sorted(doses) and 0 < figures["injection_gain_equal_dose"][0] < whole["gain"]
    records, figures = injection_doses(Opposite(task), judge, seed=0)
    assert figures["injection_gain"][2] < 0 and all(record["exactness"] < 0 for record in records)
    records, figures = injection_doses(Exact(task), Judge(_without(task, "counterfactuals")), seed=0)
    assert records == [] and np.isnan(list(figures.values())).all() and len(figures) == 2


def test_a_label_that_is_not_correlated_with_the_bias_has_no_groups():
    """Which label goes with the bias would be chance, and recovery a ratio of two of them."""
    judge = Judge(gaussian_task(num_rows=800, width=12, num_concepts=2, correlation=0.0, seed=0))
    with pytest.raises(NotDefinedError, match="not correlated in the training rows"):
        judge.groups  # noqa: B018
    assert Judge(gaussian_task(num_rows=800, width=12, num_concepts=2, correlation=-0.5, seed=0)).groups


def test_without_counterfactuals_the_reference_is_of_unbiased_rows(task):
    judge = Judge(_without(task, "counterfactuals"))
    assert Judge(task).reference_from == "pairs" and judge.reference_from == "unbiased"
    figures, _ = damage_figures(_fit(METHODS["lda"](), task), judge, seed=0)
    assert np.isnan(figures["exactness"]).all() and np.isfinite(figures["recovery"][0])


def test_labels_that_go_with_the_bias_are_found_in_training(task):
    judge = Judge(task)
    assert judge.goes_with_bias.tolist() == [1]
    biased = judge.groups["biased"]
    assert (task.target[biased] == 0).all() and task.concepts["bias"][biased].all()
    assert set(biased) <= set(task.test)


def test_a_task_without_aligned_rows_has_all_other_figures(task):
    aligned = Judge(task).groups["aligned"]
    split = task.split.copy()
    split[aligned] = "train"
    figures, _ = damage_figures(Oracle(task), Judge(_with(task, split=split)), seed=0)
    assert np.isnan(figures["over_correction"]).all() and is_perfect(figures, MIN_VERDICT_ROWS)
    record = removal_doses(Oracle(task), Judge(_with(task, split=split)), seed=0)[0][-1]
    assert np.isnan(record["over_correction"]) and np.isfinite([record["success"], record["damage_high"]]).all()
    assert np.isfinite([figures["recovery"], figures["worst_group"], figures["net_gain"]]).all()


@pytest.mark.parametrize("group", ["biased", "unbiased", "aligned"])
def test_few_rows_have_no_verdict(task, group):
    judge = Judge(task)
    rows = judge.groups[group]
    rows = rows[np.argsort(judge.correct(task.features[rows], rows), kind="stable")]  # those that mislead it first
    found, perfect = [], []
    for number in (MIN_VERDICT_ROWS, MIN_VERDICT_ROWS - 1, 10, 9):
        judge = Judge(task)
        vars(judge)["groups"] = {**judge.groups, group: rows[:number]}
        figures, _ = damage_figures(Oracle(task), judge, seed=0)
        assert judge.num_rows == number
        found.append({**figures, "worst_group": (1.0, 1.0, 1.0)})  # the rows were chosen for being wrong
        perfect.append(is_perfect(found[-1], number))
    assert perfect == [True, None, None, None]
    name = {"biased": "success", "unbiased": "damage", "aligned": "over_correction"}[group]
    assert np.isfinite(found[2][name]).all() and np.isfinite(found[3][name]).tolist() == [True, False, False]


def test_a_method_that_fails_as_often_as_allowed_hardly_looks_faultless():
    assert (1 - EPSILON) ** MIN_VERDICT_ROWS < 0.025 < (1 - EPSILON) ** (MIN_VERDICT_ROWS - 1)


@pytest.mark.parametrize(("number", "has_interval"), [(10, True), (9, False)])
def test_a_worst_group_of_few_rows_has_no_interval(task, number, has_interval):
    """The groups are of label and bias, so one may be small though all that lack the bias are many."""
    without = Judge(task).groups["unbiased"]
    split = task.split.copy()
    split[without[task.target[without] == 1][number:]] = "train"
    judge = Judge(_with(task, split=split))
    figures, _ = damage_figures(Oracle(task), judge, seed=0)
    assert judge.num_rows > MIN_VERDICT_ROWS and np.isfinite(figures["damage"]).all()
    for name in ("worst_group", "worst_group_before"):
        assert np.isfinite(figures[name]).tolist() == [True, has_interval, has_interval]
    assert (is_perfect(figures, judge.num_rows) is not None) == has_interval


def test_a_task_without_biased_rows_is_not_defined(task):
    has = task.concepts["bias"]
    split = np.where((task.split == "test") & has & (task.target == 0), "train", task.split)
    with pytest.raises(NotDefinedError, match="no biased"):
        damage_figures(Oracle(task), Judge(_with(task, split=split)), seed=0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bias": "frame"}, "frame"),
        ({"target": np.zeros(3, dtype=int)}, r"target.*\(3,\)"),
        ({"split": np.full(6000, "validation")}, "validation"),
        ({"target": np.full(6000, "cat")}, "<U3.*numbers"),
        ({"target": np.zeros(6000, dtype=int)}, "fewer than two labels"),
        ({"concepts": {"bias": np.full(6000, 0.5)}}, "0.5"),
        ({"features": np.full((6000, 24), np.nan, dtype=np.float32)}, "row 0"),
    ],
)
def test_a_task_that_does_not_fit_is_refused(task, changes, said):
    with pytest.raises(ValueError, match=said):
        _with(task, **changes)


def test_labels_that_training_lacks_are_named(task):
    target = task.target.copy()
    target[task.test[:5]], target[task.test[5]], target[task.train[0]] = 7, 9, 8
    with pytest.raises(ValueError, match="labels 7, 9, which"):
        _with(task, target=target)


def test_test_rows_that_are_training_rows_are_counted(task):
    features = task.features.copy()
    features[task.test[:3]] = features[task.train[4]]
    with pytest.warns(UserWarning, match=f"3 of {len(task.test)} test rows of gaussian"):
        _with(task, features=features)
    features = task.features.copy()
    features[task.test[1]] = features[task.test[0]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _with(task, features=features)


def _with(task, **changes):
    names = ("name", "backbone", "features", "concepts", "target", "bias", "split", "counterfactuals", "provenance")
    return Task(**{**{name: getattr(task, name) for name in names}, **changes})


def _without(task, name):
    return _with(task, **{name: None})


def test_a_task_says_what_it_is_made_of(task):
    assert repr(task) == (
        "Task('gaussian': 3000 training and 3000 test rows of width 24 from 'none', 2 labels, bias 'bias', "
        "other concepts concept 1, concept 2, concept 3, 6000 exact pairs)"
    )
    alone = _with(task, concepts={"bias": task.concepts["bias"]}, counterfactuals=None)
    assert "no other concepts, no exact pairs" in repr(alone)


def test_levels_turn_a_direction_towards_the_concept():
    X = np.array([[0.0, 0.0], [0.0, 2.0], [4.0, 0.0], [4.0, 2.0]])
    found = levels(X, np.array([True, True, False, False]), np.array([1.0, 0.0]))
    assert found["direction"].tolist() == [-1, 0] and found["levels"].tolist() == [-4, 0] and found["center"] == -2
