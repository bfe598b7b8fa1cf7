"""The MSAE authors' checkpoints, against what their own code computed (golden/) and against their code's equations."""

import pickle
import shutil
from typing import ClassVar

import numpy as np
import pytest
import torch

from hf_msae.hub.converters import convert_checkpoint, read_checkpoint
from hf_msae.hub.converters.msae_authors import level_ks

NAME = "256_32_TopKReLU_8_UW_False_False_0.0_small_train_image_96_32.pth"
TOLERANCE = 1e-4
D, N = 6, 20


@pytest.fixture(scope="module")
def golden_file(golden_tensors, golden_figures, tmp_path_factory):
    """The golden model in their format: as their train.py saves one, with a numpy number in it."""
    state = {name.removeprefix("weights."): t for name, t in golden_tensors.items() if name.startswith("weights.")}
    state["latents_activation_frequency"] = torch.zeros(256, dtype=torch.int64)
    content = {
        "model": state,
        "mean_center": golden_tensors["mean"],
        "scaling_factor": golden_figures["scaling_factor"],
        "target_norm": np.sqrt(32),
    }
    path = tmp_path_factory.mktemp("golden") / NAME
    torch.save(content, path)
    return path


def write(path, tied=False, log_threshold=None, scaling_factor=0.3, **changes):
    """A random checkpoint of theirs."""
    torch.manual_seed(0)
    state = {"pre_bias": torch.randn(D), "encoder": torch.randn(D, N), "latent_bias": torch.randn(N)}
    if not tied:
        state["decoder"] = torch.randn(N, D)
    if log_threshold is not None:
        state |= {"activation.log_threshold": log_threshold, "dead_activations.log_threshold": log_threshold}
    content = {"model": {**state, **changes}, "mean_center": torch.randn(D), "scaling_factor": scaling_factor}
    torch.save({**content, "target_norm": None}, path)
    return content


def test_the_golden_model_is_reproduced_at_every_level(golden_file, golden_tensors, golden_figures, relative_error):
    model = convert_checkpoint(golden_file)
    assert model.config.nesting_ks == golden_figures["nesting_ks"]
    assert (model.config.activation, model.config.nesting) == ("relu", "topk")
    x, scale, mean = golden_tensors["x_raw"], golden_figures["scaling_factor"], golden_tensors["mean"]
    assert torch.equal(model.input_mean, mean) and model.input_scale == torch.tensor(scale)  # as they are
    code = model.encode(x)
    assert relative_error(code, golden_tensors["latents_full"]) < TOLERANCE
    decoded = (model.decode(code) - mean) * scale
    assert relative_error(decoded, golden_tensors["reconstruction_full"]) < TOLERANCE
    levels = model(x, output_nested=True).nested_reconstructions
    for k, level in zip(golden_figures["nesting_ks"], levels, strict=True):
        assert relative_error(model.encode(x, k=k), golden_tensors[f"latents_k{k}"]) < TOLERANCE
        assert relative_error((level - mean) * scale, golden_tensors[f"reconstruction_k{k}"]) < TOLERANCE


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("20_6_TopKReLU_4_UW_False_False_0.0_x_train_image_9_6.pth",
         {"activation": "relu", "nesting_ks": [4, 8, 16, 20], "nesting_weights": "uniform", "soft_cap": None}),
        ("20_6_TopKReLU_5_RW_False_False_30.0_x_train_text_9_6.pth",
         {"nesting_ks": [5, 10, 20], "nesting_weights": "reverse", "soft_cap": 30.0, "hook_point": "text_embeds"}),
        ("20_6_TopKReLU_4_False_False_0.0_x_image.pth", {"activation": "topk", "k": 4, "nesting": "none"}),
        ("20_6_ReLU_003_False_False_0.0_x_image.pth",
         {"activation": "relu", "sparsity_coefficient": 0.003, "nesting": "none", "hook_point": "image_embeds"}),
        ("20_6_ReLU_False_False_0.0_x_image.pt", {"activation": "relu", "sparsity_coefficient": 0.0}),
        ("20_6_BatchTopKReLU_4_UW_False_False_0.0_x_image.pth", {"activation": "relu", "nesting_ks": [4, 8, 16, 20]}),
    ],
)  # fmt: skip
def test_the_name_says_what_it_is(name, expected, tmp_path):
    write(tmp_path / name)
    config = convert_checkpoint(tmp_path / name).config
    assert {key: getattr(config, key) for key in expected} == expected


def test_levels_are_made_as_their_training_makes_them():
    """Their loop, for comparison: double while it is not above the largest, and append that if it is not there."""
    for n in range(1, 80):
        for smallest in range(1, n + 1):
            theirs = [smallest]
            while theirs[-1] < n and theirs[-1] * 2 <= n:
                theirs.append(theirs[-1] * 2)
            theirs += [] if n in theirs else [n]
            assert level_ks(smallest, n) == theirs, (smallest, n)


def test_a_tied_and_capped_model_computes_what_their_equations_say(tmp_path, relative_error):
    path = tmp_path / "20_6_TopKReLU_4_UW_True_False_2.0_x_train_image_9_6.pth"
    content = write(path, tied=True)
    model, w = convert_checkpoint(path), content["model"]
    x = torch.randn(30, D)
    u = (x - content["mean_center"]) * 0.3
    code = 2.0 * torch.tanh(torch.relu((u - w["pre_bias"]) @ w["encoder"] + w["latent_bias"]) / 2.0)
    decoded = (code @ w["encoder"].T + w["pre_bias"]) / 0.3 + content["mean_center"]
    assert model.config.tied and relative_error(model.encode(x), code) < TOLERANCE
    assert relative_error(model.decode(code), decoded) < TOLERANCE


def test_thresholds_of_jump_relu_are_kept(tmp_path, relative_error):
    path = tmp_path / "20_6_JumpReLU_False_False_0.0_x_train_image_9_6.pth"
    log_threshold = torch.linspace(-1, 1, N)
    content = write(path, log_threshold=log_threshold)
    model, w = convert_checkpoint(path), content["model"]
    x = torch.randn(50, D)
    p = ((x - content["mean_center"]) * 0.3 - w["pre_bias"]) @ w["encoder"] + w["latent_bias"]
    assert model.config.activation == "jump_relu"
    assert relative_error(model.encode(x), p * (p > log_threshold.exp())) < TOLERANCE


@pytest.mark.parametrize(
    ("dataset", "d", "backbone", "note"),
    [
        ("cc3m_ViT-L~14_train_image_2905936_768", 768, "openai/clip-vit-large-patch14", None),
        ("cc3m_ViT-B~16_train_text_2905936_512", 512, "openai/clip-vit-base-patch16", None),
        ("imagenet_ViT-B~32_train_image_1281167_512", 512, "openai/clip-vit-base-patch32", None),
        ("cc3m_RN50_train_image_2905936_1024", 1024, None, "RN50"),
        ("cc3m_ViT-L~14_train_image_2905936_512", 512, None, "768 wide, but these 512"),
        ("mine_train", 512, None, "image_embeds"),
    ],
)
def test_the_data_sets_name_says_which_backbone(dataset, d, backbone, note, tmp_path):
    path = tmp_path / f"8_{d}_ReLU_False_False_0.0_{dataset}.pth"
    state = {"pre_bias": torch.zeros(d), "encoder": torch.zeros(d, 8), "latent_bias": torch.zeros(8)}
    state["decoder"] = torch.zeros(8, d)
    torch.save({"model": state, "mean_center": torch.zeros(d), "scaling_factor": 1.0}, path)
    found = read_checkpoint(path)
    config = found.to_model().config
    assert config.base_model_name_or_path == backbone
    assert config.hook_point == ("text_embeds" if "text" in dataset else "image_embeds")
    assert note is None or any(note in each for each in found.notes)
    if note is not None:  # what was said need not be said again
        assert not read_checkpoint(path, base_model_name_or_path="a/b", hook_point="image_embeds").notes


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("20_6_TopKReLU_4_UW_False_True_0.0_x_image.pth", "normalize=True"),
        ("20_6_TopK_4_False_False_0.0_x_image.pth", "TopK, .*negative"),
        ("20_6_TopKabsReLU_4_UW_False_False_0.0_x_image.pth", "TopKabsReLU"),
        ("20_6_BatchTopKReLU_4_False_False_0.0_x_image.pth", "BatchTopKReLU.*threshold.*activation=topk"),
        ("20_6_TopKReLU_False_False_0.0_x_image.pth", "TopKReLU.* k$"),
        ("20_6_JumpReLU_False_False_0.0_x_image.pth", "JumpReLU.*no threshold"),
        ("24_6_ReLU_False_False_0.0_x_image.pth", "24 latents of 6 inputs, tied=False.*20"),
        ("20_6_ReLU_True_False_0.0_x_image.pth", "tied=True.*20 of 6, tied=False"),
    ],
)
def test_a_name_that_does_not_fit_is_refused(name, message, tmp_path):
    write(tmp_path / name)
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(tmp_path / name)


def test_a_choice_makes_a_batch_topk_readable(tmp_path):
    path = tmp_path / "20_6_BatchTopKReLU_4_False_False_0.0_x_image.pth"
    write(path)
    topk, relu = (convert_checkpoint(path, activation=each) for each in ("topk", "relu"))
    x = torch.randn(30, D)
    assert topk.config.k == 4 and (topk.encode(x) > 0).sum(1).max() == 4
    assert relu.config.k is None and (relu.encode(x) > 0).sum(1).max() > 4


def test_under_another_name_flags_tell_what_it_is(golden_file, golden_tensors, tmp_path, relative_error):
    path = shutil.copy(golden_file, tmp_path / "model.pth")
    with pytest.raises(ValueError, match="activation=relu with nesting_ks"):
        convert_checkpoint(path)
    model = convert_checkpoint(path, activation="relu", nesting_ks=[8, 256], base_model_name_or_path="a/b")
    assert relative_error(model.encode(golden_tensors["x_raw"]), golden_tensors["latents_full"]) < TOLERANCE
    assert (model.config.nesting, model.config.nesting_ks) == ("topk", [8, 256])
    assert model.config.base_model_name_or_path == "a/b"
    assert convert_checkpoint(path, activation="topk", k=16).config.nesting == "none"


def test_flags_beat_the_name(golden_file):
    config = convert_checkpoint(golden_file, nesting_ks=[16, 256], hook_point="text_embeds").config
    assert config.nesting_ks == [16, 256] and config.hook_point == "text_embeds"
    with pytest.raises(ValueError, match=r"num_latents=64.*256"):
        convert_checkpoint(golden_file, num_latents=64)
    with pytest.raises(ValueError, match=r"hook_pont.*hook_point"):
        convert_checkpoint(golden_file, hook_pont="text_embeds")


class NumpyOfVersion(pickle._Pickler):
    """Pickles numpy's numbers by the module name of numpy 1 or 2, whichever is installed."""

    module = "numpy.core.multiarray"

    def save_global(self, obj, name=None):
        if getattr(obj, "__name__", "") == "scalar":
            self.write(pickle.GLOBAL + f"{self.module}\nscalar\n".encode())
            return self.memoize(obj)
        return super().save_global(obj, name)

    dispatch: ClassVar = {
        **pickle._Pickler.dispatch,
        type(np.float64(0).__reduce__()[0]): save_global,
        type: save_global,
    }


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_numbers_of_numpy_1_and_2_are_read(module, tmp_path, monkeypatch):
    monkeypatch.setattr(NumpyOfVersion, "module", module)

    class Pickling:
        Pickler, dumps, HIGHEST_PROTOCOL = NumpyOfVersion, pickle.dumps, 2

    path = tmp_path / "20_6_ReLU_False_False_0.0_x_image.pth"
    content = write(path, scaling_factor=np.float64(0.3))
    torch.save(content, path, pickle_module=Pickling)
    assert f"c{module}\nscalar\n".encode() in path.read_bytes()
    assert convert_checkpoint(path).input_scale == torch.tensor(0.3)


def test_of_several_one_has_to_be_named(golden_file, tmp_path):
    for folder in ("centered", "not_centered"):
        (tmp_path / folder).mkdir()
        shutil.copy(golden_file, tmp_path / folder / NAME)
    with pytest.raises(ValueError, match=f"2.*subfolder: centered/{NAME}, not_cent"):
        convert_checkpoint(tmp_path)
    assert convert_checkpoint(tmp_path, subfolder="centered").config.num_latents == 256
    assert convert_checkpoint(tmp_path, subfolder=f"centered/{NAME}").config.num_latents == 256


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean_center": torch.zeros(1, D)}, r"mean_center of .*\(1, 6\).*\(6,\)"),
        ({"mean_center": None}, "mean_center of .* None.*number"),
        ({"mean_center": torch.full((D,), torch.nan)}, "mean_center of .*NaN"),
        ({"scaling_factor": torch.ones(D)}, r"scaling_factor of .*\(6,\).*number"),
        ({"scaling_factor": float("inf")}, "scaling_factor of .* inf"),
        ({"std": torch.ones(D)}, "also has std"),
        ({"model": torch.ones(D, N)}, "Tensor"),
    ],
)
def test_statistics_that_do_not_fit_are_refused(change, message, tmp_path):
    path = tmp_path / "20_6_ReLU_False_False_0.0_x_image.pth"
    torch.save({**write(path), **change}, path)
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder": torch.ones(N, D), "decoder": torch.ones(D, N)}, r"pre_bias of .*\(6,\).*\(20,\)"),
        ({"encoder": torch.full((D, N), 1e300, dtype=torch.float64)}, "encoder of .*float32.*NaN or infinite"),
        ({"dead_activations.log_threshold": torch.ones(N)}, r"is not its activation\.log_threshold"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(change, message, tmp_path):
    path = tmp_path / "20_6_ReLU_False_False_0.0_x_image.pth"
    write(path, **change)
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(path)


def test_a_mean_that_is_one_number_is_that_of_every_column(tmp_path):
    path = tmp_path / "20_6_ReLU_False_False_0.0_x_image.pth"
    torch.save({**write(path), "mean_center": 0.0}, path)
    assert torch.equal(convert_checkpoint(path).input_mean, torch.zeros(D))
