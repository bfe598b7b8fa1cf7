"""Doses of removal and of injection, and the reasons of figures that are not defined."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hf_msae.steering import METHODS
from hf_msae.steering.damage import Judge, damage_figures
from hf_msae.steering.doses import dose_unit, injection_doses, removal_doses
from hf_msae.steering.measuring import measure
from tests.steering.measuring.known_edits import STRENGTH, Known, Oracle, fit


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
    assert _reasons(replace(few, split=split), lda)["recovery"].startswith("4 test rows are biased")
    same = _reasons(replace(few, counterfactuals=few.features.copy()), lda)
    assert f"on {len(biased)} biased rows it costs 0.000" in same["recovery"] and "0.000 to 0.000" in same["recovery"]
    assert "changes no feature" in same["exactness"] and "changes no feature" in same["injection_exactness"]
    without = _reasons(replace(few, counterfactuals=None), lda)
    assert set(without) == {"exactness", *(f"injection_{name}" for name in ("exactness", *_INJECTED))}
    assert all("no exact pairs" in each for each in without.values())


@pytest.mark.parametrize("other", ["the label", "the opposite of twin"])
def test_a_concept_that_is_another_one_says_which_by_name(few, other):
    bias = few.target == 1 if other == "the label" else few.concepts["bias"]
    given = replace(few, concepts={"bias": bias, "other": few.features[:, 0] > 0, "twin": ~few.concepts["bias"]})
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


def test_doses_grow_and_the_whole_is_the_removal(doses, damage):
    records = doses[0]
    sizes = [record["dose"] for record in records]
    assert sizes == sorted(sizes)
    whole = next(record for record in records if record["part"] == 1)
    for name in ("success", "damage", "dose", "over_correction"):
        found = [whole[f"{name}{end}"] for end in ("", "_low", "_high")]
        assert found == pytest.approx(damage[name], abs=1e-6)


def test_at_equal_doses_the_size_of_a_removal_does_not_matter(task, judge, doses, damage):
    """A removal that goes a quarter of the way gains less; scaled to the same doses, both are the same."""

    class Less(Known):
        def _remove(self, x):
            return 0.25 * super()._remove(x) + 0.75 * x

    less = fit(Less(task.provenance["directions"][0]), task)
    _, (value, low, high), gains = doses
    assert removal_doses(less, judge, seed=0)[1] == pytest.approx((value, low, high), abs=1e-3)
    assert damage_figures(less, judge, seed=0)[0]["net_gain"][0] < damage["net_gain"][0] - 0.05
    means = {group: gains[group].mean() for group in gains}
    assert low < value < high
    assert value == pytest.approx(means["biased"] + means["unbiased"] + min(0, means["aligned"]))


def test_a_removal_of_nothing_has_no_equal_dose(task, judge):
    class Nothing(Oracle):
        def _remove(self, x):
            return x

    records, figure, gains = removal_doses(Nothing(task), judge, seed=0)
    assert np.isnan(figure).all() and gains == {} and [record["success"] for record in records] == [0] * len(records)


def test_injection_is_compared_with_the_counterfactual(task, judge):
    shift = STRENGTH * torch.tensor(np.float32(task.provenance["directions"][0]))

    class Exact(Oracle):
        def _add(self, x, amount):
            return x + amount * shift

    class Opposite(Oracle):
        def _add(self, x, amount):
            return x - amount * shift

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
    records, figures = injection_doses(Exact(task), Judge(replace(task, counterfactuals=None)), seed=0)
    assert records == [] and np.isnan(list(figures.values())).all() and len(figures) == 2
