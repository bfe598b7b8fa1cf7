"""A model is loaded whole or not at all, and the error says which file is wrong and how."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from hf_msae import MSAEConfig, MSAEModel
from hf_msae.hub.reading.opening import load_msae

LOADERS = [MSAEModel.from_pretrained, AutoModel.from_pretrained, load_msae]


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
@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_truncated_weights_are_refused(folder, load, keep):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    with pytest.raises(OSError, match=rf"weights of {folder} are damaged or incomplete .*: copy it again"):
        load(folder)


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"d_in": 8}, r"decoder has shape \(64, 16\), but config.json says d_in=8, num_latents=64, which needs"),
        ({"num_latents": 32, "nesting_ks": [8, 32]}, r"decoder has shape \(64, 16\), .* needs \(32, 16\)"),
        ({"tied": True}, "the weights also hold decoder, .* tied=True"),
        ({"activation": "jump_relu"}, 'the weights lack log_threshold, .* activation="jump_relu"'),
    ],
)
def test_weights_of_another_config_are_refused_without_a_table(folder, load, fields, message, capfd):
    edit(folder, **fields)
    with pytest.raises(ValueError, match=message):
        load(folder)
    assert "LOAD REPORT" not in capfd.readouterr().err


@pytest.mark.parametrize("load", LOADERS)
def test_a_missing_tensor_is_refused(saved, folder, load):
    model = MSAEModel.from_pretrained(saved)
    state = {name: tensor for name, tensor in model.state_dict().items() if name != "latent_bias"}
    model.save_pretrained(folder, state_dict=state)
    with pytest.raises(ValueError, match="the weights lack latent_bias"):
        load(folder)


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize("name", ["decoder", "encoder", "pre_bias", "input_mean", "input_scale"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(folder, load, name, value):
    change(folder, name, value)
    with pytest.raises(ValueError, match=rf"{folder}: {name} holds NaN or infinite values as float32"):
        load(folder)


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize("value", [0.0, -1.0])
def test_a_scale_that_is_not_positive_is_refused(folder, load, value):
    change(folder, "input_scale", value)
    with pytest.raises(ValueError, match=rf"{folder}: input_scale is {value:g}"):
        load(folder)


def test_thresholds_that_are_not_finite_are_refused(tmp_path):
    config = MSAEConfig(d_in=4, num_latents=8, activation="batch_topk", k=2, nesting="none")
    MSAEModel(config).save_pretrained(tmp_path)
    change(tmp_path, "activation_threshold", float("nan"))
    with pytest.raises(ValueError, match="activation_threshold holds NaN"):
        MSAEModel.from_pretrained(tmp_path)


def test_weights_that_overflow_in_the_dtype_they_are_asked_in_are_refused(folder):
    change(folder, "encoder", 1e6)
    assert MSAEModel.from_pretrained(folder).encoder.max() == 1e6
    with pytest.raises(ValueError, match="encoder holds NaN or infinite values as float16"):
        MSAEModel.from_pretrained(folder, dtype=torch.float16)


def test_a_pointer_of_git_lfs_is_said_to_be_one(folder):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "4d" * 32 + "\nsize 12345\n"
    (folder / "model.safetensors").write_text(pointer)
    with pytest.raises(OSError, match=rf"model\.safetensors of {folder} is only a pointer of Git LFS.*git lfs pull"):
        MSAEModel.from_pretrained(folder)


@pytest.mark.parametrize(("content", "kind"), [("[]", r"\[\]"), ("[1]", "list"), ("{}", r"\{\}"), ("3", "int")])
def test_a_config_that_holds_no_settings_is_said_to(folder, content, kind):
    (folder / "config.json").write_text(content)
    with pytest.raises(ValueError, match=rf"config\.json holds {kind}"):
        MSAEModel.from_pretrained(folder)


def test_what_was_asked_of_transformers_is_as_transformers_does_it(saved, folder):
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


def test_a_newer_schema_is_refused(folder):
    edit(folder, schema_version=99)
    with pytest.raises(ValueError, match="was written by a newer hf_msae"):
        MSAEModel.from_pretrained(folder)


def test_models_in_subfolders_are_named(saved, tmp_path):
    for name in ("seed-1", "seed-2/best"):
        shutil.copytree(saved, tmp_path / name)
    (tmp_path / "empty").mkdir()
    with pytest.raises(OSError, match=r"no model at its root, but 2 in subfolders: .* seed-1, seed-2/best"):
        MSAEModel.from_pretrained(tmp_path)
    assert load_msae(tmp_path, subfolder="seed-2/best").config.d_in == 16


def test_a_mistyped_name_is_told_what_is_like_it():
    with pytest.raises(OSError, match=r"'scenes-imge'.*did you mean 'scenes-image'"):
        load_msae("scenes-imge")


def test_the_filter_on_the_loggers_does_not_stay(saved, folder):
    import logging

    before = list(logging.getLogger("transformers.modeling_utils").filters)
    edit(folder, d_in=8)
    with pytest.raises(ValueError, match="shape"):
        MSAEModel.from_pretrained(folder)
    MSAEModel.from_pretrained(saved)
    assert logging.getLogger("transformers.modeling_utils").filters == before
