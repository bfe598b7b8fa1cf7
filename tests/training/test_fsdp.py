"""FSDP2 in two real processes: the numbers of data-parallel training, and an exact resume."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]


def train(kind, folder, *checkpoint):
    import os

    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    command += [str(Path(__file__).with_name("fsdp_program.py")), kind, str(folder), *map(str, checkpoint)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    return load_file(folder / "model.safetensors"), (folder / "training_log.jsonl").read_text().splitlines()


@pytest.mark.slow
def test_in_pieces_it_is_the_same_training_and_resumes_exactly(tmp_path):
    parallel, its_log = train("ddp", tmp_path / "ddp")
    sharded, log = train("fsdp", tmp_path / "fsdp")
    for name in parallel:
        assert torch.allclose(parallel[name], sharded[name], rtol=1e-4, atol=1e-7), name
    for one, other in zip(map(json.loads, its_log), map(json.loads, log), strict=True):
        assert one.keys() == other.keys()
        for key in one.keys() & {"loss", "fvu", "dead_latents", "eval_fvu"}:
            assert one[key] == pytest.approx(other[key], rel=1e-4), key
    shutil.rmtree(tmp_path / "fsdp" / "checkpoint-20")
    resumed, _ = train("fsdp", tmp_path / "fsdp", tmp_path / "fsdp" / "checkpoint-10")
    for name in sharded:
        assert torch.equal(resumed[name], sharded[name]), name


def test_the_accelerate_config_asks_for_fsdp2():
    config = load_config_from_file(str(ROOT / "training" / "configs" / "accelerate_fsdp2.yaml"))
    assert str(config.distributed_type).endswith("FSDP")
    assert config.fsdp_config["fsdp_version"] == 2
