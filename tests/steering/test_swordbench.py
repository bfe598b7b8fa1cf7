"""Runs of SwordBench: every cell once, the same table after an interruption and over processes, ranks and verdicts."""

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from scipy.stats import norm
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_info, threadpool_limits

from hf_msae import MSAEModel
from hf_msae.steering import METHODS, TASKS, SwordBenchResult, gaussian_task, run_swordbench
from hf_msae.steering import run as module
from hf_msae.steering.doses import dose_unit
from hf_msae.steering.rows import shared_rows

small = partial(gaussian_task, num_rows=400, width=12, num_concepts=3)
run = partial(run_swordbench, progress=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run of two methods with two seeds, and its result."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, run([small], ["mean_difference", "lda"], folder, seeds=(0, 1))


def test_the_table_is_tidy_and_everything_is_in_it(finished):
    folder, result = finished
    frame = result.to_pandas()
    assert list(frame)[:9] == ["task", "backbone", "method", "concept", "seed", "metric", "value", "low", "high"]
    assert set(frame["method"]) == {"mean_difference", "lda"} and set(frame["seed"]) == {0, 1}
    assert set(frame["concept"]) == {"bias", "concept 1", "concept 2"}
    per_cell = frame.groupby(["method", "seed", "concept"])["metric"].nunique()
    assert (per_cell[per_cell.index.get_level_values("concept") == "concept 1"] >= 10).all()
    assert not frame.duplicated(["method", "seed", "concept", "metric"]).any()
    loaded = SwordBenchResult.from_dict(json.loads((folder / "results.json").read_text()))
    assert loaded.ranking().equals(result.ranking()) and loaded.verdict() == result.verdict()


def test_an_interrupted_run_measures_only_what_is_missing(tmp_path, monkeypatch, finished):
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    first = (tmp_path / "results.json").read_bytes()
    cells = sorted((tmp_path / "cells").iterdir())
    assert len(cells) == 4
    cells[0].unlink()
    cells[1].write_text("{}")  # damaged
    measured = []
    original = module.measure
    monkeypatch.setattr(module, "measure", lambda *given: measured.append(given) or original(*given))
    run([small], ["mean_difference", "lda"], tmp_path, seeds=(0, 1))
    assert len(measured) == 2 and (tmp_path / "results.json").read_bytes() == first


def test_tasks_are_known_by_name(tmp_path, monkeypatch):
    monkeypatch.setitem(TASKS, "tiny", partial(small, num_rows=100, num_concepts=1))
    result = run(["tiny", replace(small(seed=0), name="made")], ["mean_difference"], tmp_path, seeds=(0,))
    assert result.tasks == ["gaussian", "made"]


def test_other_options_are_other_cells(tmp_path):
    tiny = partial(small, num_rows=100, num_concepts=1)
    run([tiny], {"probe": METHODS["ridge"](folds=3)}, tmp_path, seeds=(0,))
    run([tiny], {"probe": METHODS["ridge"](folds=4)}, tmp_path, seeds=(0,))
    run([partial(tiny, strength=1.0)], {"probe": METHODS["ridge"](folds=4)}, tmp_path, seeds=(0,))
    assert len(list((tmp_path / "cells").iterdir())) == 3


def test_cells_are_measured_again_after_the_msae_or_the_code_of_a_method_changed(tmp_path, msae_folder):
    task, cells = small(seed=0), tmp_path / "out" / "cells"
    place = shutil.copytree(msae_folder, tmp_path / "msae")
    run([task], [METHODS["msae"](msae=place)], tmp_path / "out", seeds=(0,))
    run([task], [METHODS["msae"](msae=place)], tmp_path / "out", seeds=(0,))
    assert len(list(cells.iterdir())) == 1
    model = MSAEModel.from_pretrained(place)
    with torch.no_grad():
        model.latent_bias += 1
    model.save_pretrained(place)
    run([task], [METHODS["msae"](msae=place)], tmp_path / "out", seeds=(0,))
    assert len(list(cells.iterdir())) == 2
    for sign in ("+", "-"):  # typed in, as in a notebook: there is no file to read
        known = {"Difference": METHODS["mean_difference"]}
        line = f"return {sign}super(Typed, self)._direction(*given)"
        exec(
            f"class Typed(Difference):\n    method = 'typed'\n    def _direction(self, *given):\n        {line}", known
        )
        run([task], [known["Typed"]()], tmp_path / "out", seeds=(0,))
    assert len(list(cells.glob("*typed*"))) == 2


@pytest.mark.slow
def test_two_processes_give_the_same_table(tmp_path):
    methods = ["mean_difference", "svm", "median_difference", "reactive_clarc"]  # two of them share fits
    one = run([small], methods, tmp_path / "one", seeds=(0,))
    two = run([small], methods, tmp_path / "two", seeds=(0,), num_workers=2)
    assert two.to_pandas().equals(one.to_pandas())


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_run_that_was_killed_gives_the_same_table(num_workers, tmp_path):
    methods = ["mean_difference", "lda", "leace", "median_difference", "joint_pattern", "clarc"]
    whole = run([small], methods, tmp_path / "whole", seeds=(0, 1))
    script = f"""
from functools import partial
from hf_msae.steering import gaussian_task, run_swordbench
task = partial(gaussian_task, num_rows=400, width=12, num_concepts=3)
run_swordbench([task], {methods}, {str(tmp_path / "killed")!r}, (0, 1), {num_workers}, progress=False)
"""
    cells = tmp_path / "killed" / "cells"
    process = subprocess.Popen([sys.executable, "-c", script])
    while process.poll() is None and not list(cells.glob("*.json")):
        time.sleep(0.01)
    workers = psutil.Process(process.pid).children()
    assert len(workers) >= num_workers - 1
    process.kill()
    assert process.wait() == -signal.SIGKILL and not (tmp_path / "killed" / "results.json").exists()
    assert psutil.wait_procs(workers, timeout=30)[1] == []
    again = run([small], methods, tmp_path / "killed", seeds=(0, 1))
    assert again.to_pandas().equals(whole.to_pandas())
    assert (tmp_path / "killed" / "results.json").read_bytes() == (tmp_path / "whole" / "results.json").read_bytes()


def test_fits_see_training_rows_alone(tmp_path):
    task = small(seed=0)

    @dataclass
    class Spy(METHODS["mean_difference"]):
        method = "spy"

        def _direction(self, X, concept, *others):
            seen.append(X)
            return super()._direction(X, concept, *others)

    seen = []
    run([task], [Spy()], tmp_path, seeds=(0,))
    train = {row.tobytes() for row in task.features[task.train].astype(np.float64)}
    assert len(seen) == 3 and all({row.tobytes() for row in X} <= train for X in seen)


def test_methods_are_given_the_labels_with_the_other_concepts(tmp_path):
    task = small(seed=0)

    @dataclass
    class Spy(METHODS["joint_pattern"]):
        method = "spy"

        def _direction(self, X, concept, seed, others):
            seen.append(others)
            return super()._direction(X, concept, seed, others)

    seen = []
    run([task], [Spy()], tmp_path, seeds=(0,))
    assert all(others.shape == (len(task.train), 3) for others in seen)
    assert all((others[:, 0] == (task.target[task.train] == 1)).all() for others in seen)


def test_methods_are_fitted_to_the_names_of_concepts(tmp_path, backbones):
    backbone = backbones["CLIPModel"]
    task = small(width=backbone.width(), seed=0)
    task = replace(task, concepts={"red_circle": task.concepts["bias"]}, bias="red_circle")
    frame = run([task], ["text"], tmp_path, seeds=(0,), backbone=backbone).to_pandas()
    expected = METHODS["text"]().fit_by_name("red circle", backbone, task.features[task.train])
    area = roc_auc_score(task.concepts["red_circle"][task.test], expected.score(task.features[task.test]))
    assert frame.query("metric == 'detection_auroc'")["value"].item() == pytest.approx(area)
    with pytest.raises(ValueError, match="text is fitted by name"):
        run([task], ["text"], tmp_path, seeds=(0,))


def test_what_is_not_defined_says_why(tmp_path):
    task = small(seed=0)
    task = replace(task, concepts={**task.concepts, "concept 1": task.concepts["concept 1"] & (task.split == "test")})
    result = run([task], ["lda"], tmp_path, seeds=(0,))
    row = result.to_pandas().query("metric == 'fit'").iloc[0]
    assert row["concept"] == "concept 1" and "0 rows with the concept" in row["reason"] and np.isnan(row["value"])
    assert "bias" in set(result.cross["found"]) and "concept 1" not in set(result.cross["found"])


def test_a_concept_that_cannot_be_told_from_another_is_not_defined(tmp_path):
    task = small(seed=0)
    task = replace(task, concepts={**task.concepts, "copy": ~task.concepts["concept 1"]})
    undefined = run([task], ["joint_pattern"], tmp_path, seeds=(0,)).undefined().query("metric == 'fit'")
    assert sorted(undefined["concepts"].sum()) == ["concept 1", "copy"]
    assert undefined["reason"].str.contains("cannot be told from the opposite").all()


def test_a_concept_that_no_test_row_has_does_not_end_the_run(tmp_path):
    task = small(seed=0)
    concepts = {**task.concepts, "concept 1": task.concepts["concept 1"] & (task.split == "train")}
    frame = run([replace(task, name="a/b: c", concepts=concepts)], ["lda"], tmp_path, seeds=(0,)).to_pandas()
    assert "0 of 200 test rows" in frame.query("concept == 'concept 1'")["reason"].item()
    assert np.isfinite(frame.query("concept == 'bias' and metric == 'net_gain'")["value"].item())
    assert len(list((tmp_path / "cells").iterdir())) == 1


def test_every_figure_that_is_missing_has_a_reason(tmp_path):
    task = small(seed=0)
    without = run([replace(task, counterfactuals=None)], ["lda", "leace"], tmp_path, seeds=(0,)).undefined()
    metrics = ["exactness", *(f"injection_{name}" for name in ("exactness", "gain", "gain_equal_dose", "stretch"))]
    assert without["metric"].tolist() == metrics and without["cells"].tolist() == [2] * 5
    assert without["reason"].str.contains("pairs").all()
    assert without["methods"].tolist() == [["lda", "leace"]] * 5 and without["concepts"].tolist() == [["bias"]] * 5
    harmless = replace(task, counterfactuals=task.features.copy())
    frame = run([harmless], ["lda"], tmp_path, seeds=(0,)).to_pandas()
    assert "mislead" in frame.query("metric == 'recovery'")["reason"].item()
    assert frame.loc[frame["value"].isna(), "reason"].str.len().gt(0).all()


def test_methods_that_do_the_same_share_a_rank(tmp_path):
    methods = {"a": METHODS["mean_difference"](), "b": METHODS["pattern"](), "c": METHODS["lda"]()}
    ranking = run([partial(small, num_rows=1500)], methods, tmp_path, seeds=(0,)).ranking().set_index("method")
    assert ranking.loc["c", "rank"] == 1 and ranking.loc["a", "rank"] == ranking.loc["b", "rank"] == 2
    assert ranking.loc["a", "p_value"] < 0.05


def _result(gains, shared=0.0):
    """A result of {(method, seed, hash of the task): gains in biased, unbiased and, if any, aligned rows}."""
    cells = [
        {
            **{"task": "t", "backbone": "b", "method": method, "seed": seed, "task_sha256": sha256, "perfect": None},
            **{"biased": biased, "unbiased": unbiased, "aligned": [*chain(*aligned)]},
            **{"figures": [], "doses": [], "cross": [], "shared": shared},
        }
        for (method, seed, sha256), (biased, unbiased, *aligned) in gains.items()
    ]
    return SwordBenchResult.of_cells(cells)


def test_ranks_and_p_values_are_of_the_net_gain():
    """In pooled rows "cautious" gains more, in the sum of the two means "bold" does."""
    bold, cautious = ([1] * 30 + [0] * 10, [-1] * 300 + [0] * 700), ([1] * 2 + [0] * 38, [0] * 1000)
    ranking = _result({("cautious", 0, "x"): cautious, ("bold", 0, "x"): bold}).ranking()
    assert ranking["method"].tolist() == ["bold", "cautious"] and ranking["rank"].tolist() == [1, 2]
    assert ranking["net_gain"].tolist() == pytest.approx([0.45, 0.05]) and ranking["p_value"].iloc[1] < 0.001


def test_over_correction_counts_against_a_method_and_its_absence_not_for_it():
    same = [1] * 10 + [0] * 30, [0] * 40
    over, under, exact = ((*same, [value] * 30 + [0] * 10) for value in (-1, 1, 0))
    ranking = _result({("over", 0, "x"): over, ("under", 0, "x"): under, ("exact", 0, "x"): exact}).ranking()
    gains = ranking.set_index("method")["net_gain"]
    assert gains.to_dict() == {"under": 0.25, "exact": 0.25, "over": -0.5}
    assert ranking.set_index("method")["rank"].to_dict() == {"under": 1, "exact": 1, "over": 3}


def test_rows_that_seeds_share_count_once():
    rng = np.random.default_rng(0)
    a, b = ([rng.integers(-1, 2, n).tolist() for n in (40, 60, 50)] for _ in range(2))
    once = _result({("a", 0, "x"): a, ("b", 0, "x"): b}).ranking()
    repeated = _result({(name, seed, "x"): each for seed in range(5) for name, each in (("a", a), ("b", b))}).ranking()
    assert repeated.drop(columns="seeds").equals(once.drop(columns="seeds")) and 0 < once["p_value"].iloc[1] < 1
    others = {(name, seed, f"{seed}"): each for seed in range(5) for name, each in (("a", a), ("b", b))}
    assert _result(others).ranking()["p_value"].iloc[1] < once["p_value"].iloc[1]


def test_rows_that_tasks_of_several_seeds_have_in_common_count_once():
    """The same gains in rows that are all the same, or half of them, or of which it is not known."""
    rng = np.random.default_rng(0)
    a, b = ([rng.integers(-1, 2, n).tolist() for n in (40, 60, 50)] for _ in range(2))
    once = _result({("a", 0, "x"): a, ("b", 0, "x"): b}).ranking()["p_value"].iloc[1]
    gains = {(name, seed, f"{seed}"): each for seed in range(4) for name, each in (("a", a), ("b", b))}
    found = [_result(gains, shared).ranking()["p_value"].iloc[1] for shared in (0.0, 0.5, 1.0, None)]
    z = [norm.isf(p / 2) / norm.isf(once / 2) for p in found]
    assert z == pytest.approx([2, np.sqrt(4 / 2.5), 1, 1])
    few = {key: tuple(group[:8] for group in each) for key, each in gains.items()}  # tested by signs
    assert _result(few, 1.0).ranking()["p_value"].iloc[1] > _result(few, 0.0).ranking()["p_value"].iloc[1]


def test_intervals_of_ranks_cover_rows_and_seeds():
    """Seeds that differ have a wider interval than their rows explain; a group of few rows has none."""
    same = {("a", seed, f"{seed}"): ([1] * 20 + [0] * 20, [0] * 40) for seed in range(3)}
    differing = {
        ("a", seed, f"{seed}"): ([1] * (5 + 15 * seed) + [0] * (35 - 15 * seed), [0] * 40) for seed in range(3)
    }
    widths = []
    for gains in (same, differing):
        row = _result(gains).ranking().iloc[0]
        assert row["net_gain"] == pytest.approx(0.5) and row["low"] + row["high"] == pytest.approx(1)
        widths.append(row["high"] - row["low"])
    assert widths[0] == pytest.approx(2 * 1.96 * np.sqrt(0.25 / 39 / 3), rel=1e-3)
    assert widths[1] > 2 * 4 * 0.375 / np.sqrt(3)  # Student's t of two degrees of freedom
    few = _result({("a", 0, "x"): ([1, 0] * 4, [0] * 40)}).ranking().iloc[0]
    assert few["net_gain"] == 0.5 and np.isnan([few["low"], few["high"]]).all()


def test_the_summary_has_intervals_over_rows_and_seeds(finished):
    result = finished[1]
    summary = result.summary(None).set_index(["method", "metric"])
    frame = result.to_pandas().query("method == 'lda' and metric == 'damage'").astype({"low": float, "high": float})
    row = summary.loc[("lda", "damage")]
    assert row["seeds"] == 2 and row["mean"] == pytest.approx(frame["value"].astype(float).mean())
    assert row["low"] < row["lowest"] <= row["mean"] <= row["highest"] < row["high"]
    assert row["high"] - row["low"] > (frame["high"] - frame["low"]).mean() / np.sqrt(2) - 1e-9
    for metric in ("robustness", "orthogonality", "injection_gain", "net_gain_equal_dose"):
        assert np.isfinite(summary.loc[("lda", metric), ["low", "high"]].to_numpy(float)).all()
    curves = result.dose_curves().set_index(["method", "part"])
    whole = curves.loc[("lda", 1.0)]
    assert [whole[f"damage{end}"] for end in ("", "_low", "_high")] == pytest.approx(
        row[["mean", "low", "high"]].tolist()
    )


def test_shared_rows_are_those_of_the_same_inputs():
    tasks = [small(seed=seed) for seed in (0, 1)]
    assert shared_rows(tasks) == 0 and shared_rows([tasks[0]] * 2) == 1 and shared_rows(tasks[:1]) == 1
    named = [
        replace(task, provenance={"inputs": np.arange(start, start + 400).tolist()})
        for task, start in zip(tasks, (0, 50), strict=True)
    ]
    assert shared_rows(named) == 0.75


def test_methods_are_ranked_at_equal_doses_too(finished):
    result = finished[1]
    ranking = result.ranking(equal_dose=True)
    frame = result.to_pandas().query("metric == 'net_gain_equal_dose'")
    means = frame.astype({"value": float}).groupby("method")["value"].mean()
    found = ranking.set_index("method")["net_gain_equal_dose"]
    assert found.to_dict() == pytest.approx(means.to_dict(), abs=1e-6) and ranking["rank"].min() == 1
    assert "net_gain" not in ranking and "net_gain_equal_dose" not in result.ranking()


def test_a_bias_alone_is_measured_as_with_the_other_concepts(tmp_path):
    task = partial(small, num_rows=200, num_concepts=2)
    whole = run([task], ["joint_pattern"], tmp_path, seeds=(0,)).to_pandas()
    alone = run([task], ["joint_pattern"], tmp_path, seeds=(0,), only_bias=True)
    assert len(list((tmp_path / "cells").iterdir())) == 2
    expected = whole[(whole["concept"] == "bias") & ~whole["metric"].str.contains("robustness|orthogonality")]
    assert alone.to_pandas().reset_index(drop=True).equals(expected.reset_index(drop=True))


def test_nothing_spurious_is_not_ranked(tmp_path):
    result = run([partial(small, correlation=0.0)], ["lda"], tmp_path, seeds=(1,), only_bias=True)
    undefined = result.undefined().set_index("metric")["reason"]
    assert set(undefined.index) == {"success", "recovery"} and undefined.str.contains("not correlated").all()
    assert result.ranking().empty and result.ranking(equal_dose=True).empty and result.doses.empty
    assert "gaussian is not defined: label and bias" in result.verdict() and "no method" not in result.verdict()


@pytest.mark.parametrize(
    ("has", "said"), [("all", "bias: 200 of 200 test rows have"), ("none biased", "gaussian has no biased test rows")]
)
def test_a_verdict_that_is_not_defined_says_why(tmp_path, has, said):
    task = small(seed=0)
    bias = np.ones(400, dtype=bool) if has == "all" else task.concepts["bias"] & (task.target == 1)
    task = replace(task, concepts={**task.concepts, "bias": bias})
    result = run([task], ["lda"], tmp_path, seeds=(0,), only_bias=True)
    assert result.verdict() == f"perfect steering on gaussian is not defined: {said}{' the concept' * (has == 'all')}"
    others = run([task, replace(small(seed=1), name="other")], ["lda"], tmp_path, seeds=(0,), only_bias=True)
    assert said in others.verdict() and "lda on other" in others.verdict()


@pytest.mark.parametrize("number", [1, 4, 5, 30])
def test_few_rows_or_rows_that_are_all_alike_are_tested_by_their_signs(number):
    """With n rows of the same difference, 2 of 2^n choices of signs are as extreme; with many, choices are drawn."""
    gains = {("a", 0, "x"): ([1] * number, [0] * 50), ("b", 0, "x"): ([0] * number, [0] * 50)}
    ranking = _result(gains).ranking()
    assert ranking["p_value"].iloc[1] == pytest.approx(max(2 / 2**number, 2 / 10_000))
    assert ranking["rank"].tolist() == ([1, 1] if 2 / 2**number > 0.05 else [1, 2])


def test_one_row_of_a_group_does_not_decide():
    unbiased = [1, -1] * 500
    gains = {("a", 0, "x"): ([1], unbiased), ("b", 0, "x"): ([0], [0] * 1000)}
    assert _result(gains).ranking()["rank"].tolist() == [1, 1]


def test_a_seed_without_figures_is_left_out_for_all():
    good, bad = ([1] * 10, [0] * 10), ([0] * 10, [0] * 10)
    gains = {("a", 0, "x"): good, ("b", 0, "x"): bad, ("a", 1, "y"): ([], []), ("b", 1, "y"): good}
    ranking = _result(gains).ranking().set_index("method")
    assert ranking["net_gain"].to_dict() == {"a": 1.0, "b": 0.0}
    assert _result({("a", 0, "x"): ([], []), ("b", 1, "y"): ([], [])}).ranking().empty


def test_a_rank_is_opened_by_the_best_that_is_left():
    """Ties do not form a chain: b cannot be told from a nor c from b, but c is told from a."""
    rows = {name: [1] * number + [0] * (60 - number) for name, number in (("a", 34), ("b", 31), ("c", 28))}
    ranking = _result({(name, 0, "x"): (each, [0] * 9) for name, each in rows.items()}).ranking()
    assert dict(zip(ranking["method"], ranking["rank"], strict=True)) == {"a": 1, "b": 1, "c": 3}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"methods": ["eraser"]}, "eraser"),
        ({"methods": [METHODS["ridge"](folds=3), METHODS["ridge"]()]}, "ridge"),
        ({"tasks": [small, partial(small, correlation=0.5)]}, "'gaussian'"),
        ({"tasks": small(seed=0)}, "several tasks"),
        ({"tasks": ["gausian"]}, "'gausian': did you mean gaussian.* scenes_pattern"),
        ({"tasks": "gaussian"}, r"\['gaussian'\]"),
        ({"methods": "lda"}, r"\['lda'\]"),
        ({"methods": {"a": "lda"}}, "'lda'"),
        ({"methods": [METHODS["lda"]]}, "name or an edit"),
        ({"seeds": 0}, r"\(0,\)"),
        ({"tasks": []}, "at least one"),
        ({"seeds": (1, 0, 1)}, r"twice.*1, 0, 1"),
    ],
)
def test_a_run_that_cannot_be_is_refused_first(tmp_path, given, said):
    with pytest.raises(ValueError, match=said):
        run(**{"tasks": [small], "methods": ["lda"], "output_dir": tmp_path, "seeds": (0,), **given})
    assert not list((tmp_path / "cells").iterdir()) if (tmp_path / "cells").exists() else True


def _dosed(**curves):
    """A result of {method: (dose, success, damage, over-correction) at the parts 1, 2 and so on}."""
    doses = [
        {
            **{"task": "t", "method": method, "seed": seed, "part": part},
            **dict(zip(NAMES, map(float, each), strict=True)),
        }
        for method, curve in curves.items()
        for part, each in enumerate(curve, 1)
        for seed in (0, 1)
    ]
    for record in doses:
        record |= {f"{name}{end}": record[name] for name in NAMES for end in ("_low", "_high")}
    frame = pd.DataFrame(doses)
    return replace(_result({(name, 0, "x"): ([1.0], [0.0]) for name in curves}), doses=frame)


NAMES = ("dose", "success", "damage", "over_correction")
NAN = float("nan")


def test_doses_that_work_have_half_of_the_best_success_without_harm():
    table = _dosed(
        best=[(0.1, 0.1, 0, 0), (0.2, 0.2, 0.05, 0.05), (0.4, 0.4, 0, 0), (0.8, 0.9, 0.06, 0)],
        gap=[(0.1, 0.3, 0, 0), (0.2, 0.3, 0, 0.06), (0.3, 0.3, 0, NAN), (0.5, 0.25, -0.2, NAN)],
        weak=[(0.1, 0.19, 0, 0), (0.2, 0.9, 0.5, 0), (0.3, 0.9, 0, 0.5), (0.4, -0.1, 0, 0)],
    ).working_doses()
    table = table.set_index("method")
    assert table["needed"].tolist() == [0.2] * 3
    assert table.loc["best", ["part_from", "part_to", "dose_from", "dose_to", "best"]].tolist() == [
        2,
        3,
        0.2,
        0.4,
        0.4,
    ]
    assert table.loc["gap", ["part_from", "part_to", "dose_from", "dose_to"]].tolist() == [3, 4, 0.3, 0.5]
    assert table.loc["weak", ["part_from", "part_to", "dose_from", "dose_to", "best"]].isna().all()


def test_one_dose_that_works_is_no_range():
    table = _dosed(
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


def test_no_dose_works_where_nothing_is_won():
    table = _dosed(a=[(0.1, 0, 0, 0), (0.2, -0.1, 0, 0)], b=[(0.1, 0.5, 0.5, 0)]).working_doses()
    assert table[["part_from", "dose_to", "needed"]].isna().all(axis=None) and len(table) == 2


def test_results_of_earlier_versions_have_no_over_correction_of_doses(tmp_path, finished):
    folder, result = finished
    content = json.loads((folder / "results.json").read_text())
    for record in content["doses"]:
        for end in ("", "_low", "_high"):
            del record[f"over_correction{end}"]
    for table in ("injection", "equal_dose"):
        del content[table]
    for record in content["made"]:
        del record["shared"]
    (tmp_path / "results.json").write_text(json.dumps(content))
    old = SwordBenchResult.load(tmp_path)
    assert old.working_doses()["method"].tolist() == result.working_doses()["method"].tolist()
    assert old.injection_curves().empty and old.ranking(equal_dose=True).empty
    assert old.ranking()["net_gain"].tolist() == result.ranking()["net_gain"].tolist()
    assert (old.ranking()["p_value"].dropna() >= result.ranking()["p_value"].dropna()).all()
    figure = old.plot_doses()
    figure.savefig(tmp_path / "doses.png")
    assert [text.get_text() for text in figure.axes[2].texts] == ["not defined"] and not figure.axes[0].texts


def test_a_run_is_read_from_its_folder_and_split_by_task(tmp_path):
    run([small, replace(small(seed=0), name="other")], ["lda"], tmp_path, seeds=(0,))
    result = SwordBenchResult.load(tmp_path)
    assert result.tasks == ["gaussian", "other"]
    one = result.of_task("other")
    assert one.tasks == ["other"] and set(one.working_doses()["task"]) == {"other"} and "gaussian" not in one.verdict()
    with pytest.raises(ValueError, match=r"'third'.*gaussian, other"):
        result.of_task("third")
    with pytest.raises(FileNotFoundError, match="cells"):
        SwordBenchResult.load(tmp_path / "cells")
    (tmp_path / "results.json").write_text('{"frame": 3}')
    with pytest.raises(ValueError, match=r"results\.json"):
        SwordBenchResult.load(tmp_path)


def test_figures_are_drawn(finished):
    result = finished[1]
    panel = result.plot().axes[0]
    for figure, more in (
        (result.plot(), []),
        (result.plot_doses(), ["largest equal dose"]),
        (result.plot_injection(), []),
    ):
        assert [text.get_text() for text in figure.legends[0].get_texts()] == ["lda", "mean_difference", *more]
    assert panel.get_title() == "gaussian" and len(panel.lines) >= 4
    doses = result.plot_doses().axes
    assert [panel.get_ylabel().split(" ")[0] for panel in doses] == ["success", "damage", "over-correction"]
    equal = [line.get_xdata() for line in doses[0].lines if line.get_linestyle() == ":"]
    (unit,) = {round(x, 6) for (x, _) in equal}
    assert unit == pytest.approx(np.mean([dose_unit(small(seed=seed)) for seed in (0, 1)]), rel=1e-5)
    curves = [line.get_xydata().tolist() for line in doses[2].lines]
    curve = result.dose_curves().query("method == 'lda'")
    assert curve[["dose", "over_correction"]].to_numpy().tolist() in curves
    injection = result.plot_injection().axes
    assert [panel.get_ylabel().split(" ")[0] for panel in injection] == ["gain", "exactness"]
    curve = result.injection_curves().query("method == 'lda'")[["dose", "gain"]].to_numpy().tolist()
    assert curve in [line.get_xydata().tolist() for line in injection[0].lines]
    heat = result.plot_cross("gaussian", "lda").axes[0]
    assert heat.get_title() == "gaussian, lda"
    assert [label.get_text() for label in heat.get_yticklabels()] == ["bias", "concept 1", "concept 2"]
    (right,) = heat.child_axes
    found = result.to_pandas().query("method == 'lda' and metric == 'orthogonality'").astype({"value": float})
    assert [label.get_text() for label in right.get_yticklabels()] == [
        f"{value:.2f}" for value in found.groupby("concept")["value"].mean()
    ]
    with pytest.raises(ValueError, match="leace"):
        result.plot_cross("gaussian", "leace")


def test_processes_share_the_cores(monkeypatch):
    monkeypatch.setattr(module, "cpu_count", lambda: 6)
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        with threadpool_limits(4):
            module.share_cores(2)
            assert {pool["num_threads"] for pool in threadpool_info()} == {3}
            assert torch.get_num_threads() == 3
            module.share_cores(8)
            assert {pool["num_threads"] for pool in threadpool_info()} == {1}
            module.share_cores(1)
            assert torch.get_num_threads() == 1, "a limit that is set already, as by OMP_NUM_THREADS, stays"
    finally:
        torch.set_num_threads(threads)
