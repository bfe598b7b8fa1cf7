"""SAELens: checkpoints that sae-lens 6.54.12 wrote (foreign/saelens/write_saelens.py), and exports for it."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from hf_msae import MSAEConfig, MSAEModel
from hf_msae.hub.converters import convert_checkpoint
from hf_msae.hub.converters.saelens_export import export_saelens
from tests.hub.converters.conftest import FOREIGN
from tests.hub.converters.foreign.saelens.check_saelens_export import KINDS, check, inputs, make

WRITTEN = FOREIGN / "saelens"
CLIP = "openai/clip-vit-base-patch32"
CHECKPOINTS = {  # folder -> (activation, k, block of the hook point)
    "standard": ("relu", None, 9),
    "standard_b_dec_not_applied": ("relu", None, 9),
    "topk": ("topk", 5, 9),
    "topk_rescaled": ("topk", 5, 9),
    "jumprelu": ("jump_relu", None, 9),
    "gated": ("jump_relu", None, 9),
    "gated_b_dec_not_applied": ("jump_relu", None, 9),
    "batchtopk": ("batch_topk", 4, 9),
    "matryoshka_batchtopk": ("batch_topk", 4, 9),
    "matryoshka_final": ("jump_relu", None, 9),
    "old_standard": ("relu", None, 8),  # of hook_resid_pre of block 9
    "old_topk": ("topk", 5, 8),
    "old_b_dec_not_applied": ("relu", None, 8),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_it_computes_what_sae_lens_does(name, check_outputs):
    model = convert_checkpoint(WRITTEN / name)
    check_outputs(model, f"saelens/{name}")
    config, (activation, k, block) = model.config, CHECKPOINTS[name]
    assert (config.activation, config.k, config.hook_point) == (activation, k, f"vision.layers.{block}")
    assert config.base_model_name_or_path == CLIP
    assert config.nesting_widths == ([6, 12, 24] if name.startswith("matryoshka") else None)


def test_a_scale_that_is_not_stored_has_to_be_given(check_outputs, changed):
    name = "saelens/scaled_by_0.25"
    with pytest.raises(ValueError, match="input_scale"):
        convert_checkpoint(FOREIGN / name)
    model = convert_checkpoint(FOREIGN / name, input_scale=0.25)
    check_outputs(model, name)
    assert model.input_scale == 0.25
    copy = changed(name)
    (copy / "activation_scaler.json").write_text(json.dumps({"scaling_factor": 0.25, "has_whitening": False}))
    check_outputs(convert_checkpoint(copy), name)


@pytest.mark.parametrize("file", ["sae_weights.safetensors", "cfg.json"])
def test_a_file_stands_for_its_folder(file, check_outputs):
    check_outputs(convert_checkpoint(WRITTEN / "topk" / file), "saelens/topk")


def test_one_of_several_has_to_be_named(check_outputs, tmp_path):
    with pytest.raises(ValueError, match=r"14.*subfolder: batchtopk, gated, "):
        convert_checkpoint(WRITTEN)
    check_outputs(convert_checkpoint(WRITTEN, subfolder="gated"), "saelens/gated")
    shutil.copytree(WRITTEN / "jumprelu", tmp_path / "blocks.9.hook_resid_post")
    check_outputs(convert_checkpoint(tmp_path), "saelens/jumprelu")  # the only one below


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("standard", {"normalize_activations": "layer_norm"}, "layer_norm.*standardizes"),
        ("standard", {"normalize_activations": "constant_norm_rescale"}, "constant_norm_rescale.*same length"),
        ("standard", {"normalize_activations": "covariance_whitening"}, "covariance_whitening.*end of training"),
        ("standard", {"architecture": "transcoder", "d_out": 8}, "transcoder.*other embeddings"),
        ("standard", {"architecture": "abstopk", "k": 4}, "abstopk.*negative"),
        ("standard", {"architecture": "crosscoder"}, "crosscoder.*standard, topk, jumprelu"),
        ("standard", {"d_out": 12}, "d_in=8.*d_out=12"),
        ("standard", {"reshape_activations": "hook_z"}, "hook_z.*heads"),
        ("old_standard", {"hook_point": "blocks.9.attn.hook_z"}, "hook_z.*heads"),
        ("standard", {"activation_fn": "tanh-relu"}, "tanh-relu.*relu, topk"),
        ("standard", {"finetuning_scaling_factor": True}, "finetuning_scaling_factor.*no such tensor"),
        ("topk", {"k": None}, "k of .*missing"),
        ("topk", {"k": 3.7}, r"k of .* 3\.7.*whole number"),
        ("batchtopk", {"k": -1}, "k of .* -1.*above 0"),
        ("standard", {"apply_b_dec_to_input": "false"}, "apply_b_dec_to_input of .* 'false'.*true or false"),
        ("standard", {"architecture": ["standard"]}, r"architecture of .* \['standard'\].*text"),
        ("matryoshka_batchtopk", {"matryoshka_widths": "6, 12"}, "matryoshka_widths of .* '6'"),
        ("standard", {"metadata": ["x"]}, r"metadata of .* \['x'\]"),
    ],
)
def test_settings_that_no_msae_has_are_refused(name, settings, message, changed):
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(changed(f"saelens/{name}", settings))


@pytest.mark.parametrize(
    ("name", "tensors", "message"),
    [
        ("jumprelu", {"threshold": torch.ones(1)}, r"threshold of .*\(1,\).*\(24,\)"),
        ("jumprelu", {"log_threshold": torch.ones(24)}, "both threshold and log_threshold"),
        ("batchtopk", {"topk_threshold": torch.tensor(torch.nan)}, "topk_threshold of .*NaN"),
        ("standard", {"b_enc": torch.ones(24, dtype=torch.int8)}, "b_enc of .*int8.*floating-point"),
        ("standard", {"finetuning_scaling_factor": torch.ones(24), "scaling_factor": torch.ones(24)}, "holds both"),
        ("standard", {"scaling_factor": torch.linspace(0.5, 2, 24)}, r"scaling_factor that is not 1.*cfg\.json"),
        ("standard", {"W_skip": torch.eye(8)}, "also has W_skip"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(name, tensors, message, changed):
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(changed(f"saelens/{name}", tensors=tensors))


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"hook_name": "blocks.9.hook_mlp_out", "model_name": CLIP}, f"hook_mlp_out in {CLIP}.*hook_point="),
        ({"hook_name": "blocks.0.hook_resid_pre", "model_name": CLIP}, f"hook_resid_pre in {CLIP}.*hook_point="),
        ({"hook_name": "blocks.9.hook_resid_post"}, "unnamed model.*hook_point="),
        ({"model_name": CLIP}, f"unnamed place in {CLIP}.*hook_point="),
    ],
)
def test_places_without_a_name_here_have_to_be_given(metadata, message, changed):
    folder = changed("saelens/standard", {"metadata": metadata})
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(folder)
    config = convert_checkpoint(folder, hook_point="vision.layers.9").config
    assert (config.hook_point, config.base_model_name_or_path) == ("vision.layers.9", metadata.get("model_name"))


def test_a_finetuned_factor_scales_the_decoder(changed, relative_error, check_outputs):
    factor, name = torch.linspace(0.5, 2, 24), "saelens/standard"
    tuned = changed(name, {"finetuning_scaling_factor": True}, {"finetuning_scaling_factor": factor})
    plain = convert_checkpoint(FOREIGN / name)
    assert relative_error(convert_checkpoint(tuned).decoder, plain.decoder * factor[:, None]) < 1e-7
    unused = changed("saelens/topk", tensors={"scaling_factor": torch.ones(24)})
    check_outputs(convert_checkpoint(unused), "saelens/topk")


def test_an_old_log_threshold_is_read(changed, check_outputs):
    folder = changed("saelens/jumprelu")
    tensors = load_file(folder / "sae_weights.safetensors")
    tensors["log_threshold"] = tensors.pop("threshold").log()
    save_file(tensors, folder / "sae_weights.safetensors")
    check_outputs(convert_checkpoint(folder), "saelens/jumprelu")


@pytest.mark.parametrize("kind", KINDS)
def test_an_export_reads_back_as_the_same_function(kind, tmp_path, relative_error):
    model = make(KINDS[kind])
    x = inputs(model)
    again = convert_checkpoint(export_saelens(model, tmp_path / "out"))
    with torch.no_grad():
        code, expected = again.encode(x), model.encode(x)
        assert relative_error(code, expected) < 1e-5
        decoded, wanted = again.decode(code) - model.input_mean, model.decode(expected) - model.input_mean
        assert relative_error(decoded, wanted) < 1e-5
    assert again.config.hook_point == "image_embeds" and again.config.base_model_name_or_path == CLIP
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["cfg.json", "sae_weights.safetensors"]


def test_levels_are_recorded_and_a_given_k_is_exported(tmp_path, relative_error):
    model = make(KINDS["relu, levels"])
    settings = json.loads((export_saelens(model, tmp_path / "all") / "cfg.json").read_text())
    assert settings["architecture"] == "standard" and "k" not in settings
    levels = {"nesting": "topk", "nesting_ks": [4, 16, 40], "nesting_weights": "uniform"}
    assert settings["metadata"]["trained_with"] == {"activation": "relu", **levels}
    again = convert_checkpoint(export_saelens(model, tmp_path / "three", k=3))
    assert again.config.activation == "topk" and again.config.k == 3
    assert relative_error(again.encode(inputs(model)), model.encode(inputs(model), k=3)) < 1e-5


def test_a_batch_threshold_that_is_just_reached_stays_reached(tmp_path):
    config = MSAEConfig(d_in=1, num_latents=2, activation="batch_topk", k=1, nesting="none")
    model = MSAEModel(config)
    with torch.no_grad():
        model.encoder.copy_(torch.tensor([[1.0, 0.5]]))
        model.activation_threshold.fill_(0.1)
    x = torch.tensor([[0.1]])
    assert (model.encode(x) > 0).tolist() == [[True, False]]
    exported = load_file(export_saelens(model, tmp_path) / "sae_weights.safetensors")
    assert (x @ exported["W_enc"] > exported["threshold"]).tolist() == [[True, False]]
    assert (torch.nextafter(x, torch.zeros(1)) @ exported["W_enc"] > exported["threshold"]).tolist() == [[False] * 2]


@pytest.mark.parametrize(
    ("settings", "k", "message"),
    [
        ({"soft_cap": 3.0}, None, r"soft_cap=3\.0"),
        ({"activation": "jump_relu"}, 3, "k=3.*jump_relu"),
        ({}, 41, "num_latents=40.*41"),
    ],
)
def test_what_sae_lens_cannot_express_is_not_exported(settings, k, message, tmp_path):
    model = make({"activation": "relu", **settings})
    with pytest.raises(ValueError, match=message):
        export_saelens(model, tmp_path / "out", k)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_sae_lens_computes_the_same_from_an_export(tmp_path):
    pytest.importorskip(
        "sae_lens", reason="sae-lens is not installed; foreign/saelens/check_saelens_export.py runs it"
    )
    for kind, (_, *errors) in check(tmp_path).items():
        assert max(errors) < 1e-5, kind
