"""Runs of SwordBench over processes, and after they were killed, give the same table."""

import signal
import subprocess
import sys
import time
from functools import partial

import psutil
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from hf_msae.steering import gaussian_task, run_swordbench
from hf_msae.steering import run as module

small = partial(gaussian_task, num_rows=400, width=12, num_concepts=3)


run = partial(run_swordbench, progress=False)


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
