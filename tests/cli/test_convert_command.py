"""`hf-msae convert`."""

import contextlib
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from hf_msae import MSAEConfig, MSAEModel
from hf_msae.cli.convert import main
from hf_msae.hub.converters import convert_checkpoint

SAELENS = Path(__file__).parents[1] / "hub" / "converters" / "foreign" / "saelens"


@pytest.fixture
def msae(tmp_path):
    torch.manual_seed(0)
    model = MSAEModel(MSAEConfig(d_in=6, num_latents=20, nesting_ks=[4, 20])).eval()
    model.set_input_statistics(torch.randn(6), 2.0)
    model.save_pretrained(tmp_path / "my-msae")
    return model


def convert(*arguments):
    main([str(each) for each in arguments])


def refuse(pattern, *arguments):
    """Run a command that has to fail with an error that matches the pattern."""
    stderr = io.StringIO()
    with pytest.raises(SystemExit), contextlib.redirect_stderr(stderr):
        convert(*arguments)
    assert re.search(pattern, stderr.getvalue()) and "Traceback" not in stderr.getvalue(), stderr.getvalue()


def test_the_model_and_where_it_came_from_are_written(tmp_path, capsys):
    output = tmp_path / "models" / "out"
    convert(SAELENS / "gated", "--output", output, "--base_model_revision", "abc")
    model = MSAEModel.from_pretrained(output)
    x = load_file(SAELENS / "gated" / "expected.safetensors")["inputs"]
    assert torch.equal(model.encode(x), convert_checkpoint(SAELENS / "gated").encode(x))
    assert model.config.base_model_revision == "abc"
    assert sorted(path.name for path in output.iterdir()) == ["config.json", "conversion.json", "model.safetensors"]
    assert [path.name for path in output.parent.iterdir()] == ["out"]  # nothing temporary is left
    record = json.loads((output / "conversion.json").read_text())
    assert record["format"] == "saelens" and record["source"] == "gated" and record["revision"] is None
    assert record["given"] == {"base_model_revision": "abc"} and "JumpReLU" in record["notes"][0]
    assert str(tmp_path) not in (output / "conversion.json").read_text() + (output / "config.json").read_text()
    printed = capsys.readouterr().out
    for expected in ("saelens", "8 columns, 24 latents", "jump_relu", "vision.layers.9", "gated", str(output)):
        assert expected in printed


def test_the_three_lines_that_it_prints_work(tmp_path, capsys):
    convert(SAELENS / "standard", "--output", tmp_path / "out")
    lines = [line.strip() for line in capsys.readouterr().out.splitlines() if line.startswith("    ")]
    assert len(lines) == 3
    names = {"embeddings": torch.randn(4, 8)}
    exec("\n".join(lines), names)
    assert names["values"].shape == names["indices"].shape == (4, 24)


def test_flags_are_fields_of_the_config(tmp_path):
    convert(SAELENS / "old_standard", "--output", tmp_path, "--nesting_ks", "4", "12", "24", "--nesting_weights", "3",
            "2", "1.5", "--reconstruction_loss", "nmse", "--hook_point", "text_embeds", "--soft_cap", "9")  # fmt: skip
    config = MSAEConfig.from_pretrained(tmp_path)
    assert (config.nesting, config.nesting_ks, config.nesting_weights) == ("topk", [4, 12, 24], [3.0, 2.0, 1.5])
    assert (config.reconstruction_loss, config.hook_point, config.soft_cap) == ("nmse", "text_embeds", 9.0)
    convert(SAELENS / "standard", "--output", tmp_path, "--overwrite", "--nesting_ks", "4", "24", "--nesting_weights",
            "reverse")  # fmt: skip
    assert MSAEConfig.from_pretrained(tmp_path).nesting_weights == "reverse"
    assert json.loads((tmp_path / "conversion.json").read_text())["source"] == "standard"


def test_statistics_that_are_not_stored_are_flags(tmp_path):
    saev = SAELENS.parent / "saev" / "relu"
    arguments = [saev, "--output", tmp_path / "out"]
    refuse("hook_point=", *arguments)
    arguments += ["--hook_point", "vision.layers.10"]
    refuse("input_mean and input_scale", *arguments)
    assert not (tmp_path / "out").exists()
    np.save(tmp_path / "mean.npy", np.arange(8.0))
    convert(*arguments, "--input_mean", tmp_path / "mean.npy", "--input_scale", "0.5")
    model = MSAEModel.from_pretrained(tmp_path / "out")
    assert model.input_mean.tolist() == list(range(8)) and model.input_scale == 0.5
    given = json.loads((tmp_path / "out" / "conversion.json").read_text())["given"]
    assert given["input_mean"] == "mean.npy"
    convert(saev, "--output", tmp_path / "raw", "--hook_point", "vision.layers.10", "--input_scale", "1")
    assert MSAEModel.from_pretrained(tmp_path / "raw").input_scale == 1


def test_a_subfolder_and_a_format(tmp_path):
    convert(SAELENS, "--subfolder", "topk", "--format", "saelens", "--output", tmp_path / "out")
    assert MSAEConfig.from_pretrained(tmp_path / "out").k == 5
    refuse("'sealens'.*saelens", SAELENS / "topk", "--format", "sealens", "--output", tmp_path / "b")


def test_what_is_there_is_not_lost(tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    (output / "notes.txt").write_text("mine")
    refuse("--overwrite", SAELENS / "topk", "--output", output)
    convert(SAELENS / "topk", "--output", output, "--overwrite")
    assert (output / "notes.txt").read_text() == "mine"
    (output / "metrics.json").write_text("{}")
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    refuse(r"metrics\.json", SAELENS / "gated", "--output", output, "--overwrite")
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before
    refuse(r"notes\.txt is a file", SAELENS / "topk", "--output", output / "notes.txt")


def test_a_conversion_that_fails_leaves_nothing(tmp_path):
    folder = shutil.copytree(SAELENS / "topk", tmp_path / "sae")
    weights = folder / "sae_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    refuse(r"sae_weights\.safetensors is damaged", folder, "--output", tmp_path / "out")
    refuse("k.*99", SAELENS / "topk", "--output", tmp_path / "out", "--k", "99")
    refuse(str(tmp_path / "none"), tmp_path / "none", "--output", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["sae"]


def test_an_msae_becomes_one_of_saelens(tmp_path, msae, capsys, relative_error):
    convert(tmp_path / "my-msae", "--output", tmp_path / "out", "--to", "saelens")
    printed = capsys.readouterr().out
    assert 'SAE.load_from_disk("' in printed and "SAELens has no levels" in printed
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["cfg.json", "sae_weights.safetensors"]
    x = torch.randn(10, 6)
    assert relative_error(convert_checkpoint(tmp_path / "out").encode(x), msae.encode(x)) < 1e-5
    convert(tmp_path / "my-msae", "--output", tmp_path / "topk", "--to", "saelens", "--k", "4")
    assert json.loads((tmp_path / "topk" / "cfg.json").read_text())["k"] == 4


def test_flags_that_an_export_does_not_take_are_refused(tmp_path, msae):
    arguments = [tmp_path / "my-msae", "--output", tmp_path / "out", "--to", "saelens"]
    refuse("--soft_cap", *arguments, "--soft_cap", "3")
    refuse("--format", *arguments, "--format", "saelens")
    refuse("none", tmp_path / "none", "--output", tmp_path / "out", "--to", "saelens")


@pytest.mark.parametrize("before", [False, True])
def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch, before):
    output = tmp_path / "out"
    if before:
        convert(SAELENS / "topk", "--output", output)
    files = {path.name: path.read_bytes() for path in output.iterdir()} if before else None

    def full(*arguments, **settings):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(MSAEModel, "save_pretrained", full)
    refuse("No space left", SAELENS / "standard", "--output", output, "--overwrite")
    assert (files is None and not output.exists()) or {
        path.name: path.read_bytes() for path in output.iterdir()
    } == files
