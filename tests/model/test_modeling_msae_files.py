"""MSAEModel on disk: what is saved comes back, in every way transformers can load it, and in silence."""

import copy
import json
import warnings

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel
from transformers.utils import logging as transformers_logging

from hf_msae import MSAEConfig, MSAEModel
from tests.fuzzing import check_every_field

D, N = 24, 64
STATISTICS = ("input_mean", "input_scale")


def trained(**settings):
    """A model whose every number differs from a new model's."""
    torch.manual_seed(3)
    model = MSAEModel(MSAEConfig(**{"d_in": D, "num_latents": N, "nesting_ks": [4, 16, 64], **settings}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    model.set_input_statistics(torch.randn(D) + 100, 0.123456789)
    return model


@pytest.fixture(scope="module")
def model():
    return trained(k=16, base_model_name_or_path="some/siglip", hook_point="text_embeds")


@pytest.fixture
def folder(model, tmp_path):
    model.save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture
def silent(capfd):
    """Fails the test if a warning is raised or anything is logged or printed; progress bars are switched off."""
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
    finally:
        transformers_logging.enable_progress_bar()
    assert capfd.readouterr() == ("", "")


def assert_same(actual, expected):
    actual, expected = actual.state_dict(), expected.state_dict()
    assert list(actual) == list(expected)
    for name, tensor in expected.items():
        assert actual[name].dtype == tensor.dtype, name
        assert torch.equal(actual[name], tensor), name


def load_clean(load, *args, **kwargs):
    model, info = load(*args, output_loading_info=True, **kwargs)
    assert not any(info.values()), info
    assert type(model) is MSAEModel
    assert not model.training
    return model


@pytest.mark.parametrize("load", [MSAEModel.from_pretrained, AutoModel.from_pretrained])
@pytest.mark.parametrize(
    "settings", [{}, {"tied": True}, {"soft_cap": 2.5}, {"nesting": "none", "nesting_ks": None, "tied": True}]
)
def test_round_trip(tmp_path, silent, load, settings):
    model = trained(**settings)
    model.save_pretrained(tmp_path)
    loaded = load_clean(load, tmp_path)
    assert_same(loaded, model)
    assert loaded.config == model.config
    x = 100 + torch.randn(5, D)
    before, after = model(x, return_loss=True, output_nested=True), loaded(x, return_loss=True, output_nested=True)
    assert torch.equal(after.loss, before.loss)
    assert torch.equal(after.reconstruction, before.reconstruction)
    assert torch.equal(after.latents, before.latents)
    loaded.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (tmp_path / "model.safetensors").read_bytes()


def test_what_is_in_the_folder(folder):
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    with safe_open(folder / "model.safetensors", "pt") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}
    assert shapes == {
        **{"encoder": [D, N], "decoder": [N, D], "latent_bias": [N]},
        **{"pre_bias": [D], "input_mean": [D], "input_scale": []},
    }
    stored = json.loads((folder / "config.json").read_text())
    assert stored["architectures"] == ["MSAEModel"]
    assert stored["base_model_name_or_path"] == "some/siglip"


def test_shards(model, tmp_path, silent):
    model.save_pretrained(tmp_path, max_shard_size="8KB")
    assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) >= 2
    assert not (tmp_path / "model.safetensors").exists()
    assert_same(load_clean(MSAEModel.from_pretrained, tmp_path), model)
    assert_same(load_clean(AutoModel.from_pretrained, tmp_path, device_map="cpu"), model)


def test_subfolder(model, tmp_path, silent):
    model.save_pretrained(tmp_path / "vision.layers.11")
    assert_same(load_clean(MSAEModel.from_pretrained, tmp_path, subfolder="vision.layers.11"), model)
    assert_same(load_clean(AutoModel.from_pretrained, tmp_path, subfolder="vision.layers.11"), model)
    assert AutoConfig.from_pretrained(tmp_path, subfolder="vision.layers.11") == model.config


@pytest.mark.parametrize("device_map", ["cpu", "auto", {"": "cpu"}])
def test_device_map(model, folder, silent, device_map):
    if device_map == "auto" and torch.cuda.is_available():
        pytest.skip('"auto" is another device here')
    assert_same(load_clean(MSAEModel.from_pretrained, folder, device_map=device_map), model)


@pytest.mark.parametrize("load", [MSAEModel.from_pretrained, AutoModel.from_pretrained])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_the_statistics(model, folder, silent, load, dtype):
    loaded = load_clean(load, folder, dtype=dtype)
    for name, tensor in model.state_dict().items():
        expected = tensor if name in STATISTICS else tensor.to(dtype)
        assert loaded.state_dict()[name].dtype == expected.dtype, name
        assert torch.equal(loaded.state_dict()[name], expected), name
    loaded.save_pretrained(folder / "half")
    again = load_clean(load, folder / "half")  # "auto": as saved
    assert again.dtype == dtype
    assert_same(again, loaded)


def test_float64(model, folder, silent):
    loaded = load_clean(MSAEModel.from_pretrained, folder, dtype=torch.float64)
    assert {tensor.dtype for tensor in loaded.state_dict().values()} == {torch.float64}
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor.double())
    loaded.set_input_statistics(torch.full((D,), 1 / 3, dtype=torch.float64), 1 / 7)
    loaded.save_pretrained(folder / "double")
    again = load_clean(MSAEModel.from_pretrained, folder / "double")
    assert_same(again, loaded)
    assert again.input_scale.item() == 1 / 7


def test_new_models_in_half_precision_have_exact_statistics():
    model = AutoModel.from_config(MSAEConfig(d_in=D, num_latents=N), dtype=torch.bfloat16)
    assert model.encoder.dtype == torch.bfloat16
    assert model.input_mean.dtype == model.input_scale.dtype == torch.float32


def test_meta_device(model, folder, monkeypatch):
    monkeypatch.delenv("HF_DEACTIVATE_ASYNC_LOAD")  # weights read in this thread would be on that device, too
    with torch.device("meta"):
        empty = MSAEModel(model.config)
    assert {tensor.device.type for tensor in empty.state_dict().values()} == {"meta"}
    empty.load_state_dict(model.state_dict(), assign=True)
    assert_same(empty, model)
    with torch.device("meta"):
        loaded = MSAEModel.from_pretrained(folder, device_map="cpu")
    assert_same(loaded, model)


def test_initializing_again_leaves_loaded_weights_alone(model, folder):
    """What from_pretrained and `apply` may do at any time; only flags on the tensors stand in the way."""
    loaded = MSAEModel.from_pretrained(folder)
    loaded._is_hf_initialized = False
    loaded._init_weights(loaded)
    assert_same(loaded, model)


@pytest.mark.parametrize("missing", ["decoder", "encoder", "input_scale", "latent_bias"])
def test_a_missing_tensor_is_reported_and_initialized_alone(model, tmp_path, missing):
    state = {name: tensor for name, tensor in model.state_dict().items() if name != missing}
    model.save_pretrained(tmp_path, state_dict=state)
    loaded, info = MSAEModel.from_pretrained(tmp_path, output_loading_info=True)
    assert info["missing_keys"] == {missing}
    for name, tensor in state.items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    assert torch.isfinite(loaded.state_dict()[missing]).all()


def test_config_fields_can_be_overridden_on_load(model, folder):
    x = 100 + torch.randn(5, D)
    for load in (MSAEModel.from_pretrained, AutoModel.from_pretrained):
        loaded = load(folder, k=3, soft_cap=5)
        assert (loaded.config.k, loaded.config.soft_cap) == (3, 5.0)
        assert (loaded.encode(x) > 0).sum(-1).max() == 3
        with pytest.raises(ValueError, match=r"k given .*config"):
            load(folder, config=model.config, k=3)


def test_an_index_of_another_form_is_named(tmp_path):
    MSAEModel(MSAEConfig(d_in=64, num_latents=128)).save_pretrained(tmp_path / "run", max_shard_size="20KB")
    index = tmp_path / "run" / "model.safetensors.index.json"
    check_every_field(index, lambda: MSAEModel.from_pretrained(tmp_path / "run"))
    content = json.loads(index.read_text())
    (tmp_path / "run" / content["weight_map"]["encoder"]).rename(tmp_path / "elsewhere.safetensors")
    content["weight_map"]["encoder"] = "../elsewhere.safetensors"
    index.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"index\.json: encoder is in '\.\./elsewhere\.safetensors'"):
        MSAEModel.from_pretrained(tmp_path / "run")


def test_thresholds_stay_exact_in_half_precision(tmp_path):
    torch.manual_seed(0)
    config = MSAEConfig(d_in=D, num_latents=N, activation="jump_relu", nesting="none", jump_relu_threshold=0.3)
    model = MSAEModel(config)
    with torch.no_grad():
        model.log_threshold.add_(torch.randn(N))
    model.save_pretrained(tmp_path)
    for half in (MSAEModel.from_pretrained(tmp_path, dtype=torch.bfloat16), copy.deepcopy(model).bfloat16()):
        assert half.encoder.dtype == torch.bfloat16
        assert torch.equal(half.log_threshold, model.log_threshold)
        assert half.encode(torch.randn(3, D).bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod."])
def test_prefixes_of_wrappers_are_stripped(model, tmp_path, silent, prefix):
    model.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    save_file({prefix + name: tensor for name, tensor in load_file(weights).items()}, weights, {"format": "pt"})
    loaded = MSAEModel.from_pretrained(tmp_path)
    assert_same(loaded, model)
    loaded.save_pretrained(tmp_path / "again")
    assert load_file(tmp_path / "again" / "model.safetensors").keys() == model.state_dict().keys()


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        *(
            ("encoder", lambda weight, dtype=dtype: weight.to(dtype), r"model\.safetensors: encoder holds ")
            for dtype in (torch.bool, torch.int64, torch.uint8, torch.complex64)
        ),
        *((name, torch.zeros_like, f"{name} holds nothing but zeros") for name in ("encoder", "decoder")),
    ],
)
def test_weights_of_another_kind_and_of_zeros_are_refused(model, tmp_path, name, change, said):
    model.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    save_file(load_file(weights) | {name: change(getattr(model, name).detach())}, weights, {"format": "pt"})
    with pytest.raises(ValueError, match=said):
        MSAEModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin"])
def test_a_pickle_is_refused_by_name_and_its_way_out_works(model, tmp_path, monkeypatch, name):
    model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / name)
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("the pickle was opened"))
    with pytest.raises(OSError, match=rf"{name}.*model\.safetensors.*hf-msae convert"):
        MSAEModel.from_pretrained(tmp_path)
    monkeypatch.undo()
    save_file(load(tmp_path / name, weights_only=True), tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert_same(MSAEModel.from_pretrained(tmp_path), model)


def test_weights_can_be_read_by_whom_the_config_can(model, tmp_path):
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_mode == (tmp_path / "config.json").stat().st_mode


def test_prefixed_weights_are_checked_too(tmp_path):
    msae = MSAEModel(MSAEConfig(d_in=4, num_latents=8))
    msae.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["encoder"]
    save_file({f"module.{name}": tensor for name, tensor in tensors.items()}, tmp_path / "model.safetensors")
    with pytest.raises((OSError, ValueError), match="encoder"):
        MSAEModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("arguments", [{}, {"max_shard_size": "2KB"}, {"variant": "fp16"}], ids=str)
def test_only_the_files_of_the_model_are_checked(tmp_path, arguments):
    model = MSAEModel(MSAEConfig(d_in=16, num_latents=32))
    model.save_pretrained(tmp_path, **arguments)
    own = sorted(tmp_path.glob("*.safetensors"))
    assert len(own) == (3 if "max_shard_size" in arguments else 1)
    save_file({"ids": torch.arange(3)}, tmp_path / "another.safetensors")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    variant = {name: value for name, value in arguments.items() if name == "variant"}
    assert_same(MSAEModel.from_pretrained(tmp_path, **variant), model)

    save_file({name: tensor.int() for name, tensor in load_file(own[-1]).items()}, own[-1], {"format": "pt"})
    with pytest.raises(ValueError, match=rf"{own[-1].name}: \w+ holds I32"):
        MSAEModel.from_pretrained(tmp_path, **variant)
    for file in own:
        file.unlink()
    with pytest.raises((OSError, ValueError), match=r"pytorch_model\.bin|does not exist"):
        MSAEModel.from_pretrained(tmp_path, **variant)
