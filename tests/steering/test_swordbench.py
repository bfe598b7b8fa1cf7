"""Runs of SwordBench: every cell once, the same table after an interruption and over processes, ranks and verdicts."""

import json
import shutil
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from hf_msae import MSAEModel
from hf_msae.steering import METHODS, TASKS, SwordBenchResult, gaussian_task, run_swordbench
from hf_msae.steering import run as module
from hf_msae.steering.doses import dose_unit

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


def test_other_options_are_other_cells(tmp_path):
    tiny = partial(small, num_rows=100, num_concepts=1)
    for task, shrinkage in ((tiny, False), (tiny, True), (partial(tiny, strength=1.0), True)):
        run([task], {"eraser": METHODS["leace"](shrinkage=shrinkage)}, tmp_path, seeds=(0,))
    assert len(list((tmp_path / "cells").iterdir())) == 3


def test_cells_are_measured_again_after_the_msae_or_the_code_of_a_method_changed(tmp_path, msae_folder):
    task, cells = small(num_rows=100, num_concepts=1, seed=0), tmp_path / "out" / "cells"
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


def test_fits_see_training_rows_alone_and_the_labels_with_the_other_concepts(tmp_path):
    task, seen = small(seed=0), []

    @dataclass
    class Spy(METHODS["joint_pattern"]):
        method = "spy"

        def _direction(self, X, concept, seed, others):
            seen.append((X, others))
            return super()._direction(X, concept, seed, others)

    run([task], [Spy()], tmp_path, seeds=(0,))
    train = {row.tobytes() for row in task.features[task.train].astype(np.float64)}
    assert len(seen) == 3 and all({row.tobytes() for row in X} <= train for X, _ in seen)
    assert all(others.shape == (len(task.train), 3) for _, others in seen)
    assert all((others[:, 0] == (task.target[task.train] == 1)).all() for _, others in seen)


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
    assert [text.get_text() for text in figure.axes[2].texts] == ["not defined"] and not figure.axes[0].texts


def test_a_run_is_read_from_its_folder_and_split_by_task(tmp_path, monkeypatch):
    tiny = partial(small, num_rows=200, num_concepts=1)
    monkeypatch.setitem(TASKS, "by name", tiny)
    run(["by name", replace(tiny(seed=0), name="other")], ["lda"], tmp_path, seeds=(0,))
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
    figures = [result.plot(), result.plot_doses(), result.plot_injection()]
    for figure, more in zip(figures, ([], ["largest equal dose"], []), strict=True):
        assert [text.get_text() for text in figure.legends[0].get_texts()] == ["lda", "mean_difference", *more]
    (panel, *_), doses, injection = (figure.axes for figure in figures)
    assert panel.get_title() == "gaussian" and len(panel.lines) >= 4
    assert [panel.get_ylabel().split(" ")[0] for panel in doses] == ["success", "damage", "over-correction"]
    equal = [line.get_xdata() for line in doses[0].lines if line.get_linestyle() == ":"]
    (unit,) = {round(x, 6) for (x, _) in equal}
    assert unit == pytest.approx(np.mean([dose_unit(small(seed=seed)) for seed in (0, 1)]), rel=1e-5)
    curves = [line.get_xydata().tolist() for line in doses[2].lines]
    curve = result.dose_curves().query("method == 'lda'")
    assert curve[["dose", "over_correction"]].to_numpy().tolist() in curves
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
