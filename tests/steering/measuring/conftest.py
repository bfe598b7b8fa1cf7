"""Gaussian tasks, and edits along their true directions."""

import pytest

from hf_msae.steering import gaussian_task
from hf_msae.steering.damage import Judge, damage_figures
from hf_msae.steering.doses import removal_doses
from tests.steering.measuring.known_edits import STRENGTH, Known, fit


@pytest.fixture(scope="session")
def task():
    return gaussian_task(num_rows=6000, width=24, num_concepts=4, strength=STRENGTH, seed=3)


@pytest.fixture(scope="session")
def judge(task):
    return Judge(task)


@pytest.fixture(scope="session")
def known(task):
    directions = zip(task.concepts, task.provenance["directions"], strict=True)
    return {concept: fit(Known(direction), task, concept) for concept, direction in directions}


@pytest.fixture(scope="session")
def damage(known, judge):
    """What `damage_figures` finds of the removal of the bias along its true direction."""
    return damage_figures(known["bias"], judge, seed=0)[0]


@pytest.fixture(scope="session")
def doses(known, judge):
    """What `removal_doses` finds of it."""
    return removal_doses(known["bias"], judge, seed=0)


@pytest.fixture(scope="session")
def few():
    return gaussian_task(num_rows=500, width=8, num_concepts=1, strength=STRENGTH)
