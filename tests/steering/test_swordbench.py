"""Runs of SwordBench: every cell once, the same table after an interruption and over processes, ranks and verdicts."""

import json
import os
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest

from hf_msae.steering import METHODS, SwordBenchResult, gaussian_task, run_swordbench
from hf_msae.steering import run as module

small = partial(gaussian_task, num_rows=400, width=12, num_concepts=3)
run = partial(run_swordbench, progress=False)


def test_the_table_is_tidy_and_everything_is_in_it(tmp_path):
    result = run([small], ["mean_difference", "lda"], tmp_path, seeds=(0, 1))
    frame = result.to_pandas()
    assert list(frame)[:9] == ["task", "backbone", "method", "concept", "seed", "metric", "value", "low", "high"]
    assert set(frame["method"]) == {"mean_difference", "lda"} and set(frame["seed"]) == {0, 1}
    assert set(frame["concept"]) == {"bias", "concept 1", "concept 2"}
    per_cell = frame.groupby(["method", "seed", "concept"])["metric"].nunique()
    assert (per_cell[per_cell.index.get_level_values("concept") == "concept 1"] >= 10).all()
    assert not frame.duplicated(["method", "seed", "concept", "metric"]).any()
    loaded = SwordBenchResult.from_dict(json.loads((tmp_path / "results.json").read_text()))
    assert loaded.ranking().equals(result.ranking()) and loaded.verdict() == result.verdict()


def test_an_interrupted_run_measures_only_what_is_missing(tmp_path, monkeypatch):
    run([small], ["mean_difference", "lda"], tmp_path, seeds=(0, 1))
    first = (tmp_path / "results.json").read_bytes()
    cells = sorted((tmp_path / "cells").iterdir())
    assert len(cells) == 4
    cells[0].unlink()
    cells[1].write_text(cells[1].read_text()[:100])  # damaged
    measured = []
    original = module.measure
    monkeypatch.setattr(module, "measure", lambda *given: measured.append(given) or original(*given))
    run([small], ["mean_difference", "lda"], tmp_path, seeds=(0, 1))
    assert len(measured) == 2 and (tmp_path / "results.json").read_bytes() == first


def test_other_options_are_other_cells(tmp_path):
    run([small], {"probe": METHODS["ridge"](folds=3)}, tmp_path, seeds=(0,))
    run([small], {"probe": METHODS["ridge"](folds=4)}, tmp_path, seeds=(0,))
    run([partial(small, strength=1.0)], {"probe": METHODS["ridge"](folds=4)}, tmp_path, seeds=(0,))
    assert len(list((tmp_path / "cells").iterdir())) == 3


@pytest.mark.slow
def test_two_processes_give_the_same_table(tmp_path):
    methods = ["mean_difference", "lda", "median_difference"]
    one = run([small], methods, tmp_path / "one", seeds=(0,))
    two = run([small], methods, tmp_path / "two", seeds=(0,), num_workers=2)
    assert two.to_pandas().equals(one.to_pandas())


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


def test_what_is_not_defined_says_why(tmp_path):
    task = small(seed=0)
    task.concepts["concept 1"][task.train] = False
    result = run([task], ["lda"], tmp_path, seeds=(0,))
    row = result.to_pandas().query("metric == 'fit'").iloc[0]
    assert row["concept"] == "concept 1" and "0 rows with the concept" in row["reason"] and np.isnan(row["value"])
    assert "bias" in set(result.cross["found"]) and "concept 1" not in set(result.cross["found"])


def test_methods_that_do_the_same_share_a_rank(tmp_path):
    methods = {"a": METHODS["mean_difference"](), "b": METHODS["pattern"](), "c": METHODS["lda"]()}
    ranking = run([partial(small, num_rows=1500)], methods, tmp_path, seeds=(0, 1)).ranking().set_index("method")
    assert ranking.loc["c", "rank"] == 1 and ranking.loc["a", "rank"] == ranking.loc["b", "rank"] == 2
    assert ranking.loc["a", "p_value"] < 0.05


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"methods": ["eraser"]}, "eraser"),
        ({"methods": [METHODS["ridge"](folds=3), METHODS["ridge"]()]}, "ridge"),
        ({"tasks": [small, small]}, "same name"),
        ({"tasks": []}, "at least one"),
    ],
)
def test_a_run_that_cannot_be_is_refused_first(tmp_path, given, said):
    with pytest.raises(ValueError, match=said):
        run(**{"tasks": [small], "methods": ["lda"], "output_dir": tmp_path, "seeds": (0,), **given})
    assert not list((tmp_path / "cells").iterdir()) if (tmp_path / "cells").exists() else True


def test_figures_are_drawn(tmp_path):
    result = run([small], ["mean_difference", "lda"], tmp_path, seeds=(0,))
    panel = result.plot().axes[0]
    assert panel.get_title() == "gaussian" and len(panel.lines) >= 4
    heat = result.plot_cross("gaussian", "lda").axes[0]
    assert [label.get_text() for label in heat.get_yticklabels()] == ["bias", "concept 1", "concept 2"]
    with pytest.raises(ValueError, match="leace"):
        result.plot_cross("gaussian", "leace")
    assert os.listdir(tmp_path / "cells")
