"""What is not defined in a run of SwordBench says why."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from hf_msae.steering import gaussian_task, run_swordbench

small = partial(gaussian_task, num_rows=400, width=12, num_concepts=3)


run = partial(run_swordbench, progress=False)


def test_what_is_not_defined_says_why_and_does_not_end_the_run(tmp_path):
    task = small(seed=0)
    known = {
        name: task.concepts[name] & (task.split == part)
        for name, part in (("concept 1", "test"), ("concept 2", "train"))
    }
    result = run([replace(task, name="a/b: c", concepts={**task.concepts, **known})], ["lda"], tmp_path, seeds=(0,))
    frame = result.to_pandas()
    (row,) = frame.query("concept == 'concept 1'").to_dict("records")
    assert row["metric"] == "fit" and "0 rows with the concept" in row["reason"] and np.isnan(row["value"])
    assert "0 of 200 test rows" in frame.query("concept == 'concept 2'")["reason"].iloc[0]
    assert "bias" in set(result.cross["found"]) and "concept 1" not in set(result.cross["found"])
    assert np.isfinite(frame.query("concept == 'bias' and metric == 'net_gain'")["value"].item())
    assert len(list((tmp_path / "cells").iterdir())) == 1


def test_a_concept_that_cannot_be_told_from_another_is_not_defined(tmp_path):
    task = small(seed=0)
    task = replace(task, concepts={**task.concepts, "copy": ~task.concepts["concept 1"]})
    undefined = run([task], ["joint_pattern"], tmp_path, seeds=(0,)).undefined().query("metric == 'fit'")
    assert sorted(undefined["concepts"].sum()) == ["concept 1", "copy"]
    assert undefined["reason"].str.contains("cannot be told from the opposite").all()


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
