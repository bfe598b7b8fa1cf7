"""Runs that are killed at any moment continue, and end like one that was not."""

import signal
import time

import numpy as np
import pytest
from PIL import Image

from hf_msae.neuron_labels import FunctionNeuron, NeuronLabels, label_neurons
from tests import forking
from tests.neuron_labels.color_world import ColorImager, ListProposer, redness


class TellingImager(ColorImager):
    """Tells what it draws."""

    def __init__(self, tell):
        super().__init__()
        self.tell = tell

    def draw(self, concept, seeds):
        self.tell(concept)
        time.sleep(0.02)
        return super().draw(concept, seeds)


def lightness(images):
    return [float(np.asarray(each).mean()) for each in images]


def label(folder, tell):
    rng = np.random.default_rng(0)
    control = [Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)) for _ in range(60)]
    neurons = [FunctionNeuron(redness, "redness"), FunctionNeuron(lightness, "lightness")]
    proposer, imager = ListProposer("green", "red", "white", "table", "orange"), TellingImager(tell)
    settings = {"iterations": 5, "start": ["blue", "pink"], "progress": False}
    label_neurons(neurons, proposer, imager, control, output_dir=str(folder), **settings)


def label_there(folder, connection):
    label(folder, connection.send)


@pytest.mark.slow
def test_killed_runs_end_like_one_that_was_not(tmp_path):
    label(tmp_path / "whole", lambda concept: None)
    for draws in (1, 3, 5, 2):  # of each run, after those that earlier ones kept
        received, sent = forking.CONTEXT.Pipe(duplex=False)
        process = forking.start(label_there, tmp_path / "killed", sent)
        for _ in range(draws):
            assert received.poll(60) and received.recv()
        process.kill()
        assert forking.end(process) == -signal.SIGKILL
    label(tmp_path / "killed", lambda concept: None)
    expected, found = (NeuronLabels.load(tmp_path / name / "labels.json") for name in ("whole", "killed"))
    assert [label.label for label in found.labels] == ["red", "white"]
    for one, other in zip(expected.labels, found.labels, strict=True):
        assert one.history.equals(other.history) and one.meanings.equals(other.meanings)
        assert one.interval == other.interval
    assert found.spent["images"] < expected.spent["images"]
    assert not list((tmp_path / "killed").rglob("*.tmp"))
