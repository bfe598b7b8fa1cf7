"""A small Gaussian task, an MSAE of its width, and the methods with what they need."""

import numpy as np
import pytest
import torch

from hf_msae.steering import METHODS, gaussian_task
from tests.identity_msae import identity_msae

WIDTH = 12
BY_LABELS = sorted(name for name, method in METHODS.items() if not method.needs.startswith("a name"))


@pytest.fixture(scope="session")
def task():
    return gaussian_task(num_rows=600, width=WIDTH, num_concepts=3, strength=4.0, correlation=0.0)


@pytest.fixture(scope="session")
def train(task):
    """(embeddings, concept, other concepts) of the training rows."""
    concepts = np.stack(list(task.concepts.values()), axis=1)[task.train]
    return task.features[task.train], concepts[:, 0], concepts[:, 1:]


@pytest.fixture(scope="session")
def msae_folder(task, tmp_path_factory):
    """An MSAE whose first latents are the directions of the concepts, in a folder."""
    model = identity_msae(WIDTH, [WIDTH])
    directions = torch.tensor(task.provenance["directions"])
    axes = torch.linalg.qr(torch.cat([directions, torch.eye(WIDTH)]).T)[0].T
    axes[: len(directions)] = directions
    with torch.no_grad():
        model.encoder.copy_(axes.T)
        model.decoder.copy_(axes)
    folder = tmp_path_factory.mktemp("msae")
    model.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def make(msae_folder):
    """(method, **options) -> an edit that has not been fitted."""

    def make(method, **options):
        return METHODS[method](**({"msae": msae_folder} if "MSAE" in METHODS[method].needs else {}), **options)

    return make


@pytest.fixture(scope="session")
def fitted(make, train):
    """Method -> the edit, fitted to the training rows."""
    X, concept, others = train
    return {method: make(method).fit(X, concept, others=others) for method in BY_LABELS}
