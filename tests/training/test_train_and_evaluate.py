"""The commands train and evaluate, and their scripts."""

import json
import re
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file

from hf_msae import MSAEConfig, MSAEModel
from hf_msae.backbones import Backbone
from hf_msae.cli import evaluate, train
from hf_msae.embeddings import EmbeddingWriter, load_embeddings
from hf_msae.metrics import EvaluationResult, evaluate_msae
from hf_msae.scenes.backbone import BACKBONE_DIR
from hf_msae.training.flags import DataArguments
from tests.training.commands import LATENTS, QUIET, SMALL, WIDTH, run


def test_a_run_leaves_model_metrics_card_and_log(finished, embeddings):
    files = {path.name for path in finished.iterdir()}
    assert files >= {"config.json", "model.safetensors", "metrics.json", "README.md", "training_log.jsonl"}
    assert not [name for name in files if name.startswith(".")]
    model = MSAEModel.from_pretrained(finished)
    assert (model.config.d_in, model.config.nesting_ks) == (WIDTH, [2, 8, LATENTS])
    held_out = load_embeddings(embeddings / "test.npy")
    expected = evaluate_msae(model, held_out, cknna_batch_size=64, progress=False).to_dict()
    written = json.loads((finished / "metrics.json").read_text())
    assert written.keys() == expected.keys()
    assert written["fvu"] == pytest.approx(expected["fvu"], rel=1e-6)
    assert list(written["by_k"]) == ["2", "8", str(LATENTS)]
    assert written["data"]["held_out"] is True and written["data"]["source"] == "test.npy"
    assert "160" in (finished / "README.md").read_text()
    record = json.loads((finished / "training.json").read_text())
    assert record["model_sha256"] == written["model_sha256"] and record["base_model_is_local"] is None


@pytest.mark.parametrize(
    ("hook_point", "expected"),
    [
        ("image_embeds", "hf-msae name out --vocabulary WORDS.txt --data 'my data' --split test"),
        ("vision.layers.2", "hf-msae search out --data 'my data' --split test --row 0"),
    ],
)
def test_after_training_comes_a_command_for_the_held_out_embeddings(hook_point, expected):
    data = DataArguments("train", eval_data="my data", eval_split="test")
    assert train._next_command(Path("out"), hook_point, SimpleNamespace(data={"held_out": True}), data) == expected


def test_yaml_resume_and_training_data_as_evaluation_data(tmp_path, embeddings, capsys):
    folder, recipe = tmp_path / "out", tmp_path / "recipe.yaml"
    recipe.write_text(
        f"train_data: {embeddings / 'train.npy'}\noutput_dir: {folder}\nnum_latents: {LATENTS}\nnesting_ks: [2, 64]\n"
        "learning_rate: 5e-3\nper_device_train_batch_size: 32\nnum_train_epochs: 2\nsave_steps: 10\n"
    )
    config = ("--config", recipe)
    run(train.main, *config)
    shown = capsys.readouterr().out
    assert re.search("320 .*16.* 64 .* 20 .*32.*1 x cpu", shown) and "--eval_data" in shown
    assert str(EvaluationResult.load(folder)) in shown
    loading, then = shown[shown.index("from hf_msae import MSAEModel") :].split("\nNext: ")
    assert shlex.split(then)[:5] == ["hf-msae", "evaluate", str(folder), "--data", "HELD_OUT"]
    exec(loading, names := {"embeddings": torch.randn(5, WIDTH)})
    assert names["latents"].shape == (5, LATENTS)

    first = load_file(folder / "model.safetensors")
    assert json.loads((folder / "metrics.json").read_text())["num_samples"] == 320
    with pytest.raises(SystemExit):
        run(train.main, *config)
    assert "--overwrite_output_dir" in capsys.readouterr().err
    run(train.main, *config, "--resume_from_checkpoint", folder / "checkpoint-10")
    resumed = load_file(folder / "model.safetensors")
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in first.items())
    run(train.main, *config, "--overwrite_output_dir", "--seed", 1)
    assert not torch.equal(load_file(folder / "model.safetensors")["decoder"], first["decoder"])


def test_columns_are_found_by_hook_point_and_provenance_is_kept(tmp_path, embeddings):
    rows = np.load(embeddings / "train.npy")
    metadata = {"base_model_name_or_path": "some/siglip", "base_model_revision": "abc"}
    columns = {"image_embeds": WIDTH, "text_embeds": WIDTH}
    with EmbeddingWriter(tmp_path / "data", columns=columns, metadata=metadata) as writer:
        writer.write({"image_embeds": rows, "text_embeds": rows[::-1].copy() * 2})
    flags = ["--train_data", tmp_path / "data", "--output_dir", tmp_path / "out", "--hook_point", "text_embeds"]
    run(train.main, *flags, "--per_device_train_batch_size", "32", *SMALL, "--max_steps", 1)
    model = MSAEModel.from_pretrained(tmp_path / "out")
    assert (model.config.hook_point, model.config.base_model_name_or_path) == ("text_embeds", "some/siglip")
    assert torch.allclose(model.input_mean, torch.from_numpy(rows.mean(axis=0) * 2), atol=1e-4)


def test_mistakes_are_refused_before_training(refused, embeddings, data_flags, tmp_path, finished):
    out = ["--output_dir", tmp_path / "out", *SMALL]
    narrow, nan, zero = (tmp_path / f"{name}.npy" for name in ("narrow", "nan", "zero"))
    rows = np.load(embeddings / "test.npy")
    np.save(narrow, rows[:, :8])
    for file, value in ((nan, np.nan), (zero, 0)):
        rows[42] = value
        np.save(file, rows)
    for flags, message in (
        (["--train_data", tmp_path / "nowhere.npy"], "nowhere"),
        ([*data_flags, "--nesting_ks", 2, 900], "nesting_ks.*900"),
        ([*data_flags[:2], "--eval_strategy", "epoch"], "eval_strategy is epoch"),
        ([*data_flags[:2], "--eval_data", narrow], "8 columns"),
        ([*data_flags[:2], "--eval_data", nan], "row 42"),
        ([*data_flags[:2], "--eval_data", zero], "row 42"),
    ):
        assert re.search(message, refused(train.main, *out, *flags))
    assert not (tmp_path / "out").exists()
    assert "--overwrite_output_dir" in refused(train.main, *data_flags, *SMALL, "--output_dir", finished)


def test_an_output_folder_is_refused_before_anything_is_opened_or_said(finished, monkeypatch, capsys):
    monkeypatch.setattr(train, "_build_trainers", None)
    with pytest.raises(SystemExit):
        run(train.main, "--train_data", "no/such/data", "--output_dir", finished)
    shown = capsys.readouterr()
    assert not shown.out and len(shown.err.splitlines()) == 1 and str(finished) in shown.err


def test_evaluate_tries_its_output_before_it_opens_anything(refused, tmp_path):
    assert "/dev/null" in refused(evaluate.main, "no/such/model", "--data", "no/such/data", "--output", "/dev/null")
    (tmp_path / "file").write_text("")
    message = refused(evaluate.main, "no/such/model", "--data", "x", "--figure", tmp_path / "file" / "plot.png")
    assert str(tmp_path / "file") in message


def test_evaluate_measures_at_the_ks_it_is_given(finished, embeddings, tmp_path, capsys):
    output = tmp_path / "new" / "metrics.json"
    run(evaluate.main, finished, "--data", embeddings / "test.npy", "--output", output, "--ks", 1, 4, LATENTS)
    result = EvaluationResult.load(output)
    assert list(result.by_k) == ["1", "4", str(LATENTS)]
    assert result.fvu == pytest.approx(EvaluationResult.load(finished).fvu, rel=1e-9)
    assert result.data["source"] == "test.npy"
    assert str(result) in capsys.readouterr().out


def test_evaluate_measures_a_prefix_model_at_its_widths(embeddings, tmp_path, capsys):
    model = MSAEModel(MSAEConfig(d_in=WIDTH, num_latents=32, nesting="prefix", nesting_widths=[4, 16, 32]))
    model.save_pretrained(tmp_path / "model")
    command = [tmp_path / "model", "--data", embeddings / "test.npy", "--output", tmp_path / "m.json"]
    run(evaluate.main, *command)
    assert "other levels" not in capsys.readouterr().out
    assert list(EvaluationResult.load(tmp_path / "m.json").by_width) == ["4", "16", "32"]
    run(evaluate.main, *command, "--ks", 2, 31, 32)
    out = capsys.readouterr().out
    assert "first 4, 16, 32 latents" in out and list(EvaluationResult.load(tmp_path / "m.json").by_k) == [
        "2",
        "31",
        "32",
    ]
    run(evaluate.main, *command, "--widths", 8)
    assert list(EvaluationResult.load(tmp_path / "m.json").by_width) == ["8", "32"]


def test_evaluate_knows_what_was_held_out(finished, embeddings, tmp_path, refused):
    other, output = tmp_path / "other.npy", tmp_path / "metrics.json"
    np.save(other, np.random.default_rng(5).normal(size=(80, WIDTH)).astype(np.float32))
    train_data = embeddings / "train.npy"
    for data, flags, held_out in (
        (embeddings / "test.npy", [], True),
        (train_data, [], False),
        (other, [], None),
        (other, ["--held_out", "true"], True),
    ):
        run(evaluate.main, finished, "--data", data, "--output", output, *flags)
        assert EvaluationResult.load(output).data["held_out"] is held_out
    flags = ["--subfolder", finished.name, "--data", train_data, "--output", output]
    run(evaluate.main, finished.parent, *flags)
    assert EvaluationResult.load(output).data["held_out"] is False
    assert "held_out" in refused(evaluate.main, finished, "--data", train_data, "--held_out", "true")


@pytest.fixture
def labelled(embeddings, tmp_path):
    """The embeddings as data sets with a column of labels: the half of space that an embedding lies in."""
    for name in ("train", "test"):
        x = np.load(embeddings / f"{name}.npy")
        side = np.where(x[:, 0] > np.median(x[:, 0]), "right", "left")
        Dataset.from_dict({"image_embeds": x.tolist(), "side": side.tolist()}).save_to_disk(tmp_path / name)
    return tmp_path


def test_evaluate_measures_progressive_recovery_with_probes_and_another_encoder(
    finished, labelled, tmp_path, capsys, monkeypatch
):
    figure, output, drawn = tmp_path / "new" / "f.pdf", tmp_path / "m.json", []
    monkeypatch.setattr("hf_msae.plotting.save_figure", lambda *given: drawn.append(given) or given[1])
    with EmbeddingWriter(
        tmp_path / "other", {"image_embeds": 5}, metadata={"base_model_name_or_path": "else"}
    ) as other:
        other.write({"image_embeds": np.random.default_rng(0).normal(size=(160, 5)).astype(np.float32)})
    flags = ["--data", labelled / "test", "--progressive", "--figure", figure, "--train_data", labelled / "train"]
    flags += ["--probe_columns", "side", "--output", output, "--encoder_data", tmp_path / "other"]
    run(evaluate.main, finished, *flags)
    result = EvaluationResult.load(output)
    assert list(result.by_k) == ["16", "32", "64"]
    probe = result.classifiers["probe side"]
    assert probe["accuracy"] > 0.9 and probe["agreement"] > 0.8 and probe["num_labelled"] == 160
    assert result.monosemanticity_encoder == "else"
    ((plot, path),) = drawn
    assert path == str(figure)
    assert {panel.get_title() for panel in plot.axes} >= {"Sparse probing (AUROC)", "Monosemanticity (else)"}
    assert "probe side" in capsys.readouterr().out
    assert 0.6 < result.by_k["16"]["sparse_probing"]["side"]["auroc_1"] <= result.sparse_probing["side"]["auroc_5"]
    assert result.sparse_probing["side"]["num_train"] == 320 and result.seed_stability == {}


def test_evaluate_keeps_what_it_measured_where_probing_is_impossible(finished, labelled, tmp_path, refused):
    data = Dataset.load_from_disk(labelled / "test").filter(lambda row: row["side"] == "left")
    data.save_to_disk(tmp_path / "left")
    flags = ["--data", tmp_path / "left", "--train_data", labelled / "train", "--probe_columns", "side"]
    message = refused(evaluate.main, finished, *flags, "--output", tmp_path / "m.json")
    assert "sparse probing of 'side'" in message
    assert EvaluationResult.load(tmp_path / "m.json").num_samples == len(data)


def test_evaluate_leaves_out_rows_that_cannot_be_measured(finished, labelled, tmp_path, caplog):
    whole = Dataset.load_from_disk(labelled / "test")
    x, other = np.array(whole["image_embeds"]), np.random.default_rng(0).normal(size=(160, 5))
    constant, unknown = [3, 90], 40  # the second is missing for the other encoder alone
    x[constant], other[[*constant, unknown]] = [[0], [2]], 0
    rest = np.delete(np.arange(160), [*constant, unknown])
    found = {}
    for name, rows in (("damaged", np.arange(160)), ("rest", rest)):
        Dataset.from_dict({"image_embeds": x[rows], "side": whole[rows]["side"]}).save_to_disk(tmp_path / name)
        np.save(tmp_path / f"{name}.npy", other[rows])
        flags = ["--data", tmp_path / name, "--train_data", labelled / "train", "--probe_columns", "side"]
        flags += ["--encoder_data", tmp_path / f"{name}.npy", "--encoder", "else", "--output", tmp_path / "m.json"]
        run(evaluate.main, finished, *flags)
        found[name] = json.loads((tmp_path / "m.json").read_text())
        del found[name]["data"]["source"]
    assert found["damaged"] == found["rest"] and found["rest"]["num_samples"] == 157
    (warning,) = caplog.messages
    assert "leave out 3 of the 160 rows" in warning and str(tmp_path / "damaged.npy") in warning


def test_evaluate_compares_with_other_seeds(finished, embeddings, tmp_path, capsys, refused):
    other = MSAEModel.from_pretrained(finished)
    with torch.no_grad():
        other.decoder += 0.1 * torch.randn(other.decoder.shape, generator=torch.Generator().manual_seed(0))
    other.save_pretrained(tmp_path / "other")
    flags = [finished, "--data", embeddings / "test.npy", "--output", tmp_path / "m.json", "--other_seeds"]
    run(evaluate.main, *flags, tmp_path / "other")
    found = EvaluationResult.load(tmp_path / "m.json").seed_stability
    assert found["by_chance"] < 0.6 < found["mean_cosine"] < 0.99
    assert "stability across seeds" in capsys.readouterr().out
    assert str(finished) in refused(evaluate.main, *flags, tmp_path / "other", finished)


def test_evaluate_classifies_zero_shot_with_the_models_backbone(tmp_path, refused):
    colors = ["red", "blue", "green"] * 8
    texts = Backbone.from_pretrained("scenes").text_embeds([f"a {color} shape" for color in colors]).detach()
    x = texts + 0.01 * torch.randn(texts.shape, generator=torch.Generator().manual_seed(0))
    Dataset.from_dict({"image_embeds": x.tolist(), "color": colors}).save_to_disk(tmp_path / "data")
    model = MSAEModel(MSAEConfig(d_in=x.shape[1], num_latents=64, base_model_name_or_path="scenes"))
    model.save_pretrained(tmp_path / "model")
    flags = ["--data", tmp_path / "data", "--zero_shot_columns", "color", "--zero_shot_template", "a {} shape"]
    evaluate.main([*map(str, [tmp_path / "model", *flags, "--output", tmp_path / "m.json"]), *QUIET[2:]])
    assert EvaluationResult.load(tmp_path / "m.json").classifiers["zero-shot color"]["accuracy"] == 1.0

    moved = shutil.copytree(BACKBONE_DIR, tmp_path / "moved")
    model.config.base_model_weights_sha256 = Backbone.from_pretrained(moved).provenance()["base_model_weights_sha256"]
    model.config.base_model_name_or_path = "../siglip"
    model.save_pretrained(tmp_path / "model")
    flags = [*map(str, [tmp_path / "model", *flags]), *QUIET[2:]]
    assert "--backbone" in refused(evaluate.main, *flags)
    evaluate.main([*flags, "--backbone", str(moved)])
    model.config.base_model_weights_sha256 = "1" * 64
    model.save_pretrained(tmp_path / "model")
    assert "--allow_other_backbone" in refused(evaluate.main, *flags, "--backbone", moved)
    evaluate.main([*flags, "--backbone", str(moved), "--allow_other_backbone"])


def test_evaluate_refuses_flags_that_do_not_fit(finished, embeddings, labelled, tmp_path, refused):
    narrow, train_data = tmp_path / "narrow.npy", ["--train_data", labelled / "train"]
    np.save(narrow, np.load(embeddings / "test.npy")[:, :8])
    for flags, message in (
        (["--progressive", "--ks", 4], "ks.*progressive"),
        (["--widths", 4, "--ks", 4], "ks and widths"),
        (["--widths", 4], r"widths is \[4\].*k = 2, 8, 64"),
        (["--sparse_probe_ks", "0"], "sparse_probe_ks"),
        (["--sparse_probe_samples", "-1"], "sparse_probe_samples.*-1"),
        (["--probe_columns", "side"], "train_data"),
        (train_data, "probe_columns"),
        (["--figure", tmp_path / "f.docx"], r"f\.docx"),
        (["--zero_shot_columns", "side"], "backbone.*--backbone"),
        (["--probe_columns", "size", *train_data], "'size'"),
        (["--ks", 65], "k .*64.* 65"),
        (["--data", narrow], "8 columns.* 16"),
    ):
        words = [finished, "--data", labelled / "test", "--output", tmp_path / "m.json", *flags]
        assert re.search(message, refused(evaluate.main, *words))
    assert not (tmp_path / "m.json").exists()
