"""The quickstart and its command, on a small setting."""

import json
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

from hf_msae import MSAEConfig, MSAEModel, VisionTextMSAE, cli
from hf_msae.backbones import Backbone
from hf_msae.cli import quickstart_steps
from hf_msae.cli.quickstart import QuickstartArguments
from hf_msae.cli.quickstart_steps import biased_probe, check_names, model_config, run_quickstart, training_arguments
from hf_msae.concepts import ConceptTable
from hf_msae.embeddings import load_embeddings
from hf_msae.scenes import load_scenes


def test_names_are_checked_against_the_truth():
    scenes = load_scenes("test", 60)
    truth = np.asarray(scenes["beach"], np.float32)
    # Embeddings whose first direction is whether the scene is a beach; a dictionary of the axes.
    embeddings = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32) * 0.01
    embeddings[:, 0] += truth
    model = MSAEModel(MSAEConfig(d_in=4, num_latents=4, nesting_ks=[4]))
    with torch.no_grad():
        model.encoder.copy_(torch.eye(4))
        model.decoder.copy_(torch.eye(4))
    names = ["beach", "red", "snow", "star"]
    table = ConceptTable.from_columns(names, np.array([0.9, 0.5, 0.4, 0.3]), names[::-1], np.zeros(4))
    best = check_names(model, table, load_embeddings(embeddings), scenes)
    first = best.iloc[0]
    assert first["name"] == "beach" and first["auroc"] == 1.0
    assert first["precision"] == pytest.approx(min(truth.sum(), 10) / 10)
    assert all(truth[i] for i in first["top"][: int(truth.sum())])
    assert (best["auroc"].iloc[1:] < 0.9).all()


def test_the_command_lists_its_commands_and_refuses_others(capsys):
    cli.main([])
    assert "quickstart" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="no command 'quikstart'"):
        cli.main(["quikstart"])
    with pytest.raises(SystemExit):
        cli.main(["quickstart", "--num_latents", "many"])
    assert "--num_latents" in capsys.readouterr().err


def test_the_yaml_recipe_trains_what_the_quickstart_trains():
    recipe = yaml.safe_load((Path(__file__).parents[2] / "training/configs/scenes_quickstart.yaml").read_text())
    arguments = QuickstartArguments()
    config, run = model_config(arguments, 128), training_arguments(arguments)
    own = set(MSAEConfig.own_fields())
    for name, value in recipe.items():
        if name not in ("train_data", "eval_data", "output_dir"):
            expected = getattr(config if name in own else run, name)
            assert (float(value) == expected) if isinstance(expected, float) else (value == expected), name
    assert recipe["nesting_ks"][0] == 128 // 8 and recipe["nesting_weights"] == "reverse"


def test_a_folder_that_is_not_a_quickstarts_is_left_alone(tmp_path):
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(FileExistsError, match=r"README\.md.*training_log\.jsonl"):
        run_quickstart(QuickstartArguments(output_dir=str(tmp_path)))
    other = tmp_path / "run"
    (other / "checkpoint-5").mkdir(parents=True)
    (other / "checkpoint-5" / "trainer_state.json").write_text("{}")
    with pytest.raises(FileExistsError, match="checkpoint-5"):
        run_quickstart(QuickstartArguments(output_dir=str(other)))
    assert (tmp_path / "README.md").read_text() == "mine"


def test_half_of_the_latents_are_left_to_compare_with(monkeypatch):
    monkeypatch.setattr(quickstart_steps, "bias_report", lambda *given, **_: given[5])
    monkeypatch.setattr(quickstart_steps, "LinearClassifier", Mock())
    words = [f"word {latent}" for latent in range(8)]
    table = ConceptTable.from_columns(words, np.linspace(0.1, 0.8, 8), words[::-1], np.zeros(8))
    backbone = Backbone.from_pretrained("scenes")
    msae = MSAEModel(MSAEConfig(d_in=128, num_latents=8, base_model_name_or_path="hf_msae/scenes-siglip"))
    arguments = QuickstartArguments(num_biased_scenes=20, num_workers=1)
    assert list(biased_probe(VisionTextMSAE(backbone, msae, table), None, arguments)) == [7, 6, 5, 4]


@pytest.mark.slow
def test_everything_the_quickstart_promises_is_there(tmp_path, capsys):
    output = tmp_path / "run"
    run_quickstart(
        QuickstartArguments(
            output_dir=str(output),
            num_train_scenes=400,
            num_eval_scenes=200,
            num_train_epochs=3,
            per_device_train_batch_size=64,
            num_biased_scenes=400,
        )
    )
    printed, bars = capsys.readouterr()
    assert "row/s" not in bars and "step/s" not in bars, "the output is no terminal"
    assert "predicting the mean" in printed and f'from_pretrained("{output}")' in printed
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["num_samples"] == 200 and metrics["baseline_mean"]["fvu"] == pytest.approx(1)
    assert set(metrics["by_k"]) == {"16", "32", "64", "128", "256", "512", "1024"}
    table = pd.read_parquet(output / "concepts" / "scenes.parquet")
    assert len(table) == 1024
    assert {"q_value", "activation_name", "agrees"} <= set(table)
    assert "red" in printed.splitlines()[-1]
    page = (output / "report.html").read_text()
    assert "hf-msae quickstart --output_dir" in page and page.count("data:image/") > 30
    assert np.array_equal(
        np.asarray(Image.open(output / "examples" / "4.png")), np.asarray(load_scenes("test", 5, 42)[4]["image"])
    )
    embeddings = load_embeddings(output / "embeddings" / "test")
    assert embeddings.provenance["dataset"] == "scenes:test:200:42", "what finds the pictures again"
    for figure in ("first_look.png", "quality_against_k.png", "training.png", "concepts.png", "bias.png"):
        assert min(Image.open(output / figure).size) > 300
    assert "| 1024 (all) |" in (output / "README.md").read_text()
    model = MSAEModel.from_pretrained(output)
    assert model.config.base_model_name_or_path == "hf_msae/scenes-siglip"
    assert torch.isfinite(model.encode(embeddings[[0, 1]])).all()
