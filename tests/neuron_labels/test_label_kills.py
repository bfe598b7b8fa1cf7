"""Runs that are killed at any moment continue, and end like one that was not."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hf_msae.neuron_labels import NeuronLabels

RUN = """
import sys, time
import numpy as np
from PIL import Image
from hf_msae.neuron_labels import FunctionNeuron, label_neurons
from tests.neuron_labels.color_world import ColorImager, ListProposer, redness

class TellingImager(ColorImager):
    def draw(self, concept, seeds):
        print(concept, flush=True)
        time.sleep(0.02)
        return super().draw(concept, seeds)

def lightness(images):
    return [float(np.asarray(each).mean()) for each in images]

rng = np.random.default_rng(0)
control = [Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)) for _ in range(60)]
neurons = [FunctionNeuron(redness, "redness"), FunctionNeuron(lightness, "lightness")]
label_neurons(
    neurons, ListProposer("green", "red", "white", "table", "orange"), TellingImager(), control, iterations=5,
    start=["blue", "pink"], output_dir=sys.argv[1], progress=False,
)
"""


def start(folder):
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(folder)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_killed_runs_end_like_one_that_was_not(tmp_path):
    whole = start(tmp_path / "whole")
    assert whole.wait(120) == 0
    for draws in (1, 3, 5, 2):  # of each run, after those that earlier ones kept
        process = start(tmp_path / "killed")
        for _ in range(draws):
            assert process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait(60) == -signal.SIGKILL
    last = start(tmp_path / "killed")
    assert last.wait(120) == 0
    expected, found = (NeuronLabels.load(tmp_path / name / "labels.json") for name in ("whole", "killed"))
    assert [label.label for label in found.labels] == ["red", "white"]
    for one, other in zip(expected.labels, found.labels, strict=True):
        assert one.history.equals(other.history) and one.meanings.equals(other.meanings)
        assert one.interval == other.interval
    assert found.spent["images"] < expected.spent["images"]
    assert not list((tmp_path / "killed").rglob("*.tmp"))
