"""`hf-msae swordbench`: a run on data of one's own, what it writes, what is listed and what is refused."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset
from matplotlib.figure import Figure

from hf_msae._utils.argument_parser import MSAEArgumentParser
from hf_msae.cli.swordbench import SwordBenchArguments, chosen_tasks, main, own_task
from hf_msae.steering import METHODS, gaussian_task
from hf_msae.steering.tasks import TASKS
from tests.identity_msae import identity_msae


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Embeddings with columns of labels, whose label is correlated with a concept."""
    task = gaussian_task(num_rows=600, width=12, num_concepts=3)
    train = task.train
    columns = {name.replace(" ", "_"): values[train] for name, values in task.concepts.items()}
    kind = np.where(task.target[train] == 1, "cat", "dog")
    rows = Dataset.from_dict({"image_embeds": task.features[train].tolist(), "kind": kind.tolist(), **columns})
    folder = tmp_path_factory.mktemp("data") / "embeddings"
    rows.save_to_disk(folder)
    return folder


def test_a_task_of_ones_own_is_run_and_written(data, tmp_path, capsys, monkeypatch):
    drawn = {}
    monkeypatch.setattr("hf_msae.plotting.save_figure", lambda figure, path: drawn.update({Path(path).name: figure}))
    own = ["--data", str(data), "--concepts", "bias", "concept_1", "--target", "kind", "--bias", "bias"]
    with pytest.warns(UserWarning, match="kind has too few test rows with kind = cat without bias"):
        main([*own, "--methods", "mean_difference", "lda", "--seeds", "0", "--output", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert "net_gain" in printed and "perfect" in printed and "kind are one draw" in printed
    frame = pd.read_csv(tmp_path / "out" / "figures.csv")
    assert set(frame["method"]) == {"mean_difference", "lda"} and set(frame["concept"]) == {"bias", "concept_1"}
    content = json.loads((tmp_path / "out" / "results.json").read_text())
    assert len(content["frame"]) == len(frame)
    figures = {"success_against_damage.png", "doses.png", "cross_concepts_kind.png"}
    assert set(drawn) == figures and all(isinstance(each, Figure) for each in drawn.values())  # it has no pairs
    assert "All at equal doses" in printed
    assert {"low", "high", "seeds"} <= set(pd.read_csv(tmp_path / "out" / "summary.csv"))
    assert "net_gain_equal_dose" in pd.read_csv(tmp_path / "out" / "ranking_equal_dose.csv")
    assert pd.read_csv(tmp_path / "out" / "ranking.csv")["rank"].min() == 1
    assert set(pd.read_csv(tmp_path / "out" / "working_doses.csv")["method"]) == {"mean_difference", "lda"}


def test_each_seed_of_data_has_a_split_of_its_own_unless_the_data_have_one(data):
    own = ["--data", str(data), "--concepts", "bias", "--target", "kind", "--bias", "bias"]
    parse = MSAEArgumentParser([SwordBenchArguments], "", "", prog="x").parse
    given = own_task(*parse([*own, "--output", "o", "--test_share", "0.3", "--balance_test", "false"]))
    tasks = [given(seed=seed) for seed in (0, 1)]
    assert [85 < len(task.test) < 95 for task in tasks] == [True] * 2 and tasks[0].sha256 != tasks[1].sha256
    with pytest.raises(ValueError, match="column 'kind' holds 'dog'"):
        own_task(*parse([*own, "--output", "o", "--split_column", "kind"]))


def test_tasks_take_options():
    parse = MSAEArgumentParser([SwordBenchArguments], "", "", prog="x").parse
    (make,) = chosen_tasks(
        *parse(["--tasks", "gaussian", "--output", "o", "--correlation", "0.5", "--num_rows", "80"])
    )
    task = make(seed=2)
    assert task.provenance["correlation"] == 0.5 and len(task.features) == 80 and task.provenance["seed"] == 2
    (make,) = chosen_tasks(*parse(["--tasks", "scenes_artifact", "--output", "o", "--hook_point", "vision.layers.1"]))
    assert make.keywords == {"hook_point": "vision.layers.1"}


def test_what_is_not_defined_is_no_empty_table(data, tmp_path, capsys):
    own = ["--data", str(data), "--concepts", "concept_1", "--target", "kind", "--bias", "concept_1"]
    (tmp_path / "out").mkdir()
    ours = ["doses.png", "injection.png", "success_against_damage.png", "cross_concepts_other.png"]
    for name in (*ours, "mine.png"):
        (tmp_path / "out" / name).touch()
    main([*own, "--methods", "lda", "--seeds", "0", "--only_bias", "true", "--output", str(tmp_path / "out")])
    assert [path.name for path in (tmp_path / "out").glob("*.png")] == ["mine.png"]  # the others are of an earlier run
    printed = capsys.readouterr().out
    assert printed.count(":\nnot defined\n") == 2 and "Empty" not in printed
    assert "perfect steering on kind is not defined: label and bias of kind are not correlated" in printed


def test_an_msae_is_compared(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("hf_msae.plotting.save_figure", lambda *given: None)
    identity_msae(12, [12]).save_pretrained(tmp_path / "msae")
    own = ["--data", str(data), "--concepts", "bias", "--target", "kind", "--bias", "bias", "--seeds", "0"]
    given = ["--methods", "lda", "msae", "--msae", str(tmp_path / "msae"), "--num_latents", "3", "--only_bias", "true"]
    with pytest.warns(DeprecationWarning, match="--output_dir.*use --output$"):  # the flag of other commands
        main([*own, *given, "--output_dir", str(tmp_path / "out")])
    frame = pd.read_csv(tmp_path / "out" / "figures.csv")
    assert set(frame["method"]) == {"lda", "msae"}
    cell = json.loads(next((tmp_path / "out" / "cells").glob("*msae*")).read_text())
    assert cell["settings"]["num_latents"] == 3
    with pytest.raises(SystemExit):
        main([*own, "--methods", "msae", "--output", str(tmp_path / "other")])
    assert "needs an MSAE" in capsys.readouterr().err and not (tmp_path / "other").exists()


def test_tasks_and_methods_are_listed(capsys):
    main(["--available"])
    printed = capsys.readouterr().out
    assert all(f"  {name} " in printed for name in (*METHODS, *TASKS))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--tasks", "gausian"], "gausian"),
        (["--tasks", "gaussian", "--methods", "eraser"], "eraser"),
        ([], "--tasks"),
        (["--tasks", "gaussian", "--hook_point", "vision.layers.1"], "gaussian has no --hook_point"),
        (["--tasks", "gaussian", "--split_column", "split"], "--split_column"),
        (["--tasks", "gaussian", "--num_rows", "2"], "num_rows"),
        (["--tasks", "gaussian", "--num_rows", "80", "--submission", "m", "--methods", "lda"], "without --num_rows"),
        (["--data", "somewhere"], "--concepts"),
        (["--data", "x", "--concepts", "a", "--target", "t", "--bias", "b"], "--bias b"),
        (["--tasks", "gaussian", "--num_workers", "0"], "num_workers"),
        (["--tasks", "gaussian", "--methods", "sem", "--msae", "scenes-image"], "a name and an MSAE"),
        (["--tasks", "gaussian", "--methods", "msae", "--msae", "scenes-image"], "columns"),
    ],
)
def test_what_cannot_be_run_is_refused(tmp_path, capsys, given, said):
    with pytest.raises(SystemExit) as stopped:
        main([*given, "--output", str(tmp_path / "out")])
    assert stopped.value.code != 0 and said in capsys.readouterr().err
