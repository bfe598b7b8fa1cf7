"""`finish` leaves what a training run leaves, whoever calls it."""

import json
import sys

import numpy as np
import pytest

from hf_msae import MSAEConfig, MSAEModel, MSAETrainer, MSAETrainingArguments
from hf_msae.embeddings import load_embeddings
from hf_msae.metrics import EvaluationResult
from hf_msae.training import finish


@pytest.fixture
def trainer(tmp_path):
    embeddings = np.random.default_rng(0).normal(size=(120, 6)).astype(np.float32)
    arguments = MSAETrainingArguments(str(tmp_path / "run"), max_steps=2, use_cpu=True, disable_tqdm=True)
    model = MSAEModel(MSAEConfig(d_in=6, num_latents=12, nesting_ks=[3, 12]))
    trainer = MSAETrainer(model, arguments, embeddings[:80], embeddings[80:])
    trainer.train()
    return trainer


def test_the_folder_holds_model_metrics_record_and_card(trainer, tmp_path):
    result = finish(trainer, license="mit")
    folder = tmp_path / "run"
    metrics = EvaluationResult.load(folder / "metrics.json")
    assert metrics.to_dict() == result.to_dict()
    assert (metrics.num_samples, metrics.data["held_out"]) == (40, True)
    assert MSAEModel.from_pretrained(folder).config.nesting_ks == [3, 12]
    assert json.loads((folder / "training.json").read_text())["training_arguments"]["max_steps"] == 2
    card = (folder / "README.md").read_text()
    assert "license: mit" in card and f"{metrics.by_k['3']['fvu']:.4g}" in card


def test_metrics_of_the_training_data_say_so_and_are_of_some_rows_if_there_are_many(trainer, tmp_path, monkeypatch):
    trainer.eval_data = None
    result = finish(trainer, output_dir=tmp_path / "elsewhere")
    assert (result.num_samples, result.data["held_out"]) == (80, False)
    assert (tmp_path / "elsewhere" / "README.md").is_file()
    monkeypatch.setattr(sys.modules["hf_msae.metrics.evaluation"], "MOST_ROWS", 50)
    result = finish(trainer, output_dir=tmp_path / "elsewhere")
    assert (result.num_samples, result.data["held_out"]) == (50, False)


@pytest.mark.parametrize("held_out", [True, False])
def test_training_rows_without_metrics_are_left_out_of_the_figures(trainer, caplog, held_out):
    rows = trainer.train_data[:].numpy()
    rows[[17, 30]] = 0  # pictures that were missing
    trainer.train_data = load_embeddings(rows)
    trainer.eval_data = trainer.eval_data if held_out else None
    result = finish(trainer)
    assert (result.data["num_training_samples"] if held_out else result.num_samples) == 78
    assert "2 of the 80" in caplog.text


def test_a_tilde_in_a_folder_is_the_home_folder(trainer, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert MSAETrainingArguments("~/run").output_dir == str(tmp_path / "run")
    finish(trainer, output_dir="~/elsewhere")
    assert {"config.json", "metrics.json", "README.md"} <= {file.name for file in (tmp_path / "elsewhere").iterdir()}


def test_a_second_call_does_not_add_to_the_log(trainer, tmp_path):
    first, second = finish(trainer), finish(trainer)
    log = [json.loads(line) for line in (tmp_path / "run" / "training_log.jsonl").read_text().splitlines()]
    assert [each["train_fvu"] for each in log if "train_fvu" in each] == [first.train_fvu] == [second.train_fvu]
    assert log == trainer.result.log_history and "loss" in log[0]
