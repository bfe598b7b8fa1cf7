"""`hf-msae doctor`: what is there, what does not fit, what is missing, and what to run next."""

import json
import shlex
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from huggingface_hub import close_session, constants

from hf_msae import MSAEConfig
from hf_msae.cli import _COMMANDS
from hf_msae.cli.doctor import main
from hf_msae.concepts import ConceptTable
from hf_msae.metrics import evaluate_msae
from hf_msae.model.modeling_msae import MSAEModel
from hf_msae.training.record import TrainingRecord
from tests.stub_hub import Repo, StubHub


@pytest.fixture(scope="module")
def made(place, tmp_path_factory):
    folder = tmp_path_factory.mktemp("doctor") / "the model"
    shutil.copytree(place.model, folder)
    shutil.copytree(place.test, folder / "embeddings" / "test")
    evaluate_msae(MSAEModel.from_pretrained(folder), folder / "embeddings" / "test", progress=False).save(
        folder / "metrics.json"
    )
    (folder / "report.html").touch()
    return folder


@pytest.fixture
def model(made, tmp_path):
    """A folder with embeddings in it, a report and metrics, but no record of its training."""
    return shutil.copytree(made, tmp_path / made.name)


@pytest.fixture
def asked(capsys):
    """Run the command; returns the findings by part, the commands to run next, and the exit code."""

    def asked(model, *flags):
        code = 0
        try:
            main([str(model), "--json", *map(str, flags)])
        except SystemExit as exit:
            code = exit.code
        content = json.loads(capsys.readouterr().out)
        assert content["usable"] == (code == 0)
        findings = {}
        for each in content["findings"]:
            findings.setdefault(each["part"], []).append((each["state"], each["text"]))
        for command in content["next"]:
            assert shlex.split(command)[0] == "hf-msae" and shlex.split(command)[1] in _COMMANDS
        return findings, content["next"], code

    return asked


def test_all_that_is_there_is_found(model, asked):
    findings, then, code = asked(model)
    assert code == 0 and findings["training"][0][0] == "missing"
    assert {part: [state for state, _ in each] for part, each in findings.items() if part != "training"} == {
        part: ["ok"] for part in ("model", "quality", "backbone", "names", "embeddings")
    }
    assert "160 latents" in findings["model"][0][1] and "240" in findings["quality"][0][1]
    assert "6 of 160" in findings["names"][0][1] and str(model / "embeddings" / "test") in findings["embeddings"][0][1]
    search = next(shlex.split(each) for each in then if " search " in each)
    assert search[2:5] == [str(model), "--data", str(model / "embeddings" / "test")]
    assert not any(word in each for each in then for word in (" name ", " evaluate ", " extract ", " report "))
    assert shlex.split(then[-1])[1:] == ["demo", str(model), "--embeddings", str(model / "embeddings" / "test")]


def test_the_page_ends_with_commands(model, capsys):
    main([str(model)])
    page, commands = capsys.readouterr().out.split("\nNext:\n")
    assert page.splitlines()[0] == str(model) and "missing" in page
    assert all(line.startswith("  hf-msae ") for line in commands.splitlines())


def test_the_models_of_a_sweep_have_a_line_each(model, tmp_path, asked, capsys):
    sweep = tmp_path / "sweep"
    for name in ("large", "small", "small/checkpoint-3"):
        shutil.copytree(model, sweep / name)
    findings, then, code = asked(sweep)
    assert code == 0 and then == [f"hf-msae doctor {sweep / name}" for name in ("large", "small")]
    assert list(findings) == ["large", "small"]
    assert findings["small"][0][0] == "ok" and "FVU on 240" in findings["small"][0][1]
    (sweep / "small" / "metrics.json").write_text("{}")
    findings, _, code = asked(sweep)
    assert code == 1 and [findings[name][0][0] for name in ("large", "small")] == ["ok", "broken"]
    assert findings["small"][0][1].startswith(f"quality: {sweep / 'small' / 'metrics.json'}")
    assert asked(sweep, "--subfolder", "large")[:2] == asked(sweep / "large")[:2]
    with pytest.raises(SystemExit):
        main(["scenes-image", "--subfolder", "large"])
    assert "scenes-image is a released model" in capsys.readouterr().err


def test_commands_name_the_subfolder_and_revision_of_a_model_on_the_hub(model, tmp_path, asked, monkeypatch):
    files = {f"large/{name}": (model / name).read_bytes() for name in ("config.json", "model.safetensors")}
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with StubHub() as hub:
        hub.repos["model", "org/msaes"] = Repo(commits={"1" * 40: files})
        for name, value in (
            ("ENDPOINT", hub.url),
            ("HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"),
            ("HF_HUB_OFFLINE", False),
        ):
            monkeypatch.setattr(constants, name, value)
        flags = ["--revision", "1" * 40]
        assert asked("org/msaes", *flags)[1] == [f"hf-msae doctor org/msaes --subfolder large --revision {'1' * 40}"]
        _, then, code = asked("org/msaes", "--subfolder", "large", *flags)
    assert code == 0 and [shlex.split(each)[1] for each in then] == [
        "evaluate",
        "name",
        "extract",
        "explain",
        "search",
        "report",
    ]
    named = ["org/msaes", "--subfolder", "large", *flags]
    assert all(shlex.split(each)[2:7] == named for each in then if " extract " not in each)
    assert not any(str(tmp_path) in each for each in then if " extract " not in each)


def test_what_is_missing_comes_with_a_command(model, asked):
    shutil.rmtree(model / "concepts")
    shutil.rmtree(model / "embeddings")
    (model / "metrics.json").unlink()
    findings, then, code = asked(model)
    assert code == 0
    assert [findings[part][0][0] for part in ("names", "embeddings", "quality")] == ["missing"] * 3
    assert [shlex.split(each)[1] for each in then[:3]] == ["evaluate", "name", "extract"]
    assert shlex.split(then[-1])[-2:] == ["--dataset", "PICTURES"]
    assert shlex.split(then[0])[-1] == str(model / "metrics.json")


@pytest.mark.parametrize(
    ("hook_point", "commands", "extracted"),
    [
        ("text_embeds", ["evaluate", "name", "extract", "explain", "search"], "--text_column"),
        ("text.layers.1", ["evaluate", "extract", "search"], "--text_column"),
        ("vision.layers.1", ["evaluate", "extract", "search"], "--image_column"),
    ],
)
def test_commands_are_those_that_take_a_model_of_its_hook_point(tmp_path, asked, hook_point, commands, extracted):
    config = {"base_model_name_or_path": "hf_msae/scenes-siglip", "hook_point": hook_point}
    MSAEModel(MSAEConfig(d_in=8, num_latents=16, **config)).save_pretrained(tmp_path / "model")
    _, then, code = asked(tmp_path / "model")
    words = {shlex.split(each)[1]: shlex.split(each) for each in then}
    assert code == 0 and list(words) == commands
    assert extracted in words["extract"] and words["extract"][words["extract"].index("--hook_point") + 1] == hook_point
    assert "--image" not in words.get("explain", [])


def test_files_of_another_model_do_not_fit(model, place, asked):
    table = ConceptTable.load(model / "concepts" / "scenes.parquet")
    ConceptTable(table.frame, {"model_sha256": "0" * 64}).save(model / "concepts" / "other.parquet")
    msae = MSAEModel.from_pretrained(model)
    with torch.no_grad():
        msae.latent_bias.add_(0.01)
    msae.save_pretrained(model)
    findings, _, code = asked(model)
    assert code == 1 and findings["quality"][0][0] == "broken" and "another model" in findings["quality"][0][1]
    assert [state for state, _ in findings["names"]] == ["broken", "ok", "ok"]
    assert "other.parquet" in findings["names"][0][1]


def test_a_model_that_has_overfitted_is_doubtful_and_usable(model, asked):
    file = model / "metrics.json"
    metrics = json.loads(file.read_text())
    file.write_text(json.dumps(metrics | {"train_fvu": metrics["fvu"] / 4}))
    TrainingRecord(result={"global_step": 30, "advice": ["Training was too short."]}).save(model)
    findings, _, code = asked(model)
    assert code == 0
    for part, text in (("quality", f"{metrics['fvu'] / 4:.4f}"), ("training", "too short")):
        ((state, said),) = findings[part]
        assert state == "doubtful" and text in said


def test_damage_is_named(model, asked):
    (model / "embeddings" / "test" / "activations.json").write_text("{")
    (model / "training.json").write_text("[]")
    findings, _, code = asked(model)
    assert code == 1 and "activations.json" in next(
        text for state, text in findings["embeddings"] if state == "broken"
    )
    assert findings["training"][0][0] == "broken" and "training.json" in findings["training"][0][1]
    (model / "model.safetensors").write_bytes(b"x")
    findings, then, code = asked(model)
    assert code == 1 and list(findings) == ["model"] and str(model) in findings["model"][0][1] and not then


def test_embeddings_of_another_backbone_do_not_fit(model, asked):
    file = model / "embeddings" / "test" / "activations.json"
    content = json.loads(file.read_text())
    content["provenance"]["base_model_weights_sha256"] = "0" * 64
    file.write_text(json.dumps(content))
    config = json.loads((model / "config.json").read_text())
    config["base_model_weights_sha256"] = "1" * 64
    (model / "config.json").write_text(json.dumps(config))
    findings, _, code = asked(model)
    assert code == 1 and findings["embeddings"][0][0] == "missing" and "other weights" in findings["embeddings"][1][1]
    findings, _, _ = asked(model, "--check_backbone")
    assert findings["backbone"][0][0] == "broken" and "other weights" in findings["backbone"][0][1]


def test_a_backbone_that_is_gone_is_named(model, tmp_path, asked):
    findings, then, code = asked(model, "--backbone", tmp_path / "gone")
    assert (
        code == 1 and findings["backbone"][0][0] == "broken" and str(tmp_path / "gone") in findings["backbone"][0][1]
    )
    assert "--check_backbone" in then[0]
    (tmp_path / "empty").mkdir()
    assert "config.json" in asked(model, "--backbone", tmp_path / "empty")[0]["backbone"][0][1]


def test_a_backbone_on_the_hub_is_looked_for_or_said_to_be_unchecked(model, tmp_path, asked, monkeypatch):
    commits = {"there": "1" * 40, "only in the cache": "2" * 40, "nowhere": "3" * 40}
    cached = tmp_path / "cache" / "models--org--clip" / "snapshots" / commits["only in the cache"]
    cached.mkdir(parents=True)
    (cached / "config.json").write_text("{}")
    config = json.loads((model / "config.json").read_text())

    def state(commit):
        named = {"base_model_name_or_path": "org/clip", "base_model_revision": commit}
        (model / "config.json").write_text(json.dumps(config | named))
        findings, _, code = asked(model)
        ((state, text),) = findings["backbone"]
        assert (
            "org/clip" in text
            and (code == 1) == (state == "broken")
            and ("not checked" in text) == (state == "unchecked")
        )
        return state

    def states():
        return {name: state(commit) for name, commit in commits.items()}

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with StubHub() as hub:
        hub.repos["model", "org/clip"] = Repo(commits={commits["there"]: {"config.json": b"{}"}})
        for name, value in (
            ("ENDPOINT", hub.url),
            ("HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"),
            ("HF_HUB_OFFLINE", False),
        ):
            monkeypatch.setattr(constants, name, value)
        assert states() == {"there": "ok", "only in the cache": "ok", "nowhere": "broken"}
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert states() == {"there": "unchecked", "only in the cache": "ok", "nowhere": "unchecked"}
    assert state(None) == "unchecked"
    findings, _, code = asked(model, "--check_backbone")
    assert code == 1 and findings["backbone"][0][0] == "broken"


def test_levels_are_named_as_in_the_card(place, tmp_path, asked):
    config = {"nesting": "prefix", "nesting_widths": [32, 160]}
    msae = MSAEModel(MSAEConfig(d_in=place.msae.config.d_in, num_latents=160, **config))
    msae.save_pretrained(tmp_path / "model")
    result = evaluate_msae(msae, place.test, progress=False)
    result.save(tmp_path / "model" / "metrics.json")
    findings, _, _ = asked(tmp_path / "model")
    assert "the first 32, 160 latents" in findings["model"][0][1]
    figures = findings["quality"][0][1].split(": ")[1].split(", ")
    assert [each.split(" ", 1)[1] for each in figures] == ["of the first 32 latents", "of the first 160 latents"]
    assert figures[-1].startswith(f"{result.fvu:.4f} ")


@pytest.fixture
def refusing_proxy(monkeypatch):
    """The only way to the Hub is a proxy that lets nothing through."""

    class Refuse(BaseHTTPRequestHandler):
        def do_CONNECT(self):
            self.send_error(403, "Forbidden by policy")

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Refuse) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        close_session()
        yield
        server.shutdown()
    close_session()


def test_a_proxy_that_refuses_is_named(model, asked, refused, refusing_proxy, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    file = model / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": "org/clip"}))
    ((state, text),) = asked(model)[0]["backbone"]
    assert state == "unchecked" and "org/clip" in text
    refused(
        main, [], [([], r"Hub cannot be reached \(ProxyError: 403 Forbidden by policy\).*HTTPS_PROXY")], "org/model"
    )


def test_embeddings_that_are_named_or_were_trained_on(model, place, asked, tmp_path, monkeypatch):
    shutil.move(model / "embeddings", tmp_path / "elsewhere" / "deep")
    moved = tmp_path / "elsewhere" / "deep" / "test"
    shutil.copytree(moved, tmp_path / "elsewhere" / "data" / "a" / "b" / "train")
    findings, then, _ = asked(model)
    assert findings["embeddings"][0][0] == "missing" and str(model) in findings["embeddings"][0][1]
    findings, then, _ = asked(model, "--data", moved)
    assert findings["embeddings"] == [("ok", f"{moved} (240 rows)")] and f"--data {moved}" in " ".join(then)
    np.save(tmp_path / "narrow.npy", np.ones((5, 7), np.float32))
    findings, _, code = asked(model, "--data", tmp_path / "narrow.npy")
    assert code == 1 and "7 wide, not 128" in findings["embeddings"][1][1]
    monkeypatch.chdir(tmp_path / "elsewhere")
    TrainingRecord(command="hf-msae train --train_data=data/a/b/train --num_latents 160").save(model)
    assert str(tmp_path / "elsewhere" / "data" / "a" / "b" / "train") in asked(model)[0]["embeddings"][0][1]


def test_the_backbone_is_loaded_only_on_request(model, asked, monkeypatch):
    loaded = []
    monkeypatch.setattr("hf_msae.backbones.Backbone.from_pretrained", lambda *_, **__: loaded.append(1) or 1 / 0)
    asked(model)
    assert not loaded
    with pytest.raises(ZeroDivisionError):
        main([str(model), "--check_backbone"])
