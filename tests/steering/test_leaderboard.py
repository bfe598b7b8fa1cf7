"""The leaderboard: what a submission holds, what is refused, ranks, text that is no markup, and the committed page."""

import copy
import functools
import json
from pathlib import Path

import numpy as np
import pytest

from hf_msae.statistics import auroc_interval, resampled_means
from hf_msae.steering import Submission, SwordBenchResult
from hf_msae.steering.leaderboard import read_submissions, render, write_leaderboard

ROOT = Path(__file__).parents[2]


ALIGNED = (0.0, -1.0, 0.25, -0.125) * 3


def cell(method="a", seed=0, rows="0" * 64, task="gaussian", **options):
    return {
        **{"task": task, "backbone": "b|`c", "method": method, "seed": seed, "task_sha256": f"{method}{seed}"},
        **{"rows_sha256": rows, "fitted_by": "msae", "settings": {"msae": "/home/me/runs/m"}, "perfect": False},
        **{"doses": [], "cross": []},
        **copy.deepcopy(measured(seed, **options)),
    }


@functools.cache
def measured(seed, shift=0.0, aligned=ALIGNED, flipped=0):
    """What a run measures: the gains in rows, and figures that follow from them."""
    rng = np.random.default_rng(seed)
    biased = (rng.random(40) < 0.3 + shift).astype(float)
    unbiased = -(rng.random(200) < 0.1).astype(float)
    unbiased[np.flatnonzero(unbiased)[:flipped]] = 1
    aligned = np.array(aligned)
    groups = [biased, unbiased, aligned]
    draws = [resampled_means(group[:, None], seed=seed + i)[:, 0] for i, group in enumerate(groups)]
    if len(aligned) < 10:
        draws[2] = draws[2] * np.nan
    of = {
        "success": lambda b, u, a: b,
        "damage": lambda b, u, a: -u,
        "over_correction": lambda b, u, a: -a,
        "net_gain": lambda b, u, a: b + u - np.maximum(0, -a),
    }
    figures = {
        name: (f(*(group.mean() for group in groups)), *np.quantile(f(*draws), (0.025, 0.975)))
        for name, f in of.items()
    }
    success = biased.mean()
    figures |= {"bias_cost": (0.4, 0.3, 0.5), "recovery": (success / 0.4, success / 0.5, success / 0.3)}
    figures |= {"worst_group_before": (0.1, 0.05, 0.2), "flip_rate": (0.1 + 0.1, 0.15, 0.25), "drift": (0.1, 0.1, 0.1)}
    figures |= {"removal_auroc": (0.6, *map(float, auroc_interval(0.6, 40 + len(aligned), 200)))}
    return {
        **{"biased": biased.tolist(), "unbiased": unbiased.tolist(), "aligned": aligned.tolist()},
        "figures": [
            {"concept": "bias", "metric": name, **dict(zip(("value", "low", "high"), map(float, figure), strict=True))}
            for name, figure in figures.items()
        ],
    }


@functools.cache
def submission(method="a", **options):
    result = SwordBenchResult.of_cells([cell(method, seed, f"{seed}" * 64, **options) for seed in range(3)])
    return Submission.of_result(result, method, url="https://example.org/a_b")


def test_a_file_holds_what_the_run_found_and_is_small(tmp_path):
    given = submission()
    given.save(tmp_path / "a.json")
    loaded = Submission.load(tmp_path / "a.json")
    assert loaded == given and loaded.cells[1].gains("biased") == cell(seed=1)["biased"]
    assert loaded.cells[0].gains("aligned") == list(ALIGNED)
    assert loaded.settings == {"msae": "m"}
    assert (tmp_path / "a.json").stat().st_size < 10_000


def set_figure(name, *figure):
    """A change of the first cell."""
    return lambda content: content["cells"][0]["figures"].update({name: list(figure)})


def shift_end(content, name, place, amount):
    content["cells"][0]["figures"][name][place] += amount


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.update(format=2), "format"),
        (lambda c: c.update(method="a\u202eb"), "method"),
        (lambda c: c.update(url="javascript:alert(1)"), "url"),
        (lambda c: c.update(url="https://x.y/)<b>"), "url"),
        (lambda c: c.update(stranger=1), "stranger"),
        (lambda c: c["cells"][0].update(task="gausian"), "gausian"),
        (lambda c: c["cells"].pop(), "seeds"),
        (lambda c: c["cells"][0].update(seed=7), "seeds"),
        (lambda c: c["cells"][0]["figures"].update(damage=[1.5, 1, 2]), "1.5"),
        (lambda c: c["cells"][0]["figures"].update(success=[0.9, 0.8, 1.0]), "success"),
        (lambda c: c["cells"][0]["figures"].update(kl=[2, 3, 1]), "kl"),
        (lambda c: c["cells"][0]["figures"].pop("bias_cost"), "bias_cost"),
        (lambda c: c["cells"][0].update(biased="0x"), "'x'"),
        (lambda c: c["cells"][0].update(biased="0" * 40), "success"),
        (lambda c: c["cells"][0]["values"].update(a=3), "3"),
        (lambda c: c["cells"][0].update(seed=False), "seed"),
        (lambda c: c["cells"][1].update(rows_sha256="0" * 64), "rows_sha256"),
        (lambda c: c["cells"][0].update(unbiased=""), "unbiased"),
        (set_figure("bias_cost", None, None, None), "bias_cost"),
        (set_figure("recovery", 0.9, 0.85, 0.95), "recovery is 0.9,"),
        (set_figure("recovery", None, None, None), "recovery is not defined"),
        (lambda c: c["cells"][0]["figures"].pop("recovery"), "recovery is missing"),
        (set_figure("bias_cost", 0.4, -0.1, 0.5), "recovery"),  # not shown to be above 0
        (set_figure("bias_cost", 0.9, 0.8, 1.0), "recovery"),
        (set_figure("net_gain", 0.5, 0.4, 0.6), "net_gain"),
        (lambda c: shift_end(c, "damage", 2, -0.015), "high end of damage"),
        (lambda c: shift_end(c, "success", 1, 0.02), "low end of success"),
        (lambda c: c["cells"][0].update(aligned=""), "over_correction"),
        (set_figure("removal_auroc", 1.2, 1.1, 1.3), "1.2"),
        (set_figure("removal_auroc", 0.6, 0.59, 0.61), "low end of removal_auroc"),
        (set_figure("removal_auroc", 0.6, None, 0.7), "removal_auroc"),
        (set_figure("removal_auroc", None, 0.5, 0.7), "removal_auroc"),
        (set_figure("kl", 0.5, 0.6, 0.7), "kl"),
        (set_figure("kl", 0.8, 0.6, 0.7), "kl"),
        (set_figure("kl", 10**400, 0, 10**401), "kl"),
        (set_figure("worst_group_before", 0.9, 0.8, 1.0), "worst_group_before is 0.9"),
        (set_figure("worst_group", 0.95, 0.9, 1.0), "worst_group is 0.95"),
        (set_figure("flip_rate", 0.01, 0.0, 0.02), "flip_rate is 0.01"),
        (set_figure("drift", 0.0, 0.0, 0.0), "drift is 0.0"),
        (set_figure("dose", 0.0, 0.0, 0.0), "dose is 0.0"),
    ],
)
def test_what_no_run_gives_is_refused_by_name(tmp_path, change, said):
    submission().save(path := tmp_path / "theirs.json")
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"theirs\.json") as refused:
        read_submissions(tmp_path)
    assert said in str(refused.value)


DAMAGED = ["", "{", "[]", "[" * 100_000, '{"cells": [NaN]}', '{"cells": [1]}']


@pytest.mark.parametrize("text", DAMAGED)
def test_damaged_files_are_refused(tmp_path, text):
    (tmp_path / "theirs.json").write_text(text)
    with pytest.raises(ValueError, match=r"theirs\.json"):
        read_submissions(tmp_path)


def test_a_name_that_is_given_twice_is_refused(tmp_path):
    submission().save(path := tmp_path / "theirs.json")
    text = path.read_text()
    damage = text[text.index('"damage"') :].split("]")[0] + "],"
    path.write_text(text.replace('"damage"', f'{damage} "damage"', 1))
    assert json.loads(path.read_text()) == json.loads(text)
    with pytest.raises(ValueError, match=r"theirs\.json.*'damage' twice"):
        read_submissions(tmp_path)


@pytest.mark.parametrize("kind", ["link", "dangling link", "folder"])
def test_links_and_folders_are_refused_unread(tmp_path, kind):
    place = tmp_path / "leaderboard"
    place.mkdir()
    submission().save(tmp_path / "elsewhere.json")
    if kind == "folder":
        (place / "theirs.json").mkdir()
    else:
        (place / "theirs.json").symlink_to(tmp_path / ("elsewhere.json" if kind == "link" else "nothing"))
    with pytest.raises(ValueError, match=r"theirs\.json"):
        read_submissions(place)


@pytest.mark.parametrize(
    ("of_other", "said"),
    [({"method": "A"}, "same name"), ({"aligned": (-1.0,)}, "number of aligned rows"), ({"rows": 1}, "rows_sha256")],
)
def test_submissions_that_cannot_be_compared_are_refused(tmp_path, of_other, said):
    submission("a").save(tmp_path / "1.json")
    submission("b").save(tmp_path / "2.json")
    options = {"method": "c", **of_other}
    if options.pop("rows", None):
        cells = [cell("c", seed, f"{seed}f" * 32) for seed in range(3)]
        other = Submission.of_result(SwordBenchResult.of_cells(cells), "c")
    else:
        other = submission(**options)
    other.save(tmp_path / "theirs.json")
    with pytest.raises(ValueError, match=said) as refused:
        read_submissions(tmp_path)
    assert "theirs.json" in str(refused.value)


def test_other_features_are_refused_and_rounding_is_not(tmp_path):
    for name in "abc":
        submission(name).save(tmp_path / f"{name}.json")
    path = tmp_path / "c.json"
    for cost, fits in ((0.41, True), (0.5, False)):
        content = json.loads(path.read_text())
        figures = content["cells"][0]["figures"]
        figures["bias_cost"] = [cost, cost, cost]
        figures["recovery"] = [figures["success"][0] / cost] * 3
        path.write_text(json.dumps(content))
        if fits:
            assert len(read_submissions(tmp_path)) == 3
        else:
            with pytest.raises(ValueError, match=r"c\.json.*bias_cost"):
                read_submissions(tmp_path)


@pytest.mark.parametrize(("number", "fits"), [(3, True), (6, False)])
def test_rows_that_contradict_those_of_others_are_refused(tmp_path, number, fits):
    for name in "ab":
        submission(name).save(tmp_path / f"{name}.json")
    submission("c", flipped=number).save(tmp_path / "theirs.json")
    if fits:
        assert len(read_submissions(tmp_path)) == 3
    else:
        with pytest.raises(ValueError, match=r"theirs\.json.*6 of 200 unbiased.*'\+' there and '-' in a\.json"):
            read_submissions(tmp_path)


def test_the_page_ranks_as_a_run_does_and_text_is_no_markup():
    page = render([submission("<b>|`x`"), submission("better", shift=0.5)])
    rows = [line for line in page.splitlines() if line.startswith(("| 1 |", "| 2 |"))]
    assert "[`better`](<https://example.org/a_b>)" in rows[0] and "[`` <b>\\|`x` ``]" in rows[1]
    assert "`` b\\|`c ``" in page and rows[0].endswith("| - | not defined |")  # no exactness, and few rows
    assert len(rows) == 2


def test_intervals_of_the_page_cover_rows_and_seeds():
    """Seeds that differ by more than their rows explain have wider intervals than the mean of theirs."""
    cells = [cell("a", seed, f"{seed}" * 64, shift=0.25 * seed) for seed in range(3)]
    result = SwordBenchResult.of_cells(cells)
    row = next(line for line in render([Submission.of_result(result, "a")]).splitlines() if line.startswith("| 1 |"))
    successes = [each["value"] for one in cells for each in one["figures"] if each["metric"] == "success"]
    value, low, high = (float(each.strip(" [],")) for each in row.split("|")[4].split())
    assert value == pytest.approx(np.mean(successes), abs=1e-3)
    assert [low, high] == pytest.approx(
        result.summary(["success"])[["low", "high"]].to_numpy(float)[0].tolist(), abs=1e-3
    )
    own = [each for one in cells for each in one["figures"] if each["metric"] == "success"]
    assert high - low > 3 * np.mean([each["high"] - each["low"] for each in own])


def test_an_empty_folder_is_no_leaderboard(tmp_path):
    with pytest.raises(ValueError, match="no submissions"):
        write_leaderboard(tmp_path)


@pytest.mark.slow
def test_the_committed_page_is_that_of_the_committed_submissions():
    folder = ROOT / "leaderboard"
    assert (folder / "README.md").read_text(encoding="utf-8") == render(read_submissions(folder))
