"""benchmarks/pareto.py, small: every family is on the table, and a second call trains nothing."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "pareto.py"


@pytest.mark.slow
def test_every_family_is_compared_and_a_second_call_trains_nothing(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    for name, rows in (("train", 200), ("test", 120)):
        codes = rng.uniform(size=(rows, 20)) * (rng.uniform(size=(rows, 20)) < 0.2)
        np.save(tmp_path / f"{name}.npy", (codes @ rng.normal(size=(20, 12)) + np.arange(12)).astype(np.float32))
    data = ["--train_data", str(tmp_path / "train.npy"), "--eval_data", str(tmp_path / "test.npy")]
    small = ["--num_latents", "32", "--ks", "4", "8", "--steps", "8", "--batch_size", "50", "--seeds", "1", "2"]
    argv = [str(SCRIPT), *data, *small, "--output_dir", str(tmp_path / "out"), "--use_cpu"]
    monkeypatch.setattr(sys, "argv", argv)
    runpy.run_path(str(SCRIPT), run_name="__main__")
    table = pd.read_csv(tmp_path / "out" / "pareto.csv")
    assert set(table["seed"]) == {1, 2}
    families = {"MSAE, uniform", "MSAE, reverse", "ReLU", "JumpReLU", "TopK", "BatchTopK", "prefixes of BatchTopK"}
    assert set(table["family"]) >= families
    topk = table[table["family"] == "TopK"]
    assert sorted(topk["l0"].round()) == [4, 4, 8, 8]
    assert set(table[table["family"] == "MSAE, uniform"]["point"]) == {f"MSAE, uniform@{k}" for k in (4, 8, "all")}
    assert (tmp_path / "out" / "pareto.png").stat().st_size > 10_000
    assert (tmp_path / "out" / "pareto.md").read_text().startswith("| point | seeds | L0 | FVU |")

    capsys.readouterr()
    for folder in (tmp_path / "out").glob("seed-*/"):
        folder.rename(tmp_path / folder.name)
    runpy.run_path(str(SCRIPT), run_name="__main__")
    assert "training" not in capsys.readouterr().err
    assert pd.read_csv(tmp_path / "out" / "pareto.csv").equals(table)
