"""The scenes' released models are complete, their cards say what lies in the folders, and the examples on them run."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard

from hf_msae import MSAEModel
from hf_msae._utils.fingerprint import model_fingerprint
from hf_msae.concepts import ConceptTable
from hf_msae.hub import render_model_card
from hf_msae.metrics import EvaluationResult
from hf_msae.scenes import load_scenes
from hf_msae.training.record import TrainingRecord

ROOT = Path(__file__).parents[2]
NAMES = ("scenes-image", "scenes-text", "scenes-patches")
AGAIN = "run python training/train_scenes_msaes.py --cards_only"


@pytest.fixture(scope="module")
def script():
    specification = importlib.util.spec_from_file_location(
        "train_scenes_msaes", ROOT / "training" / "train_scenes_msaes.py"
    )
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module  # dataclasses look their module up
    specification.loader.exec_module(module)
    return module


def test_all_that_the_script_trains_is_released(script):
    assert tuple(script.MODELS) == NAMES
    assert sorted(path.name for path in script.RELEASES.iterdir() if path.is_dir()) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_cards_are_not_stale(script, name):
    folder = script.RELEASES / name
    fresh = render_model_card(folder, model_name=name, released=True)
    assert (folder / "README.md").read_text(encoding="utf-8") == fresh, AGAIN


@pytest.mark.parametrize("name", NAMES)
def test_a_release_is_complete_and_fits_itself(script, name):
    folder, release = script.RELEASES / name, script.MODELS[name]
    model = MSAEModel.from_pretrained(folder)
    evaluation, table = EvaluationResult.load(folder), ConceptTable.load(folder / "concepts" / "scenes.parquet")
    assert evaluation.model_sha256 == model_fingerprint(model)
    assert model.config.hook_point == release.hook_point and model.config.num_latents == len(table) == 1024
    assert evaluation.cosine_similarity_centered > 0.99 and evaluation.by_k["16"]["fvu"] < 0.06
    assert table.best()["auroc"].median() > 0.95, "names are true of what activates the latents"
    record = TrainingRecord.load(folder)
    assert record.training_data["dataset"] == "scenes:train:20000:42"
    assert record.evaluation_data["num_samples"] == evaluation.num_samples
    (figure,) = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", (folder / "README.md").read_text(encoding="utf-8"))
    assert (folder / figure).is_file()
    card = ModelCard.load(folder / "README.md")
    assert card.data.eval_results and card.data.model_name == name and card.data.license == "apache-2.0"


def test_the_releases_are_small(script):
    files = [path for path in script.RELEASES.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 5e6
    assert max(path.stat().st_size for path in files if path.suffix == ".png") < 60_000


@pytest.mark.parametrize("name", NAMES)
def test_the_examples_on_the_cards_run(script, name, tmp_path, monkeypatch, capsys):
    load_scenes("test", 5)[4]["image"].save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    text = (script.RELEASES / name / "README.md").read_text(encoding="utf-8")
    ran = {"embeddings": torch.randn(3, 128)}
    examples = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(examples) == 2
    for example in examples:
        exec(example, ran)
    assert ran["values"].shape == (3, 32) and ran["model"].concepts is not None
    if name == "scenes-text":
        shown = capsys.readouterr().out
        assert all(word in shown for word in ("red", "star", "meadow")), shown
    if name == "scenes-patches":
        assert ran["activations"].shape == (6, 6)
