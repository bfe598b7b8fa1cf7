"""Fixtures for tests of training."""

import numpy as np
import pytest

from hf_msae.cli import train
from hf_msae.embeddings import load_embeddings
from tests.training.commands import SMALL, WIDTH, run
from tests.training.small_runs import sparse_embeddings


@pytest.fixture(scope="module")
def data():
    return load_embeddings(sparse_embeddings())


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory):
    """Two .npy files with sparse combinations of directions: 320 rows to train on, 160 held out."""
    folder, rng = tmp_path_factory.mktemp("embeddings"), np.random.default_rng(0)
    directions, mean = rng.normal(size=(24, WIDTH)), rng.normal(size=WIDTH)
    for name, rows in (("train", 320), ("test", 160)):
        codes = rng.uniform(size=(rows, 24)) * (rng.uniform(size=(rows, 24)) < 0.1)
        np.save(folder / f"{name}.npy", (codes @ directions / 4 + mean).astype(np.float32))
    return folder


@pytest.fixture(scope="module")
def data_flags(embeddings):
    return ["--train_data", str(embeddings / "train.npy"), "--eval_data", str(embeddings / "test.npy")]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, data_flags):
    """The folder of a run; Adam's epsilon is large so that two processes can reproduce it."""
    folder = tmp_path_factory.mktemp("run") / "out"
    flags = ["--output_dir", folder, "--per_device_train_batch_size", "32", *SMALL, "--adam_epsilon", "1e-3"]
    run(train.main, *data_flags, *flags)
    return folder


@pytest.fixture
def refused(capsys):
    """The message with which a command refuses its arguments."""

    def refused(main, *argv):
        with pytest.raises(SystemExit) as exit:
            run(main, *argv)
        assert exit.value.code in (1, 2)
        message = capsys.readouterr().err
        assert "Traceback" not in message
        return message

    return refused
