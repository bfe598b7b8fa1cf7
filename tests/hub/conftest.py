"""Fixtures for tests of the Hub: a stub of it, reached from this process or from others, and a run to publish."""

import copy
import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.hub.cards import save_run

ROOT = Path(__file__).parents[2]
REPO = "tester/msae"
KEY = ("model", REPO)
# The files of a release of `run_folder`.
SENT = {
    *("README.md", "concepts/words.parquet", "config.json", "metrics.json", "model.safetensors"),
    *("training.json", "training_log.jsonl", "msae_files.json"),
}


def files_of(hub, revision="main", key=KEY):
    """What a repository of the stub holds, except for what the Hub itself puts there."""
    return {name: content for name, content in hub.repos[key].files(revision).items() if name != ".gitattributes"}


def commit_there(hub, files, key=KEY, message="somebody else's"):
    """Commit files (path -> content, or None to delete it) to a repository of the stub, as another person would."""
    repo = hub.repos[key]
    changed = {**repo.files(), **files}
    repo.commit("main", {name: content for name, content in changed.items() if content is not None}, message)


def card_on_hub(hub, revision="main"):
    return files_of(hub, revision)["README.md"].decode()


def rewrite(file, change):
    """Change the object in a JSON file."""
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def measure(run_folder, rows):
    """Evaluate the model of a run on other data."""
    import torch

    from hf_msae import MSAEModel
    from hf_msae.embeddings import load_embeddings
    from hf_msae.metrics import evaluate_msae

    data = load_embeddings(torch.randn(rows, 8))
    result = evaluate_msae(MSAEModel.from_pretrained(run_folder), data, cknna_batch_size=50, progress=False)
    result.save(run_folder / "metrics.json")


@pytest.fixture
def hub():
    """A stub Hub."""
    from tests.stub_hub import StubHub

    with StubHub() as server:
        yield server


@pytest.fixture
def at_hub(hub, monkeypatch, tmp_path):
    """The stub Hub, to which huggingface_hub of this process is logged in, with a cache of its own and short waits."""
    from huggingface_hub import close_session, constants
    from huggingface_hub.utils import http_backoff

    from hf_msae.hub.publishing import repository
    from tests.stub_hub import TOKEN

    close_session()
    settings = {"ENDPOINT": hub.url, "HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True}
    settings["HUGGINGFACE_CO_URL_TEMPLATE"] = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    settings["HF_HUB_CACHE"] = str(tmp_path / "hub-cache")
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
    (folder / "another.png").write_bytes(b"\x89PNG not a figure of the card")
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
    """A copy of a folder as a finished run leaves it, with real metrics and names."""
    return Path(shutil.copytree(_made_run, tmp_path / "my-msae"))


@pytest.fixture(scope="session")
def _pushed():
    return {}


@pytest.fixture
def published(at_hub, run_folder, _pushed):
    """The stub Hub after `push_to_hub(run_folder, REPO)`, which is done once and copied."""
    from hf_msae.hub.publishing.release import push_to_hub

    if not _pushed:
        push_to_hub(run_folder, REPO)
        _pushed.update(repo=at_hub.repos[KEY], objects=at_hub.objects)
        at_hub.requests.clear()
    at_hub.repos[KEY], at_hub.objects = copy.deepcopy(_pushed["repo"]), dict(_pushed["objects"])
    return at_hub


@pytest.fixture
def other_weights(run_folder, tmp_path):
    """Another model of the same sizes, not measured, also saved in tmp_path / "other"."""
    import torch

    from hf_msae import MSAEModel

    torch.manual_seed(1)
    model = MSAEModel(MSAEModel.from_pretrained(run_folder).config)
    model.save_pretrained(tmp_path / "other")
    return model


@pytest.fixture
def in_process(hub, tmp_path):
    """(program, **environment) -> what the program printed, run by a fresh Python that talks to the stub Hub."""

    def run(program, **environment):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **hub.environment(tmp_path / "home"), **environment}
        command = [sys.executable, "-c", textwrap.dedent(program)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="module")
def made_run(tmp_path_factory):
    return save_run(tmp_path_factory.mktemp("cards") / "my-msae")


@pytest.fixture
def run(made_run, tmp_path):
    return Path(shutil.copytree(made_run, tmp_path / "my-msae"))
