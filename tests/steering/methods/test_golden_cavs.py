"""CAVs agree with those of pattern-cav, computed by itself."""

import numpy as np
import pytest

from hf_msae.steering import METHODS
from tests.conftest import GOLDEN

NAMES = {
    "ridge": "ridge",
    "lasso": "lasso",
    "logistic": "logistic",
    "pattern": "signal",
    "mean_difference": "mean",
    "median_difference": "median",
}


@pytest.fixture(scope="module")
def golden():
    return dict(np.load(GOLDEN / "cav_small.npz"))


def direction(method, golden, transform=lambda X: X):
    return METHODS[method]().fit(transform(golden["X"]), golden["y"] > 0).direction.numpy().astype(np.float64)


@pytest.mark.parametrize("method", NAMES)
def test_deterministic_cavs(method, golden, relative_error):
    assert relative_error(direction(method, golden), golden[f"cav_{NAMES[method]}"]) < 1e-5


@pytest.mark.parametrize("name", ["svm", "svm_centered"])
def test_support_vector_machines(name, golden):
    center = (lambda X: X - X.mean(axis=0)) if name == "svm_centered" else (lambda X: X)
    assert direction("svm", golden, center) @ golden[f"cav_{name}"] > 0.9999


def test_patterns_of_rescaled_embeddings(golden, relative_error):
    found = direction("pattern", golden, lambda X: X / np.abs(X).max())
    assert relative_error(found, golden["cav_signal_max_scaled"]) < 1e-5
