"""The commands train and evaluate in two processes, and processes that are stopped."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from accelerate import debug_launcher
from safetensors.torch import load_file

from hf_msae.cli import train
from hf_msae.metrics import EvaluationResult
from tests import forking
from tests.training import two_processes
from tests.training.commands import LATENTS, QUIET, ROOT, SMALL, run, steps_of

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


ACCELERATE = [
    *("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"),
    *("--mixed_precision", "no", "--dynamo_backend", "no"),
]


TRAIN = str(ROOT / "training" / "train_msae.py")


def start(*command, **environment):
    """Start Python with these arguments; one thread for each process."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    command = [sys.executable, *map(str, command)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, cwd=ROOT, stdout=pipe, stderr=pipe, text=True)


def end(process):
    """Wait for a process to succeed and return its output."""
    output, errors = process.communicate(timeout=480)
    assert process.returncode == 0, errors
    assert "broadcast_buffers" not in errors, "torch's advice to accelerate"
    return output


BATCH_TOPK = ["--nesting", "none", "--activation", "batch_topk", "--k", "5", "--num_latents", str(LATENTS)]
BATCH_TOPK += [*SMALL[SMALL.index("--max_steps") :], "--resample_steps", "8", "--dead_steps", "4"]


@pytest.fixture(scope="module")
def of_two(tmp_path_factory, data_flags, finished, embeddings):
    """What two processes write: two trainings and an evaluation, in one launch."""
    folder = tmp_path_factory.mktemp("two")
    common = [*data_flags, "--per_device_train_batch_size", "16", "--adam_epsilon", "1e-3"]
    of_evaluation = [finished, "--data", embeddings / "test.npy", "--output", folder / "metrics.json", *QUIET]
    commands = [
        ("train", [*common, "--output_dir", folder / "out", *SMALL, "--save_steps", "20"]),
        ("train", [*common, "--output_dir", folder / "batch_topk", *BATCH_TOPK]),
        ("evaluate", [*of_evaluation, "--per_device_eval_batch_size", "64"]),
    ]
    commands = json.dumps(commands, default=str)
    shown = end(start(*TORCHRUN, Path(__file__).with_name("two_processes.py"), commands))
    assert shown.count(two_processes.LEFT) == 2, "or one of them might be aborted at exit"
    assert shown.count("on 2 x cpu") == shown.count("from hf_msae import MSAEModel") == 2, "only one process prints"
    return folder


def assert_close_weights(one, two):
    expected, actual = (load_file(folder / "model.safetensors") for folder in (one, two))
    assert expected.keys() == actual.keys()
    for name in expected:
        assert torch.allclose(expected[name], actual[name], rtol=1e-3, atol=1e-5), name


@pytest.mark.slow
def test_two_processes_train_the_model_of_one_with_twice_the_batch(of_two, finished, data_flags):
    assert_close_weights(finished, of_two / "out")
    one, two = (EvaluationResult.load(folder) for folder in (finished, of_two / "out"))
    assert two.fvu == pytest.approx(one.fvu, rel=1e-3)
    assert (two.num_samples, two.dead_latents) == (one.num_samples, one.dead_latents)
    for alone, together in zip(steps_of(finished), steps_of(of_two / "out"), strict=True):
        for key in ("step", "epoch", "loss", "fvu", "sparsity", "learning_rate", "grad_norm", "dead_latents"):
            assert together[key] == pytest.approx(alone[key], rel=1e-3), key

    checkpoint = of_two / "out" / "checkpoint-20"
    assert json.loads((checkpoint / "trainer_state.json").read_text())["num_processes"] == 2
    resumed = of_two / "resumed"  # by one process
    flags = ["--output_dir", resumed, "--per_device_train_batch_size", 32, *SMALL, "--adam_epsilon", "1e-3"]
    run(train.main, *data_flags, *flags, "--resume_from_checkpoint", checkpoint)
    assert_close_weights(of_two / "out", resumed)


@pytest.mark.slow
def test_two_processes_stop_early_where_one_does(tmp_path, data_flags):
    flags = [*data_flags, "--eval_steps", "2", "--early_stopping_patience", "2", "--early_stopping_threshold", "0.02"]
    flags += [*SMALL, "--adam_epsilon", "1e-3"]
    run(train.main, *flags, "--per_device_train_batch_size", "32", "--output_dir", tmp_path / "one")
    both = ["--per_device_train_batch_size", "16", "--output_dir", tmp_path / "two"]
    commands, output = [("train", [*map(str, flags), *map(str, both)])], tmp_path / "output.txt"
    launched = forking.start(debug_launcher, two_processes.run, (commands,), output=output)
    assert forking.end(launched) == 0, output.read_text()
    assert_close_weights(tmp_path / "one", tmp_path / "two")
    one, two = (json.loads((tmp_path / name / "training.json").read_text())["result"] for name in ("one", "two"))
    assert (two["num_processes"], two["global_step"], two["best_step"]) == (2, one["global_step"], one["best_step"])
    assert two["global_step"] < 30


@pytest.mark.slow
def test_batch_topk_and_resampling_see_the_batch_of_all_processes(of_two, tmp_path, data_flags):
    flags = [*data_flags, "--output_dir", tmp_path, "--per_device_train_batch_size", 32, "--adam_epsilon", "1e-3"]
    run(train.main, *flags, *BATCH_TOPK)
    assert load_file(tmp_path / "model.safetensors")["activation_threshold"] > 0
    assert_close_weights(tmp_path, of_two / "batch_topk")


@pytest.mark.slow
def test_two_processes_evaluate_as_one(of_two, finished):
    one, two = EvaluationResult.load(finished), EvaluationResult.load(of_two / "metrics.json")
    assert two.to_dict().keys() == one.to_dict().keys()
    for key in ("fvu", "cosine_similarity", "sparsity", "cknna", "dead_latents", "num_samples"):
        assert getattr(two, key) == pytest.approx(getattr(one, key), rel=1e-6), key


@pytest.mark.slow
def test_accelerate_launches_two_processes_on_a_cpu(tmp_path, data_flags):
    flags = [*data_flags, "--output_dir", tmp_path, "--per_device_train_batch_size", 16, *SMALL, "--max_steps", 2]
    flags.remove("--use_cpu")  # not needed without a GPU
    environment = {"ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}
    assert "on 2 x cpu" in end(start(*ACCELERATE, TRAIN, *flags, **environment))
    assert len(steps_of(tmp_path)) == 2 and (tmp_path / "model.safetensors").is_file()


@pytest.mark.slow
def test_an_error_is_told_by_one_of_two_processes(tmp_path):
    (tmp_path / "cut.npy").write_bytes(b"no")  # read by the main process while the other one waits for it
    running = start(*TORCHRUN, TRAIN, "--train_data", tmp_path / "cut.npy", "--output_dir", tmp_path / "out", *SMALL)
    _, errors = running.communicate(timeout=480)
    assert running.returncode == 1 and errors.count("cut.npy cannot be read") == 1
    assert "[rank1]" not in errors and "Connection closed" not in errors


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "signum"), [(1, signal.SIGINT), (2, signal.SIGTERM)])
def test_an_interrupted_script_saves_its_state_and_says_how_to_continue(tmp_path, data_flags, processes, signum):
    flags = [*data_flags, "--output_dir", tmp_path, "--per_device_train_batch_size", 32 // processes, *SMALL]
    flags += ["--max_steps", 100_000, "--save_strategy", "no"]
    running = start(*(TORCHRUN if processes == 2 else []), TRAIN, *flags)
    try:
        deadline = time.monotonic() + 240
        log = tmp_path / "training_log.jsonl"
        while not (log.exists() and len(log.read_text().splitlines()) >= 3):
            assert running.poll() is None and time.monotonic() < deadline, "training did not start"
            time.sleep(0.2)
        running.send_signal(signum)
        _, errors = running.communicate(timeout=120)
    finally:
        running.kill()
    (checkpoint,) = tmp_path.glob("checkpoint-*")
    step = int(checkpoint.name.removeprefix("checkpoint-"))
    assert json.loads((checkpoint / "trainer_state.json").read_text())["num_processes"] == processes
    assert f"step {step} of 100000" in errors and "--resume_from_checkpoint last" in errors
    assert running.returncode == 128 + signum if processes == 1 else running.returncode
    assert processes == 2 or "Traceback" not in errors


@pytest.mark.slow
def test_killed_again_and_again_it_ends_with_exactly_the_same_weights(tmp_path, data_flags):
    """SIGKILL at random moments, while checkpoints are written too: every step saves one."""
    steps, whole, cut = 40, tmp_path / "whole", tmp_path / "cut"
    flags = [*data_flags, "--per_device_train_batch_size", 32, *SMALL, "--max_steps", steps]
    flags += ["--save_steps", 1, "--logging_steps", 1]

    def newest():
        return max((int(path.name.split("-")[1]) for path in cut.glob("checkpoint-*")), default=0)

    def started(folder, *resume):
        argv = [*map(str, flags), "--output_dir", str(folder), *resume]
        return forking.start(train.main, argv, output=tmp_path / "output.txt")

    uninterrupted = started(whole)
    resume, moments = [], random.Random(0)
    for _ in range(2):
        target = newest() + moments.randrange(3, 10)
        running = started(cut, *resume)
        while newest() < target and running.is_alive():
            time.sleep(0.001)
        time.sleep(moments.random() * 0.05)  # anywhere within a step
        assert running.is_alive(), (tmp_path / "output.txt").read_text()
        running.kill()
        assert forking.end(running) == -signal.SIGKILL
        resume = ["--resume_from_checkpoint", "last"]
    assert 0 < newest() < steps
    for process in (started(cut, *resume), uninterrupted):
        assert forking.end(process) == 0, (tmp_path / "output.txt").read_text()
    expected, actual = (load_file(folder / "model.safetensors") for folder in (whole, cut))
    assert all(torch.equal(expected[name], actual[name]) for name in expected)
    losses = [[record["loss"] for record in steps_of(folder)] for folder in (whole, cut)]
    assert losses[0] == losses[1] and len(losses[0]) == steps
    assert not list(cut.glob(".tmp*"))
