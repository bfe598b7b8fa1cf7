"""A run with real metrics, record and names for tests of its card, and parts of the card."""

import json
import re

import torch

from hf_msae import MSAEConfig, MSAEModel, MSAETrainingArguments
from hf_msae.concepts import Vocabulary, name_by_activations, name_latents
from hf_msae.embeddings import load_embeddings
from hf_msae.metrics import evaluate_msae
from hf_msae.training.record import TrainingRecord

D, N = 16, 64


def save_run(
    folder, data=None, words=("red", "green", "blue"), d=D, record=True, names=True, measured=True, **settings
):
    """A folder as a finished run leaves it, with real metrics, record and names."""
    torch.manual_seed(0)
    settings = {"base_model_name_or_path": "google/siglip-tiny", "nesting_ks": [8, N], **settings}
    if settings.get("nesting") in ("none", "prefix"):
        del settings["nesting_ks"]
    model = MSAEModel(MSAEConfig(d_in=d, num_latents=N, **settings)).eval()
    model.save_pretrained(folder)
    data = load_embeddings(torch.randn(200, d)) if data is None else data
    if measured:
        evaluate_msae(model, data, cknna_batch_size=100, progress=False).save(folder / "metrics.json")
    if record:
        arguments = MSAETrainingArguments(output_dir="secret/place", learning_rate=3e-4)
        TrainingRecord.of(arguments, data, data, command="hf-msae train --k 3").save(folder)
    if names:
        vocabulary, embeds = Vocabulary(words), torch.randn(len(words), d)
        table = name_latents(model, vocabulary, embeds, progress=False)
        found = name_by_activations(model, data, vocabulary, embeds, 20, progress=False)
        table.with_activation_names(found).save(folder / "concepts" / "words.parquet")
    (folder / "quality_against_k.png").write_bytes(b"")
    return folder


def metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text())


def section(text, heading):
    return re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE).group(1)


def summary(text):
    return text.split("\n## ")[0].split("\n# ")[1]


def examples(text):
    return re.findall(r"```python\n(.*?)```", section(text, "Use"), flags=re.DOTALL)
