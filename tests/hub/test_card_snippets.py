"""Every snippet of every kind of card on the Hub runs, from a directory that has nothing to do with it."""

import re

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from hf_msae import MSAEModel
from hf_msae.backbones import Backbone
from hf_msae.concepts import ConceptTable
from hf_msae.embeddings import EmbeddingWriter
from hf_msae.hub import push_embeddings, push_to_hub
from tests.hub.conftest import REPO, files_of

X = np.random.default_rng(0).normal(size=(12, 128)).astype(np.float32)


def snippets(card):
    """The blocks of Python code, and the inline code that calls something."""
    blocks = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    return blocks + re.findall(r"`(\w[\w.]*\.\w+\([^`]*\))`", re.sub("```.*?```", "", card, flags=re.DOTALL))


@pytest.fixture
def elsewhere(at_hub, tmp_path, monkeypatch):
    """(code, names) -> the names after the code ran, in a directory with a picture."""
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", at_hub.url)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    Image.new("RGB", (96, 96), "red").save("photo.jpg")

    def run(code, **names):
        exec(code if "\n" in code else f"import datasets\nresult = {code}", names)
        return names

    return run


@pytest.fixture
def run_of_scenes(run_folder):
    """A run whose backbone everybody has."""
    known = Backbone.from_pretrained("scenes").provenance()
    config = {name: value for name, value in known.items() if name.endswith(("path", "sha256"))}
    torch.manual_seed(0)
    model = MSAEModel(MSAEModel.config_class(d_in=128, num_latents=40, **config))
    model.save_pretrained(run_folder)
    for file in (run_folder / "metrics.json", run_folder / "training.json"):
        file.unlink()
    words = run_folder / "concepts" / "words.parquet"
    ConceptTable(ConceptTable.load(words).frame).save(words)  # which says nothing about the model it is of
    return run_folder


def test_those_of_models(at_hub, run_of_scenes, elsewhere):
    push_to_hub(run_of_scenes, REPO, subfolder="a/seed-0", revision="v2", allow_unmeasured=True)
    files = files_of(at_hub, "v2")
    cards = {name: content.decode() for name, content in files.items() if name.endswith("README.md")}
    assert set(cards) == {"a/seed-0/README.md", "README.md"}
    for name, card in cards.items():
        found = snippets(card)
        assert len(found) == (1 if name == "README.md" else 2)
        ran = {}
        for code in found:
            ran |= elsewhere(code, embeddings=torch.from_numpy(X))
        assert ran["values"].shape == (12, 32)
        assert torch.equal(ran["msae"].encoder, MSAEModel.from_pretrained(run_of_scenes).encoder)


def test_those_of_embeddings(at_hub, elsewhere, tmp_path):
    with EmbeddingWriter(tmp_path / "embeds", {"image_embeds": 128}) as writer:
        writer.write({"image_embeds": X})
    push_embeddings(tmp_path / "embeds", "tester/embeds")
    block, inline = snippets(files_of(at_hub, key=("dataset", "tester/embeds"))["README.md"].decode())
    np.testing.assert_array_equal(elsewhere(block)["embeddings"][:], X)
    np.testing.assert_array_equal(np.array(elsewhere(inline)["result"]["image_embeds"]), X)
