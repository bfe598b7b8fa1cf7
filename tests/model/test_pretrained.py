"""A model is loaded completely or not at all, with an error that names the file and the problem."""

import json
import logging
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from hf_msae import MSAEConfig, MSAEModel
from hf_msae.hub.reading.opening import load_msae

LOADERS = [MSAEModel.from_pretrained, load_msae]  # AutoModel hands over to the first


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("saved")
    MSAEModel(MSAEConfig(d_in=16, num_latents=64, nesting_ks=[8, 64])).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "model")


def edit(folder, **fields):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | fields))


def change(folder, name, value):
    """One number of a tensor in the file becomes another."""
    tensors = load_file(folder / "model.safetensors")
    tensors[name].flatten()[-1:].fill_(value)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("load", LOADERS)
def test_truncated_weights_are_refused(folder, load):
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    for keep in (0, 7, 100, -1):
        weights.write_bytes(content[:keep])
        with pytest.raises(OSError, match=f"{folder}.*copy"):
            load(folder)


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"d_in": 8}, r"decoder.*\(64, 16\).*d_in=8"),
        ({"num_latents": 32, "nesting_ks": [8, 32]}, r"decoder.*\(64, 16\).*\(32, 16\)"),
        ({"tied": True}, "decoder.*tied=True"),
        ({"activation": "jump_relu"}, 'log_threshold.*"jump_relu"'),
    ],
)
def test_weights_of_another_config_are_refused_without_a_table(folder, load, fields, message, capfd):
    edit(folder, **fields)
    with pytest.raises(ValueError, match=message):
        load(folder)
    assert "LOAD REPORT" not in capfd.readouterr().err


@pytest.mark.parametrize("load", [*LOADERS, AutoModel.from_pretrained])
def test_a_missing_tensor_is_refused(saved, folder, load):
    model = MSAEModel.from_pretrained(saved)
    state = {name: tensor for name, tensor in model.state_dict().items() if name != "latent_bias"}
    model.save_pretrained(folder, state_dict=state)
    with pytest.raises(ValueError, match="latent_bias"):
        load(folder)


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("decoder", float("nan")),
        ("encoder", float("inf")),
        ("input_mean", float("nan")),
        ("input_scale", float("inf")),
        ("input_scale", 0.0),
        ("input_scale", -1.0),
    ],
)
def test_weights_that_are_not_finite_and_scales_that_are_not_positive_are_refused(folder, load, name, value):
    change(folder, name, value)
    with pytest.raises(ValueError, match=f"{folder}: {name} "):
        load(folder)


def test_thresholds_that_are_not_finite_are_refused(tmp_path):
    config = MSAEConfig(d_in=4, num_latents=8, activation="batch_topk", k=2, nesting="none")
    MSAEModel(config).save_pretrained(tmp_path)
    change(tmp_path, "activation_threshold", float("nan"))
    with pytest.raises(ValueError, match="activation_threshold"):
        MSAEModel.from_pretrained(tmp_path)


def test_weights_that_overflow_in_the_requested_dtype_are_refused(folder):
    change(folder, "encoder", 1e6)
    assert MSAEModel.from_pretrained(folder).encoder.max() == 1e6
    with pytest.raises(ValueError, match=r"encoder.*float16"):
        MSAEModel.from_pretrained(folder, dtype=torch.float16)


def test_a_git_lfs_pointer_is_recognized(folder):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "4d" * 32 + "\nsize 12345\n"
    (folder / "model.safetensors").write_text(pointer)
    with pytest.raises(OSError, match=rf"model\.safetensors.*{folder}.*git lfs pull"):
        MSAEModel.from_pretrained(folder)


@pytest.mark.parametrize("content", ["[]", "[1]", "{}", "3"])
def test_a_config_without_settings_is_refused(folder, content):
    (folder / "config.json").write_text(content)
    with pytest.raises(OSError, match=rf"{folder} has no config\.json with settings"):
        MSAEModel.from_pretrained(folder)


def test_arguments_of_transformers_have_their_effect(saved, folder):
    edit(folder, d_in=8)
    model = MSAEModel.from_pretrained(folder, ignore_mismatched_sizes=True)
    assert model.encoder.shape == (8, 64)
    state = MSAEModel.from_pretrained(saved).state_dict()
    assert (
        type(MSAEModel.from_pretrained(None, config=MSAEConfig.from_pretrained(saved), state_dict=state)) is MSAEModel
    )
    model, info = MSAEModel.from_pretrained(saved, output_loading_info=True)
    assert type(model) is MSAEModel and not any(info.values())


def test_weights_without_a_config_are_refused(folder):
    (folder / "config.json").unlink()
    for load in (MSAEModel.from_pretrained, load_msae):
        with pytest.raises(OSError, match=f"{folder}.*no config.json"):
            load(folder)


def test_a_tilde_is_the_home_folder(saved, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    MSAEModel.from_pretrained(saved).save_pretrained("~/model")
    assert (tmp_path / "model" / "config.json").is_file()
    assert MSAEModel.from_pretrained("~/model").config.d_in == MSAEModel.from_pretrained(saved).config.d_in


def test_models_in_subfolders_are_named(saved, tmp_path):
    for name in ("seed-1", "seed-1/checkpoint-9", "seed-2/best"):
        shutil.copytree(saved, tmp_path / name)
    (tmp_path / "empty").mkdir()
    with pytest.raises(OSError, match=rf"2 .*subfolder=.* seed-1, seed-2/best, .*{tmp_path}/seed-1$"):
        MSAEModel.from_pretrained(tmp_path)
    assert load_msae(tmp_path, subfolder="seed-2/best").config.d_in == 16


def test_checkpoints_of_a_sweep_that_has_not_ended_are_called_so(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "seed-1" / "checkpoint-9")
    with pytest.raises(OSError, match=r"has not ended.*resume_from_checkpoint last.* seed-1/checkpoint-9$"):
        MSAEModel.from_pretrained(tmp_path)


def test_a_mistyped_name_is_refused_with_the_nearest_one():
    with pytest.raises(OSError, match=r"'scenes-imge'.*'scenes-image'"):
        load_msae("scenes-imge")


def test_the_filter_of_the_logger_is_removed(saved, folder):
    before = list(logging.getLogger("transformers.modeling_utils").filters)
    edit(folder, d_in=8)
    with pytest.raises(ValueError, match="shape"):
        MSAEModel.from_pretrained(folder)
    MSAEModel.from_pretrained(saved)
    assert logging.getLogger("transformers.modeling_utils").filters == before


@pytest.mark.parametrize("load", LOADERS)
def test_the_file_of_the_weights_is_refused_with_the_name_of_its_folder(saved, load):
    with pytest.raises(OSError, match=rf"model\.safetensors is a file: name its folder, {saved}"):
        load(saved / "model.safetensors")
