"""The `evaluate` modules: loaded from their folders, offline, they give what the functions give."""

import os
import subprocess
import sys

import evaluate
import numpy as np
import pytest
import torch

from hf_msae import metrics
from hf_msae.metrics import module_path

X = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
Y = X + 0.2 * np.random.default_rng(1).normal(size=X.shape).astype(np.float32)
CODES = np.maximum(np.random.default_rng(2).normal(size=(40, 9)) - 0.5, 0).astype(np.float32)
x, y, codes = (torch.from_numpy(each) for each in (X, Y, CODES))


def values(*functions, of):
    return {function.__name__: function(*of) for function in functions}


MODULES = {
    "fvu": (Y, X, values(metrics.fvu, metrics.fvu_per_sample, of=(x, y))),
    "cosine": (Y, X, values(metrics.cosine_similarity, metrics.cosine_similarity_centered, of=(x, y))),
    "cknna": (CODES, X, {"cknna": metrics.cknna(x, codes), "cknna_batch_size": 40}),
    "sparsity": (
        CODES,
        None,
        values(metrics.l0, metrics.sparsity, metrics.dead_latents, metrics.dead_fraction, of=(codes,)),
    ),
}


@pytest.mark.parametrize("name", MODULES)
def test_a_module_gives_what_the_function_gives(name, tmp_path):
    predictions, references, expected = MODULES[name]
    module = evaluate.load(module_path(name), cache_dir=str(tmp_path))
    inputs = {"predictions": predictions} | ({} if references is None else {"references": references})
    assert module.compute(**inputs) == pytest.approx(expected)
    for part in (slice(0, 13), slice(13, 40)):
        module.add_batch(**{key: value[part] for key, value in inputs.items()})
    assert module.compute() == pytest.approx(expected)
    assert next(iter(expected)) in module.description


def test_unknown_modules_are_named():
    with pytest.raises(ValueError, match=r"'mse'.*cknna, cosine, fvu, sparsity"):
        module_path("mse")


@pytest.mark.slow
def test_they_load_without_a_network(tmp_path):
    program = (
        "import evaluate; from hf_msae.metrics import module_path; rows = [[1.0, 2.0], [2.0, 1.0]]\n"
        "print(evaluate.load(module_path('fvu')).compute(predictions=rows, references=rows))"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "'fvu': 0.0" in done.stdout
