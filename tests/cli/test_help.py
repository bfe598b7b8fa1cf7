"""`--help` of every command, which should not wait for torch."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from hf_msae import cli

# matplotlib, torch and others take seconds to import; numpy comes with transformers.
HEAVY = {"torch", "datasets", "accelerate", "pandas", "pyarrow", "sklearn", "scipy", "matplotlib", "gradio"}
EXPLAIN = """
import sys
from hf_msae.cli import main
main(["explain", "scenes-image", "--image", sys.argv[1]])
unwanted = {"datasets", "sklearn", "matplotlib", "torchvision", "scipy.stats", "gradio"} & set(sys.modules)
assert not unwanted, unwanted
"""
SHOW_ALL = """
import contextlib, io, json, sys
from hf_msae.cli import _COMMANDS, main
shown = {}
for command in _COMMANDS:
    with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.suppress(SystemExit):
        main([command, "--help"])
    shown[command] = text.getvalue(), sorted({name.partition(".")[0] for name in sys.modules})
json.dump(shown, sys.stdout)
"""


@pytest.fixture(scope="module")
def shown():
    """What each command shows, and the modules imported by then."""
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", SHOW_ALL], env=environment, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


@pytest.mark.slow
def test_an_explanation_imports_only_what_it_uses(tmp_path):
    """What is left is torch, transformers with all that it imports, and pandas."""
    Image.new("RGB", (96, 96), "red").save(tmp_path / "red.png")
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2])}
    subprocess.run([sys.executable, "-c", EXPLAIN, tmp_path / "red.png"], env=environment, check=True)


def test_no_heavy_module_is_imported(shown):
    imported = {command: sorted(HEAVY & set(modules)) for command, (_, modules) in shown.items()}
    assert imported == {command: [] for command in cli._COMMANDS}


def test_every_help_names_its_command_and_no_empty_default(shown):
    assert all(text.startswith(f"usage: hf-msae {command}") for command, (text, _) in shown.items())
    assert not [command for command, (text, _) in shown.items() if "[]" in text], "an empty default says nothing"


def test_commands_that_open_the_same_have_the_same_flags(shown):
    """Some flags are given together, so that no error names a flag that the command lacks."""
    flags = {command: set(re.findall(r"--\w+", text)) for command, (text, _) in shown.items()}
    reading = {"--data", "--embeddings", "--percentile_data", "--train_data"}
    unverified = {command for command, found in flags.items() if reading & found and "--no_verify" not in found}
    assert unverified == {"doctor"}, "which reads no embeddings"
    # One says how the backbone differs, two have no MSAE that it could fit, and one reads names for embeddings of it.
    free = {"doctor", "extract", "released", "swordbench"}
    assert {
        command for command, found in flags.items() if ("--backbone" in found) != ("--allow_other_backbone" in found)
    } == free


@pytest.mark.skipif(os.name != "posix", reason="needs a pipe that can be closed")
def test_a_reader_may_have_enough():
    """Such as `hf-msae released | head`."""
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2])}
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "hf_msae.cli", "released"],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")
