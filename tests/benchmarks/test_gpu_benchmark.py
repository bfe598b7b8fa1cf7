"""The checks of GPUs: what they compare holds between a CPU and itself, and a figure outside its limit is told."""

import json

import numpy as np
import pytest
import torch


def run(module, folder, *checks):
    return module.main(["--device", "cpu", "--small", "--output", str(folder), "--checks", *checks])


def test_without_a_gpu_it_says_so(benchmark_module, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert benchmark_module("gpu").main(["--output", str(tmp_path / "out")]) == 1
    assert "no device" in capsys.readouterr().out and not (tmp_path / "out").exists()


def test_figures_within_their_limits_pass_and_others_fail(benchmark_module, tmp_path):
    module = benchmark_module("gpu")
    assert run(module, tmp_path, "golden", "search", "processes") == 0
    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert [row["passed"] for row in rows if row["check"] == "golden"] == [True] * 4
    assert [row["value"] for row in rows if row["limit"] == ">= 0.99"] == [1.0]
    assert rows[-1]["value"] is None and rows[-1]["passed"] is None and "0" in rows[-1]["what"]
    module.relative_error = lambda actual, expected: 2e-4
    assert run(module, tmp_path, "golden") == 1


def test_a_check_that_fails_does_not_keep_the_others_from_running(benchmark_module, tmp_path):
    module = benchmark_module("gpu")

    def broken(setting):
        yield module.Row("golden", "first", 1.0)
        raise RuntimeError("out of memory")

    module.CHECKS["golden"] = broken
    assert run(module, tmp_path, "golden", "processes") == 1
    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert [row["check"] for row in rows] == ["golden", "golden", "processes"]
    assert "out of memory" in rows[1]["what"] and rows[1]["passed"] is False


def test_the_relative_error_is_of_the_norms(benchmark_module):
    error = benchmark_module("gpu").relative_error(torch.tensor([3.0, 5.0]), torch.tensor([3.0, 4.0]))
    assert error == pytest.approx(0.2)


@pytest.mark.slow
def test_every_check_runs(benchmark_module, tmp_path):
    module = benchmark_module("gpu")
    assert run(module, tmp_path, "families", "step", "training", "extraction") == 0
    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    found = [row["what"].split(":")[0] for row in rows if row["check"] == "families"]
    assert set(found) == set(module.FAMILIES)
    assert {row["check"] for row in rows} == {"families", "step", "training", "extraction"}
    assert all(np.isfinite(row["value"]) for row in rows)
