"""FSDP2 in two processes: the same numbers as data-parallel training, and exact resuming."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_sharded_training_equals_data_parallel_training_and_resumes_exactly(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    command += [str(Path(__file__).with_name("fsdp_program.py")), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=480)
    assert done.returncode == 0, done.stderr[-3000:]

    parallel, sharded, resumed = (
        load_file(tmp_path / name / "model.safetensors") for name in ("ddp", "fsdp", "fsdp-resumed")
    )
    for name in parallel:
        assert torch.allclose(parallel[name], sharded[name], rtol=1e-4, atol=1e-7), name
        assert torch.equal(resumed[name], sharded[name]), name
    logs = [(tmp_path / name / "training_log.jsonl").read_text().splitlines() for name in ("ddp", "fsdp")]
    for one, other in zip(*(map(json.loads, log) for log in logs), strict=True):
        assert one.keys() == other.keys()
        for key in one.keys() & {"loss", "fvu", "dead_latents", "eval_fvu"}:
            assert one[key] == pytest.approx(other[key], rel=1e-4), key


def test_the_accelerate_config_asks_for_fsdp2():
    config = load_config_from_file(str(ROOT / "training" / "configs" / "accelerate_fsdp2.yaml"))
    assert str(config.distributed_type).endswith("FSDP")
    assert config.fsdp_config["fsdp_version"] == 2
