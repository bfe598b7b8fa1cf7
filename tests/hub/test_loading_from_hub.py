"""Models are loaded from a Hub by id, revision and subfolder, with their names, and offline from the cache."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from hf_msae import MSAEConfig, MSAEModel
from hf_msae.concepts import Vocabulary, name_latents
from tests.stub_hub import Repo, StubHub

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def saved(folder, seed, named=False):
    torch.manual_seed(seed)
    config = MSAEConfig(d_in=128, num_latents=32, nesting_ks=[4, 32], base_model_name_or_path="hf_msae/scenes-siglip")
    model = MSAEModel(config)
    model.save_pretrained(folder)
    if named:
        name_latents(model, Vocabulary(["red", "green", "blue"]), torch.randn(3, 128)).save(
            folder / "concepts" / "w.parquet"
        )
    return model


def files_of(folder, prefix=""):
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {prefix + path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """tester/model has a first and a second version with names; tester/many has models in subfolders alone."""
    place = tmp_path_factory.mktemp("models")
    with StubHub() as server:
        server.encoders = {}
        for name, seed in (("first", 1), ("second", 2), ("third", 3)):
            server.encoders[name] = saved(place / name, seed, named=name != "first").encoder[0, :3].tolist()
        one, many = Repo(), Repo()
        server.first = one.commit("main", files_of(place / "first"), "first")
        one.commit("main", files_of(place / "second"), "second")
        one.names["v1"] = server.first
        many.commit("main", files_of(place / "second", "a/") | files_of(place / "third", "b/c/"), "many")
        server.repos |= {("model", "tester/model"): one, ("model", "tester/many"): many}
        yield server


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


def run(hub, home, program, **environment):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **hub.environment(home), **environment}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


LOAD = """
    import json
    import hf_msae
    from transformers import AutoModel
    from hf_msae import MSAEModel, VisionTextMSAE
    from hf_msae.hub.reading.opening import load_msae

    def start(model):
        return model.encoder[0, :3].tolist()

    def with_names(*args, **kwargs):
        model = VisionTextMSAE.from_pretrained(*args, **kwargs)
        return [start(model.msae), None if model.concepts is None else len(model.concepts)]

    print(json.dumps({
        "auto": start(AutoModel.from_pretrained("tester/model")),
        "tag": start(MSAEModel.from_pretrained("tester/model", revision="v1")),
        "commit": start(load_msae("tester/model", "FIRST")),
        "subfolder": start(AutoModel.from_pretrained("tester/many", subfolder="b/c")),
        "named": with_names("tester/model"),
        "unnamed": with_names("tester/model", revision="v1"),
        "named subfolder": with_names("tester/many", subfolder="b/c"),
    }))
"""


def test_by_id_revision_and_subfolder_with_names_and_then_offline(hub, home):
    expected = {
        "auto": hub.encoders["second"],
        "tag": hub.encoders["first"],
        "commit": hub.encoders["first"],
        "subfolder": hub.encoders["third"],
        "named": [hub.encoders["second"], 32],
        "unnamed": [hub.encoders["first"], None],
        "named subfolder": [hub.encoders["third"], 32],
    }
    program = LOAD.replace("FIRST", hub.first)
    assert run(hub, home, program) == expected
    asked = len(hub.requests)
    assert run(hub, home, program, HF_HUB_OFFLINE="1") == expected
    assert len(hub.requests) == asked


ERRORS = """
    import json
    from hf_msae import MSAEModel
    from hf_msae.hub.reading.opening import load_msae

    found = []
    for load, args, kwargs in [
        (MSAEModel.from_pretrained, ["tester/many"], {}),
        (MSAEModel.from_pretrained, ["tester/model"], {"revision": "nowhere"}),
        (load_msae, ["tester/nothing"], {}),
        (load_msae, ["tester/many"], {"subfolder": "z"}),
    ]:
        try:
            load(*args, **kwargs)
            found.append("loaded")
        except OSError as error:
            found.append(str(error))
    print(json.dumps(found))
"""


def test_what_is_not_there_is_said(hub, home):
    subfolders, revision, nothing, folder = run(hub, home, ERRORS)
    assert "tester/many has no model at its root, but 2 in subfolders: give subfolder= one of a, b/c" in subfolders
    assert "nowhere" in revision
    assert "no MSAE could be loaded from 'tester/nothing': there is no such folder, and as a Hub id" in nothing
    assert "tester/many/z has no config.json" in folder


def test_a_download_that_was_cut_short_is_not_a_model(hub, home, tmp_path):
    """A file in the cache that lost its end, as after a full disk."""
    run(hub, tmp_path, "from hf_msae import MSAEModel; MSAEModel.from_pretrained('tester/model'); print('{}')")
    (weights,) = tmp_path.glob("hub/models--tester--model/snapshots/*/model.safetensors")
    blob = weights.resolve()
    blob.write_bytes(blob.read_bytes()[:-100])
    program = """
        import json
        from hf_msae import MSAEModel
        try:
            MSAEModel.from_pretrained("tester/model")
            print(json.dumps("loaded"))
        except OSError as error:
            print(json.dumps(str(error)))
        MSAEModel.from_pretrained("tester/model", force_download=True)
    """
    done = run(hub, tmp_path, program)
    assert "weights of tester/model are damaged or incomplete" in done and "force_download=True" in done
