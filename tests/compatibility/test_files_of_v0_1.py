"""Files that version 0.1 wrote before the package got its rooms still load, and say the same (write_v0_1.sh)."""

import json
import shutil
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from hf_msae import ConceptIndex, ConceptTable, MSAEModel, VisionTextMSAE, load_embeddings
from hf_msae.embeddings.metadata import EmbeddingMetadata
from hf_msae.metrics import EvaluationResult, evaluate_msae

FILES = Path(__file__).with_name("v0_1")
RUN = FILES / "run"


@pytest.mark.parametrize("family", ["relu", "topk", "batch_topk", "jump_relu"])
def test_models_compute_what_they_did(family, relative_error):
    model = MSAEModel.from_pretrained(FILES / "families" / family)
    expected = load_file(FILES / "families" / family / "expected.safetensors")
    output = model(expected["embeddings"], return_loss=True, output_nested=True)
    for name in ("latents", "reconstruction", "loss"):
        assert relative_error(getattr(output, name), expected[name]) < 1e-5, name


def test_embeddings_load_with_their_statistics_and_provenance():
    embeddings = load_embeddings(FILES / "embeddings")
    assert len(embeddings) == 160
    assert (
        EmbeddingMetadata.load(FILES / "embeddings").provenance["base_model_name_or_path"] == "hf_msae/scenes-siglip"
    )
    rows = embeddings[np.arange(160)]
    assert torch.allclose(embeddings.statistics().mean, rows.double().mean(0).to(embeddings.statistics().mean.dtype))


def test_metrics_load_and_are_measured_again(relative_error):
    result = EvaluationResult.load(RUN / "metrics.json")
    again = evaluate_msae(MSAEModel.from_pretrained(RUN), load_embeddings(FILES / "embeddings"), ks=[8])
    written = json.loads((RUN / "metrics.json").read_text())
    assert written["model_sha256"] == again.model_sha256 == result.model_sha256
    assert again.by_k["8"]["fvu"] == pytest.approx(written["by_k"]["8"]["fvu"], rel=1e-5)


def test_names_belong_to_the_model():
    table = ConceptTable.load(RUN / "concepts" / "scenes.parquet")
    assert table.to_pandas()["name"].notna().sum() > 10
    together = VisionTextMSAE.from_pretrained(RUN, backbone="scenes")
    assert together.concepts is not None
    expected = json.loads((FILES / "explanation.json").read_text())["explanations"][0]
    found = together.explain("a red circle", top=len(expected["concepts"]))
    assert found.to_pandas()["name"].tolist() == [concept["name"] for concept in expected["concepts"]]


def test_an_index_is_searched_as_it_is():
    model = MSAEModel.from_pretrained(RUN)
    index = ConceptIndex(FILES / "index", model, load_embeddings(FILES / "embeddings"))
    assert len(index) == 160
    assert index.by_embedding(load_embeddings(FILES / "embeddings")[7], top=1)["row"].tolist() == [7]


def test_a_checkpoint_is_resumed_to_the_same_weights(tmp_path, relative_error):
    from hf_msae import MSAETrainer, MSAETrainingArguments

    shutil.copytree(RUN / "checkpoint-20", tmp_path / "run" / "checkpoint-20")
    written = json.loads((RUN / "training.json").read_text())["training_arguments"]
    known = {field.name for field in fields(MSAETrainingArguments)}
    arguments = MSAETrainingArguments(**{name: value for name, value in written.items() if name in known})
    arguments.output_dir, arguments.disable_tqdm = str(tmp_path / "run"), True
    model = MSAEModel(MSAEModel.from_pretrained(RUN).config)
    trainer = MSAETrainer(model, arguments, load_embeddings(FILES / "embeddings"))
    trainer.train(resume_from_checkpoint=True)
    for name, expected in load_file(RUN / "model.safetensors").items():
        assert relative_error(trainer.model.state_dict()[name], expected) < 1e-5, name


def test_a_card_of_v0_1_is_rendered_anew(tmp_path):
    from hf_msae.hub import write_model_card

    shutil.copytree(RUN, tmp_path / "run")
    write_model_card(tmp_path / "run")
    card = (tmp_path / "run" / "README.md").read_text()
    assert "0.622" in card, "the FVU of metrics.json"
