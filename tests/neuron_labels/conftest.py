"""Fixtures of the world of colors."""

import numpy as np
import pytest
from PIL import Image

from hf_msae.neuron_labels import FunctionNeuron
from tests.neuron_labels.color_world import ColorImager, ListProposer, redness


@pytest.fixture
def red_neuron():
    return FunctionNeuron(redness, "redness")


@pytest.fixture
def noise_pictures():
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)) for _ in range(80)]


@pytest.fixture
def colors():
    return ColorImager()


@pytest.fixture
def make_proposer():
    return ListProposer


@pytest.fixture
def make_imager():
    return ColorImager
