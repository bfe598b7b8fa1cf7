"""Ranks of SwordBench by the net gain, over rows, seeds and tasks, and the doses that work."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from hf_msae.steering import gaussian_task
from hf_msae.steering.tasks.task import shared_rows
from tests.steering.cell_results import dosed, result


def test_ranks_and_p_values_are_of_the_net_gain():
    """In pooled rows "cautious" gains more, in the sum of the two means "bold" does."""
    bold, cautious = ([1] * 30 + [0] * 10, [-1] * 300 + [0] * 700), ([1] * 2 + [0] * 38, [0] * 1000)
    ranking = result({("cautious", 0, "x"): cautious, ("bold", 0, "x"): bold}).ranking()
    assert ranking["method"].tolist() == ["bold", "cautious"] and ranking["rank"].tolist() == [1, 2]
    assert ranking["net_gain"].tolist() == pytest.approx([0.45, 0.05]) and ranking["p_value"].iloc[1] < 0.001


def test_over_correction_counts_against_a_method_and_its_absence_not_for_it():
    same = [1] * 10 + [0] * 30, [0] * 40
    over, under, exact = ((*same, [value] * 30 + [0] * 10) for value in (-1, 1, 0))
    ranking = result({("over", 0, "x"): over, ("under", 0, "x"): under, ("exact", 0, "x"): exact}).ranking()
    gains = ranking.set_index("method")["net_gain"]
    assert gains.to_dict() == {"under": 0.25, "exact": 0.25, "over": -0.5}
    assert ranking.set_index("method")["rank"].to_dict() == {"under": 1, "exact": 1, "over": 3}


def test_rows_that_seeds_share_count_once():
    rng = np.random.default_rng(0)
    a, b = ([rng.integers(-1, 2, n).tolist() for n in (40, 60, 50)] for _ in range(2))
    once = result({("a", 0, "x"): a, ("b", 0, "x"): b}).ranking()
    repeated = result({(name, seed, "x"): each for seed in range(5) for name, each in (("a", a), ("b", b))}).ranking()
    assert repeated.drop(columns="seeds").equals(once.drop(columns="seeds")) and 0 < once["p_value"].iloc[1] < 1
    others = {(name, seed, f"{seed}"): each for seed in range(5) for name, each in (("a", a), ("b", b))}
    assert result(others).ranking()["p_value"].iloc[1] < once["p_value"].iloc[1]


def test_rows_that_tasks_of_several_seeds_have_in_common_count_once():
    """The same gains in rows that are all the same, or half of them, or of which it is not known."""
    rng = np.random.default_rng(0)
    a, b = ([rng.integers(-1, 2, n).tolist() for n in (40, 60, 50)] for _ in range(2))
    once = result({("a", 0, "x"): a, ("b", 0, "x"): b}).ranking()["p_value"].iloc[1]
    gains = {(name, seed, f"{seed}"): each for seed in range(4) for name, each in (("a", a), ("b", b))}
    found = [result(gains, shared).ranking()["p_value"].iloc[1] for shared in (0.0, 0.5, 1.0, None)]
    z = [norm.isf(p / 2) / norm.isf(once / 2) for p in found]
    assert z == pytest.approx([2, np.sqrt(4 / 2.5), 1, 1])
    few = {key: tuple(group[:8] for group in each) for key, each in gains.items()}  # tested by signs
    assert result(few, 1.0).ranking()["p_value"].iloc[1] > result(few, 0.0).ranking()["p_value"].iloc[1]


def test_intervals_of_ranks_cover_rows_and_seeds():
    """Seeds that differ have a wider interval than their rows explain; a group of few rows has none."""
    same = {("a", seed, f"{seed}"): ([1] * 20 + [0] * 20, [0] * 40) for seed in range(3)}
    differing = {
        ("a", seed, f"{seed}"): ([1] * (5 + 15 * seed) + [0] * (35 - 15 * seed), [0] * 40) for seed in range(3)
    }
    widths = []
    for gains in (same, differing):
        row = result(gains).ranking().iloc[0]
        assert row["net_gain"] == pytest.approx(0.5) and row["low"] + row["high"] == pytest.approx(1)
        widths.append(row["high"] - row["low"])
    assert widths[0] == pytest.approx(2 * 1.96 * np.sqrt(0.25 / 39 / 3), rel=1e-3)
    assert widths[1] > 2 * 4 * 0.375 / np.sqrt(3)  # Student's t of two degrees of freedom
    few = result({("a", 0, "x"): ([1, 0] * 4, [0] * 40)}).ranking().iloc[0]
    assert few["net_gain"] == 0.5 and np.isnan([few["low"], few["high"]]).all()
    alike = result({("a", 0, "x"): ([0, 0], [1, 0] * 20)}).ranking().iloc[0]  # rows of no variance are as few
    assert alike["net_gain"] == 0.5 and np.isnan([alike["low"], alike["high"]]).all()


def test_shared_rows_are_those_of_the_same_inputs():
    tasks = [gaussian_task(num_rows=400, width=12, num_concepts=3, seed=seed) for seed in (0, 1)]
    assert shared_rows(tasks) == 0 and shared_rows([tasks[0]] * 2) == 1 and shared_rows(tasks[:1]) == 1
    named = [
        replace(task, provenance={"inputs": np.arange(start, start + 400).tolist()})
        for task, start in zip(tasks, (0, 50), strict=True)
    ]
    assert shared_rows(named) == 0.75


@pytest.mark.parametrize("number", [1, 4, 5, 30])
def test_few_rows_or_rows_that_are_all_alike_are_tested_by_their_signs(number):
    """With n rows of the same difference, 2 of 2^n choices of signs are as extreme; with many, choices are drawn."""
    gains = {("a", 0, "x"): ([1] * number, [0] * 50), ("b", 0, "x"): ([0] * number, [0] * 50)}
    ranking = result(gains).ranking()
    assert ranking["p_value"].iloc[1] == pytest.approx(max(2 / 2**number, 2 / 10_000))
    assert ranking["rank"].tolist() == ([1, 1] if 2 / 2**number > 0.05 else [1, 2])


def test_one_row_of_a_group_does_not_decide():
    unbiased = [1, -1] * 50
    gains = {("a", 0, "x"): ([1], unbiased), ("b", 0, "x"): ([0], [0] * 100)}
    assert result(gains).ranking()["rank"].tolist() == [1, 1]


def test_a_seed_without_figures_is_left_out_for_all():
    good, bad = ([1] * 10, [0] * 10), ([0] * 10, [0] * 10)
    gains = {("a", 0, "x"): good, ("b", 0, "x"): bad, ("a", 1, "y"): ([], []), ("b", 1, "y"): good}
    ranking = result(gains).ranking().set_index("method")
    assert ranking["net_gain"].to_dict() == {"a": 1.0, "b": 0.0}
    assert result({("a", 0, "x"): ([], []), ("b", 1, "y"): ([], [])}).ranking().empty


def test_a_rank_is_opened_by_the_best_that_is_left():
    """Ties do not form a chain: b cannot be told from a nor c from b, but c is told from a."""
    rows = {name: [1] * number + [0] * (60 - number) for name, number in (("a", 34), ("b", 31), ("c", 28))}
    ranking = result({(name, 0, "x"): (each, [0] * 9) for name, each in rows.items()}).ranking()
    assert dict(zip(ranking["method"], ranking["rank"], strict=True)) == {"a": 1, "b": 1, "c": 3}


def test_doses_that_work_have_half_of_the_best_success_without_harm():
    table = dosed(
        best=[(0.1, 0.1, 0, 0), (0.2, 0.2, 0.05, 0.05), (0.4, 0.4, 0, 0), (0.8, 0.9, 0.06, 0)],
        gap=[(0.1, 0.3, 0, 0), (0.2, 0.3, 0, 0.06), (0.3, 0.3, 0, np.nan), (0.5, 0.25, -0.2, np.nan)],
        weak=[(0.1, 0.19, 0, 0), (0.2, 0.9, 0.5, 0), (0.3, 0.9, 0, 0.5), (0.4, -0.1, 0, 0)],
    ).working_doses()
    table = table.set_index("method")
    assert table["needed"].tolist() == [0.2] * 3
    found = table[["part_from", "part_to", "dose_from", "dose_to", "best"]]
    assert found.loc["best"].tolist() == [2, 3, 0.2, 0.4, 0.4]
    assert found.loc["gap"].tolist()[:-1] == [3, 4, 0.3, 0.5] and found.loc["weak"].isna().all()


def test_one_dose_that_works_is_no_range():
    table = dosed(
        one=[(0.1, 0.1, 0, 0), (0.2, 0.3, 0, 0), (0.4, 0.4, 0.2, 0)],
        same=[(0.3, 0.3, 0, 0), (0.3, 0.3, 0, 0)],
        range=[(0.1, 0.3, 0, 0), (0.2, 0.3, 0, 0)],
        none=[(0.1, 0.0, 0, 0), (0.2, 0.0, 0, 0)],
    )
    table = table.working_doses().set_index("method")
    for name, dose in (("one", "0.2"), ("same", "0.3")):
        assert table.loc[name, ["part_from", "dose_from", "dose_to", "best"]].isna().all()
        assert dose in table.loc[name, "reason"] and "no range" in table.loc[name, "reason"]
    assert table.loc["range", ["dose_from", "dose_to", "reason"]].tolist() == [0.1, 0.2, ""]
    assert table.loc["none", "reason"] == "no dose works"
    table = dosed(a=[(0.1, 0, 0, 0), (0.2, -0.1, 0, 0)], b=[(0.1, 0.5, 0.5, 0)]).working_doses()
    assert table[["part_from", "dose_to", "needed"]].isna().all(axis=None) and len(table) == 2
