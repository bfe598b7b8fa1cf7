"""What tests of the Hub share: a stub of it, reached from this process or from others, and a run to publish."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KEY = ("model", "tester/msae")


@pytest.fixture
def hub():
    """A stub Hub."""
    from tests.stub_hub import StubHub

    with StubHub() as server:
        yield server


@pytest.fixture
def at_hub(hub, monkeypatch):
    """The same, and huggingface_hub of this process talks to it, as somebody who is logged in, without long waits."""
    from huggingface_hub import close_session, constants
    from huggingface_hub.utils import http_backoff

    from hf_msae.hub.publishing import repository
    from tests.stub_hub import TOKEN

    close_session()
    settings = {"ENDPOINT": hub.url, "HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True}
    settings["HUGGINGFACE_CO_URL_TEMPLATE"] = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    for name, value in settings.items():  # read from the environment when huggingface_hub was imported
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setitem(http_backoff.__kwdefaults__, "base_wait_time", 0.01)
    monkeypatch.setattr(repository, "WAITS", (0.01, 0.02, 0.02))
    yield hub
    close_session()


@pytest.fixture(scope="session")
def _made_run(tmp_path_factory):
    import torch

    from hf_msae import MSAEConfig, MSAEModel
    from hf_msae._utils.fingerprint import model_fingerprint
    from hf_msae.concepts import Vocabulary, name_latents
    from hf_msae.embeddings import load_embeddings
    from hf_msae.metrics import evaluate_msae

    folder = tmp_path_factory.mktemp("release") / "my-msae"
    torch.manual_seed(0)
    config = MSAEConfig(d_in=8, num_latents=40, nesting_ks=[4, 40], base_model_name_or_path="google/siglip-tiny")
    model = MSAEModel(config).eval()
    model.save_pretrained(folder)
    data = load_embeddings(torch.randn(100, 8))
    evaluate_msae(model, data, cknna_batch_size=50, progress=False).save(folder / "metrics.json")
    table = name_latents(model, Vocabulary(["red", "green", "blue"]), torch.randn(3, 8))
    type(table)(table.frame, {**table.provenance, "vocabulary": "/home/someone/words.txt"}).save(
        folder / "concepts" / "words.parquet"
    )
    (folder / "another.png").write_bytes(b"\x89PNG no figure of the card")
    (folder / "training_log.jsonl").write_text('{"step": 1, "loss": 0.5}\n')
    record = {
        "training_arguments": {"learning_rate": 0.001, "output_dir": "/home/someone/runs/my-msae"},
        "command": "python train_msae.py --train_data /home/someone/embeds",
        "model_sha256": model_fingerprint(model),
    }
    (folder / "training.json").write_text(json.dumps(record))
    for left_out in ("checkpoint-10", "embeddings", "examples"):
        (folder / left_out).mkdir()
        (folder / left_out / "config.json").write_text("{}")
    (folder / "report.html").write_text("a report")
    return folder


@pytest.fixture
def run_folder(_made_run, tmp_path):
    """A folder as a finished run leaves it, with real metrics and names; a copy of one's own."""
    return Path(shutil.copytree(_made_run, tmp_path / "my-msae"))


@pytest.fixture
def other_weights(run_folder, tmp_path):
    """Another model of the same sizes, not measured."""
    import torch

    from hf_msae import MSAEModel

    torch.manual_seed(1)
    model = MSAEModel(MSAEModel.from_pretrained(run_folder).config)
    model.save_pretrained(tmp_path / "other")
    return model


@pytest.fixture
def in_process(hub, tmp_path):
    """(program, home="home", **environment) -> what it printed, run by a fresh Python that talks to the stub Hub."""

    def run(program, home="home", **environment):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **hub.environment(tmp_path / home), **environment}
        command = [sys.executable, "-c", textwrap.dedent(program)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
