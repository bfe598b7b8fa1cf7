"""docs/training.md: its example runs, and the flags, files and keys it names exist."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from hf_msae import MSAETrainingArguments
from hf_msae._utils.argument_parser import MSAEArgumentParser
from hf_msae.cli.evaluate import EvaluationArguments
from hf_msae.metrics import EvaluationResult
from hf_msae.training.flags import DataArguments, ModelArguments, SweepArguments

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
LAUNCHER_FLAGS = {"--multi_gpu", "--num_processes", "--nproc_per_node", "--standalone", "--cpu", "--num_machines"}
LAUNCHER_FLAGS |= {
    "--dynamo_backend",
    "--help",
    "--config_file",
    "--device",
    "--quick",
    "--world",
}  # the last three of benchmarks
EVALUATION_FLAGS = {f"--{field.name}" for field in dataclasses.fields(EvaluationArguments)}


@pytest.mark.slow
def test_the_python_example_runs_and_finds_what_is_there(tmp_path, monkeypatch, capsys):
    (example,) = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(example, "docs/training.md", "exec"), names)
    evaluation = EvaluationResult.load(tmp_path / "outputs" / "msae")
    assert str(evaluation) in capsys.readouterr().out
    assert evaluation.num_samples == 500
    assert evaluation.fvu < 0.1
    assert names["msae"].config.num_latents == 128


def test_every_flag_in_the_text_exists():
    parser = MSAEArgumentParser((DataArguments, ModelArguments, MSAETrainingArguments, SweepArguments), "", "")
    known = {flag for action in parser._actions for flag in action.option_strings}
    named = set(re.findall(r"--[a-z]\w+", TEXT))
    assert len(named & known) > 20
    assert not named - known - LAUNCHER_FLAGS - EVALUATION_FLAGS


def test_every_command_of_the_training_script_parses():
    parser = MSAEArgumentParser((DataArguments, ModelArguments, MSAETrainingArguments, SweepArguments), "", "")
    blocks = re.findall(r"```bash\n(.*?)```", TEXT, flags=re.DOTALL)
    commands = [
        block.replace("\\\n", " ").split("hf-msae train", 1)[1].split()
        for block in blocks
        if "hf-msae train --" in block
    ]
    assert len(commands) == 4
    for command in commands:
        parser.parse([word.replace("training/configs", str(ROOT / "training" / "configs")) for word in command])


@pytest.mark.parametrize("name", re.findall(r"`((?:training|docs|hf_msae)/[\w/.]+)`|\]\(\.\./([\w/.]+)\)", TEXT))
def test_every_file_in_the_text_exists(name):
    assert (ROOT / (name[0] or name[1])).exists()


def test_every_logged_key_is_explained(tmp_path):
    from hf_msae import MSAEConfig, MSAEModel, MSAETrainer

    rows = [[float(i % 7), float(i % 5), float(i % 3)] for i in range(40)]
    import numpy as np

    args = MSAETrainingArguments(str(tmp_path), max_steps=1, use_cpu=True, disable_tqdm=True)
    model = MSAEModel(MSAEConfig(d_in=3, num_latents=8))
    log = MSAETrainer(model, args, np.array(rows, dtype=np.float32)).train().log_history
    explained = set(re.findall(r"^\| (`[^|]*) \|", TEXT[TEXT.index("## What the numbers mean") :], flags=re.MULTILINE))
    assert set(re.findall(r"\w+", " ".join(explained))) == set(json.loads(json.dumps(log[0])))
