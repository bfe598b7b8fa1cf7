"""A release is whole, measured, loads back and has a place before anything is sent."""

import json
import re
import shutil

import pytest
import torch

from hf_msae import MSAEConfig, MSAEModel
from hf_msae._utils.fingerprint import model_fingerprint
from hf_msae.concepts import ConceptTable
from hf_msae.hub.publishing.release import push_to_hub
from hf_msae.hub.publishing.verification import read_metrics
from tests.hub.conftest import KEY, REPO, SENT, card_on_hub, commit_there, files_of, rewrite
from tests.stub_hub import Repo


def refused(hub, error, match, *args, **kwargs):
    with pytest.raises(error, match=match):
        push_to_hub(*args, **kwargs)
    assert KEY not in hub.repos or hub.repos[KEY].messages == ["initial commit"]


def test_what_was_not_measured_is_not_sent_unless_asked_for_and_then_the_card_says_so(at_hub, run_folder):
    (run_folder / "metrics.json").unlink()
    refused(at_hub, ValueError, r"no metrics\.json.*evaluate.*--allow_unmeasured", run_folder, REPO)
    refused(at_hub, ValueError, r"run_dir", MSAEModel.from_pretrained(run_folder), REPO)
    assert not at_hub.requests
    push_to_hub(run_folder, REPO, allow_unmeasured=True)
    text = card_on_hub(at_hub)
    assert "Nothing was measured" in text and "model-index" not in text


def test_metrics_of_other_weights_are_refused(at_hub, run_folder, other_weights, tmp_path):
    match = r"metrics\.json was measured on another model"
    refused(at_hub, ValueError, match, other_weights, REPO, run_dir=run_folder)
    shutil.copy(tmp_path / "other" / "model.safetensors", run_folder)
    refused(at_hub, ValueError, match, run_folder, REPO)
    assert not at_hub.requests


def test_metrics_that_do_not_say_of_which_weights_are_refused_or_left_behind(at_hub, run_folder):
    rewrite(run_folder / "metrics.json", lambda metrics: metrics.pop("model_sha256"))
    refused(at_hub, ValueError, r"metrics\.json .*model_sha256.*evaluate", run_folder, REPO)
    assert not at_hub.requests
    push_to_hub(run_folder, REPO, allow_unmeasured=True)
    files = files_of(at_hub)
    assert "Nothing was measured" in files["README.md"].decode()
    assert set(files) == SENT - {"metrics.json"}


def test_metrics_of_the_same_weights_under_another_config_are_refused(at_hub, run_folder):
    for change in (
        {"activation": "topk", "k": 4, "nesting": "none", "nesting_ks": None},
        {"soft_cap": 2.0},
        {"k": 4},
        {"nesting_ks": [2, 40]},
    ):
        content = (run_folder / "config.json").read_bytes()
        rewrite(run_folder / "config.json", lambda config, change=change: config.update(change))
        refused(at_hub, ValueError, r"metrics\.json was measured on another model", run_folder, REPO)
        (run_folder / "config.json").write_bytes(content)
    rewrite(run_folder / "config.json", lambda config: config.update(base_model_name_or_path="other/backbone"))
    push_to_hub(run_folder, REPO)


def test_a_model_in_half_precision_keeps_the_metrics_it_was_given_in_float32(at_hub, run_folder):
    metrics = json.loads((run_folder / "metrics.json").read_text())
    half = MSAEModel.from_pretrained(run_folder).to(torch.bfloat16)
    half.save_pretrained(run_folder)
    metrics["model_sha256"] = model_fingerprint(MSAEModel.from_pretrained(run_folder, dtype=torch.float32))
    (run_folder / "metrics.json").write_text(json.dumps(metrics))
    push_to_hub(run_folder, REPO)
    assert set(files_of(at_hub)) == SENT
    rewrite(run_folder / "training.json", lambda record: record.update(model_sha256="ab" * 32))
    with pytest.raises(ValueError, match=r"words\.parquet"):
        push_to_hub(run_folder, REPO)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda metrics: metrics.pop("fvu"), r"metrics\.json .*fvu"),
        (lambda metrics: metrics["by_k"]["4"].update(fvu=float("nan")), r"fvu at k=4 is nan"),
        (lambda metrics: metrics.update(cosine_similarity="high"), r"cosine_similarity is 'high'"),
        (lambda metrics: metrics["by_k"].update({"4000": metrics["by_k"]["4"]}), r"k=4000.*40 latents"),
        (lambda metrics: metrics.update(by_k={}), r"has no levels"),
        (lambda metrics: metrics["by_k"]["4"].update(fvu=-3.0), r"fvu at k=4 is -3\.0"),
        (lambda metrics: metrics["by_k"]["4"].update(cosine_similarity=1.7), r"1\.7.* -1 to 1"),
        (lambda metrics: metrics["by_k"]["40"].update(l0=9999.0), r"l0 at k=40 is 9999\.0"),
        (lambda metrics: metrics["by_k"]["4"].update(l0=5.0), r"l0 at k=4 is 5\.0.* 4"),
        (lambda metrics: metrics["by_k"]["4"].update(dead_latents=41), r"dead_latents at k=4 is 41"),
        (lambda metrics: metrics.update(num_samples=-5), r"num_samples is -5"),
        (lambda metrics: metrics.update(fvu=0.5), r"fvu is 0\.5, but .* at the largest level, 40"),
        (lambda metrics: metrics["baseline_mean"].update(fvu=-1.0), r"fvu of predicting the mean is -1\.0"),
    ],
)
def test_metrics_that_are_impossible_are_named(run_folder, change, match):
    rewrite(run_folder / "metrics.json", change)
    with pytest.raises(ValueError, match=match):
        read_metrics(run_folder / "metrics.json", MSAEModel.from_pretrained(run_folder))


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("training.json", b"{", r"training\.json"),
        ("conversion.json", b"{", r"conversion\.json cannot be read as JSON"),
        ("conversion.json", b"[]", r"conversion\.json holds list"),
        ("training_log.jsonl", b'{"step": 1}\n{"ste', r"training_log\.jsonl, line 2 cannot be read as JSON"),
        ("concepts/words.parquet", b"none", r"words\.parquet cannot be read as a table of names"),
    ],
)
def test_damaged_files_of_a_run_are_named(at_hub, run_folder, name, content, match):
    (run_folder / name).write_bytes(content)
    refused(at_hub, ValueError, match, run_folder, REPO)
    assert not at_hub.requests


def test_names_of_another_model_are_refused(at_hub, run_folder):
    table = ConceptTable.load(run_folder / "concepts" / "words.parquet")
    ConceptTable(table.frame.head(30)).save(run_folder / "concepts" / "words.parquet")
    refused(at_hub, ValueError, r"30", run_folder, REPO)
    assert not at_hub.requests


def test_names_of_other_weights_are_refused(at_hub, run_folder):
    model = MSAEModel.from_pretrained(run_folder)
    with torch.no_grad():
        model.decoder.mul_(2)
    model.save_pretrained(run_folder)
    (run_folder / "metrics.json").unlink()
    refused(at_hub, ValueError, r"words\.parquet names the latents of another model", run_folder, REPO,
            allow_unmeasured=True)  # fmt: skip
    assert not at_hub.requests


def test_folders_that_hold_no_model_are_named(at_hub, run_folder, tmp_path):
    refused(at_hub, FileNotFoundError, r"there is no folder .*nowhere", tmp_path / "nowhere", REPO)
    (tmp_path / "empty").mkdir()
    refused(at_hub, ValueError, r"empty.* MSAE", tmp_path / "empty", REPO)
    refused(at_hub, ValueError, r"run_dir=.*my-msae", run_folder, REPO, run_dir=run_folder)
    model = MSAEModel(MSAEConfig(d_in=4, num_latents=8))
    refused(at_hub, FileNotFoundError, r"run_dir=.*nowhere", model, REPO, run_dir=tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["msae", "a/b/c", "tester/ms ae", "tester/a--b"])
def test_names_that_are_none_are_refused_before_any_work(at_hub, run_folder, name):
    refused(at_hub, ValueError, re.escape(repr(name)), run_folder, name)
    assert not at_hub.requests


def test_offline_and_without_a_login_nothing_is_begun(at_hub, run_folder, monkeypatch):
    from huggingface_hub import constants

    (run_folder / "metrics.json").write_text("would be refused later")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refused(at_hub, ConnectionError, "HF_HUB_OFFLINE.*tester/msae.*--dry_run", run_folder, REPO)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "/nowhere")
    refused(at_hub, PermissionError, r"tester/msae.*hf auth login", run_folder, REPO)
    assert not at_hub.requests


@pytest.mark.parametrize(
    ("subfolder", "there", "match"),
    [
        (None, {"config.json": b'{"model_type": "clip"}', "model.safetensors": b"theirs"}, r"model_type 'clip'"),
        ("unet", {"config.json": b'{"_class_name": "UNet"}'}, r"config\.json of another model \(model_type None\)"),
        (None, {"config.json": b"damaged"}, r"config\.json of another model"),
        ("unet", {"model-00001-of-00002.safetensors": b"theirs"}, r"weights \(.*-of-00002.* without a config\.json"),
    ],
)
def test_a_model_of_another_kind_is_not_replaced(at_hub, run_folder, subfolder, there, match):
    repo = at_hub.repos[KEY] = Repo()
    repo.commit("main", {f"{subfolder}/{name}" if subfolder else name: each for name, each in there.items()}, "theirs")
    before = files_of(at_hub)
    with pytest.raises(ValueError, match=match):
        push_to_hub(run_folder, REPO, subfolder=subfolder)
    assert files_of(at_hub) == before


def test_weights_that_would_be_loaded_in_place_of_ours_are_not_left_beside_them(published, run_folder):
    commit_there(published, {"msae_files.json": None})
    with pytest.raises(ValueError, match=r"tester/msae holds model\.safetensors"):
        push_to_hub(run_folder, REPO, max_shard_size=1500)
