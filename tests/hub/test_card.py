"""The card says what lies in the folder, and its metadata is valid."""

import json
import re

import pytest
import torch
import yaml
from huggingface_hub import ModelCard

from hf_msae import MSAEConfig, MSAEModel
from hf_msae.activations import load_activations
from hf_msae.concepts import Vocabulary, name_latents
from hf_msae.hub import write_model_card
from hf_msae.metrics import evaluate_msae


@pytest.fixture
def run(tmp_path):
    """A folder as a finished run leaves it, with real metrics and concepts."""
    torch.manual_seed(0)
    folder = tmp_path / "my-msae"
    config = MSAEConfig(d_in=16, num_latents=64, nesting_ks=[8, 64], base_model_name_or_path="google/siglip-tiny")
    model = MSAEModel(config).eval()
    model.save_pretrained(folder)
    data = load_activations(torch.randn(200, 16))
    evaluate_msae(model, data, cknna_batch_size=100, progress=False).save(folder / "metrics.json")
    words = Vocabulary(["red", "green", "blue"])
    name_latents(model, words, torch.randn(3, 16)).save(folder / "concepts" / "words.parquet")
    (folder / "quality_against_k.png").write_bytes(b"")
    return folder


def test_metadata_is_valid_and_carries_the_measured_results(run):
    write_model_card(run, {"learning_rate": 1e-4}, {"source": "train", "num_rows": 1000}, {"source": "test"})
    card = ModelCard.load(run / "README.md")
    assert card.data.library_name == "hf_msae" and card.data.base_model == "google/siglip-tiny"
    metrics = json.loads((run / "metrics.json").read_text())
    written = {r.metric_name: r.metric_value for r in card.data.eval_results}
    for k, row in metrics["by_k"].items():
        assert written[f"fvu at k={k}"] == row["fvu"]
        assert f"| {k} | {row['fvu']:.4g} | {row['cosine_similarity']:.4g} |" in card.text
    assert yaml.safe_load(card.data.to_yaml())["model-index"][0]["name"] == "my-msae"


def test_text_shows_training_concepts_figures_and_versions(run):
    path = write_model_card(run, {"learning_rate": 1e-4, "output_dir": "secret/place"}, {"source": "my data"})
    text = path.read_text()
    assert "| learning_rate | 0.0001 |" in text and "secret/place" not in text
    assert "| training data | my data |" in text
    assert "**of the training data**, since no held-out data was given" in text
    assert "![Quality against k](quality_against_k.png)" in text and "training.png" not in text
    assert re.search(r"\| \d+ \| (red|green|blue) \| 0\.\d+ \|", text)
    assert f"torch {torch.__version__}" in text
    assert sorted(p.name for p in run.iterdir() if p.name.endswith(".tmp")) == []


def test_the_usage_example_runs(run, monkeypatch):
    text = write_model_card(run).read_text()
    example = re.search(r"## Use\n\n```python\n(.*?)```", text, flags=re.DOTALL).group(1)
    monkeypatch.chdir(run.parent)
    namespace = {"embeddings": torch.randn(5, 16)}
    exec(example, namespace)
    assert namespace["values"].shape == (5, 32)


def test_a_run_without_metrics_says_so(run):
    (run / "metrics.json").unlink()
    text = write_model_card(run).read_text()
    assert "Not measured: no evaluation data was given." in text and "model-index" not in text


@pytest.mark.parametrize("name", [None, "hf_msae/scenes-siglip", "./local/folder", "/abs/folder"])
def test_only_a_hub_id_becomes_a_link_to_the_base_model(run, name):
    config = MSAEConfig.from_pretrained(run)
    config.base_model_name_or_path = name
    config.save_pretrained(run)
    card = ModelCard.load(write_model_card(run))
    assert card.data.base_model is None


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no config\.json"):
        write_model_card(tmp_path)
