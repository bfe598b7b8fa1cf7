"""Ranks of SwordBench: they cover rows and seeds as their intervals do, and say what they are without and why."""

import numpy as np
import pytest
from scipy.stats import t

from hf_msae.statistics import mean_over_draws
from hf_msae.steering.summary import largest_equal_doses
from tests.steering.cell_results import result

ZEROS = [0] * 40


def share(number, of=40):
    return [1] * number + [0] * (of - number)


def figure(metric, value, concept="bias", **reason):
    ends = {} if value is None else {"low": value - 0.1, "high": value + 0.1}
    return {"concept": concept, "metric": metric, "value": value, **ends, **reason}


def test_ranks_have_the_draws_of_their_intervals():
    """One method is better by the same in each seed, another by as much on average, but not in each."""
    base = {("base", seed): (share(4), ZEROS) for seed in range(3)}
    steady = {("steady", seed): (share(20), ZEROS) for seed in range(3)}
    fickle = {("fickle", seed): (share(each), ZEROS) for seed, each in enumerate((6, 14, 40))}
    told = result({**base, **steady}).ranking().set_index("method")
    assert told["rank"].to_dict() == {"steady": 1, "base": 2}
    tied = result({**base, **fickle}).ranking().set_index("method")
    assert tied["rank"].to_dict() == {"fickle": 1, "base": 1}
    differences = [np.array(share(each)) - np.array(share(4)) for each in (6, 14, 40)]
    errors = [each.std(ddof=1) / np.sqrt(40) for each in differences]
    mean, error, freedom = mean_over_draws([each.mean() for each in differences], errors)
    assert tied.loc["base", "p_value"] == pytest.approx(2 * t.sf(mean / error, freedom)) and freedom < 3


def test_p_values_are_corrected_for_the_choice_of_the_best():
    """The best is chosen from the rows that it is compared in, so each of the ten pairs could have been the tested."""
    gains = {(f"m{number}", 0): (share(number), ZEROS) for number in (20, 16, 10, 9, 8)}
    ranking = result(gains).ranking().set_index("method")
    alone = result({place: gains[place] for place in (("m20", 0), ("m16", 0))}).ranking()["p_value"].iloc[1]
    assert 0 < alone < 0.1 and ranking.loc["m16", "p_value"] == pytest.approx(10 * alone)
    assert np.isnan(ranking.loc["m20", "p_value"]) and ranking["p_value"].max() <= 1


@pytest.mark.parametrize(
    ("number", "said"), [(71, "71 test rows are unbiased, and a verdict takes 72"), (72, "fewer than 10")]
)
def test_no_verdict_says_which_group_has_too_few_rows(number, said):
    verdict = result({("a", 0): (share(3, 80), [0] * number)}).verdict()
    assert "perfect steering on t is not defined: " in verdict and said in verdict


def test_seeds_that_differ_count_where_signs_are_flipped_too():
    """In groups of few rows, all rows of a seed say the same, and seeds contradict each other."""
    gains = {("a", seed): ([1] * 9 if seed else [-1] * 9, ZEROS) for seed in range(5)}
    gains |= {("b", seed): ([0] * 9, ZEROS) for seed in range(5)}
    assert result(gains).ranking()["rank"].tolist() == [1, 1]
    gains |= {("a", 0): ([1] * 9, ZEROS)}
    assert result(gains).ranking()["rank"].tolist() == [1, 2]


def test_a_rank_that_does_not_follow_the_means_says_why():
    """ "wide" cannot be told from the best, and "narrow", of a higher mean, can."""
    rng = np.random.default_rng(0)
    best = rng.permutation(share(40, 80))
    narrow = best.copy()
    narrow[np.flatnonzero(best)[:8]] = 0
    wide = rng.permutation([1] * 53 + [-1] * 22 + [0] * 5)
    gains = {(name, 0): (each.tolist(), ZEROS) for name, each in (("best", best), ("narrow", narrow), ("wide", wide))}
    table = result(gains).ranking().set_index("method")
    assert table["rank"].to_dict() == {"best": 1, "wide": 1, "narrow": 3}
    assert table.loc["narrow", "net_gain"] > table.loc["wide", "net_gain"]
    assert "best (p = " in table.loc["wide", "note"] and "narrow" in table.loc["wide", "note"]
    assert "best (p = " in table.loc["narrow", "note"] and "wide" in table.loc["narrow", "note"]
    assert table.loc["best", "note"] == ""
    del gains[("wide", 0)]
    assert result(gains).ranking()["note"].tolist() == ["", ""]


def test_ranks_name_the_methods_and_seeds_that_they_are_without():
    good, bad = (share(30), ZEROS), (share(3), ZEROS)
    gains = {(name, seed): each for seed in range(3) for name, each in (("a", good), ("b", bad))}
    assert result(gains).ranking()[["seeds", "missing"]].to_numpy().tolist() == [[3, ""]] * 2
    assert "without" not in result(gains).verdict()
    gains[("b", 1)] = gains[("c", 0)] = gains[("c", 1)] = gains[("c", 2)] = ([], [])
    found = result(gains)
    table = found.ranking()
    assert table["method"].tolist() == ["a", "b"] and table["seeds"].tolist() == [2, 2]
    assert table["missing"].unique().tolist() == ["without c; without seed 1 (not defined for b)"]
    assert f"ranks on t are {table['missing'].iloc[0]}" in found.verdict()


def test_one_draw_is_said_to_be_one():
    gains = {(name, seed): (share(number), ZEROS) for seed in range(2) for name, number in (("a", 30), ("b", 3))}
    assert result(gains).remarks() == []
    (remark,) = result({key: each for key, each in gains.items() if key[1] == 0}).remarks()
    assert "t are one draw" in remark


def test_means_name_the_seeds_and_concepts_that_they_are_without():
    whole = [figure("detection_auroc", 0.8, each) for each in ("bias", "night", "red")] + [figure("net_gain", 0.3)]
    failed = [figure("fit", None, "night", reason="no rows")]
    figures = {
        ("a", 0): whole,
        ("a", 1): [each for each in whole if each["concept"] != "night"] + failed,
        ("a", 2): whole[:-1],
        ("b", 0): [each for each in whole if each["concept"] == "bias"] + [figure("fit", None, "red", reason="x")],
    }
    gains = dict.fromkeys([*figures, ("b", 1), ("b", 2)], (share(3), ZEROS))
    summary = result(gains, figures=figures).summary(None).set_index(["method", "metric"])
    summary = summary[["seeds", "concepts", "missing"]]
    assert summary.loc[("a", "detection_auroc")].tolist() == [3, 3, "seed 1: concept night"]
    assert summary.loc[("a", "net_gain")].tolist() == [2, 1, "seed 2"]
    assert summary.loc[("b", "detection_auroc")].tolist() == [1, 1, "seeds 1, 2; concepts night, red"]
    assert summary.loc[("b", "net_gain"), "missing"] == "seeds 1, 2"
    (remark,) = result(gains, figures=figures).remarks()
    assert "detection_auroc of a is without seed 1: concept night" in remark and "one of 4" in remark


def test_removals_that_were_stretched_beyond_twice_are_marked():
    gains = {(name, seed): (share(number), ZEROS) for seed in range(2) for name, number in (("a", 30), ("b", 3))}
    figures = {
        (name, seed): [figure("stretch", value + seed), figure("dose", 0.2)]
        for seed in range(2)
        for name, value in (("a", 3.0), ("b", 1.0))
    }
    found = result(gains, figures=figures, equal=True)
    table = found.ranking(equal_dose=True).set_index("method")
    assert table["stretch"].to_dict() == {"a": 3.5, "b": 1.5}
    assert table["note"].to_dict() == {"a": "stretched 3.5 times", "b": ""} and "stretch" not in found.ranking()
    assert largest_equal_doses(found.frame)["t"] == pytest.approx(0.2 * np.mean([3, 4, 1, 2]))
    old = result(gains, equal=True)
    assert old.ranking(equal_dose=True)["stretch"].isna().all() and largest_equal_doses(old.frame) == {}
