"""SAELens: checkpoints that sae-lens 6.54.12 wrote (foreign/saelens/write_saelens.py), and exports for it."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hf_msae import MSAEConfig, MSAEModel
from hf_msae.hub.converters import convert_checkpoint, read_checkpoint
from hf_msae.hub.converters.saelens_export import export_saelens
from tests.hub.converters.foreign.saelens.check_saelens_export import KINDS, check, inputs, make

WRITTEN = Path(__file__).parent / "foreign" / "saelens"
TOLERANCE = 1e-5
CLIP = "openai/clip-vit-base-patch32"
# Folder -> (activation, k, hook point).
CHECKPOINTS = {
    "standard": ("relu", None, "vision.layers.9"),
    "standard_b_dec_not_applied": ("relu", None, "vision.layers.9"),
    "topk": ("topk", 5, "vision.layers.9"),
    "topk_rescaled": ("topk", 5, "vision.layers.9"),
    "jumprelu": ("jump_relu", None, "vision.layers.9"),
    "gated": ("jump_relu", None, "vision.layers.9"),
    "gated_b_dec_not_applied": ("jump_relu", None, "vision.layers.9"),
    "batchtopk": ("batch_topk", 4, "vision.layers.9"),
    "matryoshka_batchtopk": ("batch_topk", 4, "vision.layers.9"),
    "matryoshka_final": ("jump_relu", None, "vision.layers.9"),
    "old_standard": ("relu", None, "vision.layers.8"),  # of hook_resid_pre of block 9
    "old_topk": ("topk", 5, "vision.layers.8"),
    "old_b_dec_not_applied": ("relu", None, "vision.layers.8"),
}


@pytest.fixture
def copied(tmp_path):
    """A copy of a checkpoint, with changes to its cfg.json (None takes a key away) and to its tensors."""

    def copied(name, tensors=None, **changes):
        folder = tmp_path / name
        shutil.copytree(WRITTEN / name, folder)
        settings = {**json.loads((folder / "cfg.json").read_text()), **changes}
        settings = {key: value for key, value in settings.items() if value is not None}
        (folder / "cfg.json").write_text(json.dumps(settings))
        if tensors:
            found = load_file(folder / "sae_weights.safetensors")
            save_file({**found, **tensors(found)}, folder / "sae_weights.safetensors")
        return folder

    return copied


def compare(model, folder, relative_error):
    expected = load_file(folder / "expected.safetensors")
    with torch.no_grad():
        code = model.encode(expected["inputs"])
        decoded = model.decode(code)
    assert relative_error(code, expected["code"]) < TOLERANCE
    assert torch.equal(code > 0, expected["code"] > 0)
    assert relative_error(decoded, expected["reconstruction"]) < TOLERANCE


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_it_computes_what_sae_lens_does(name, relative_error):
    model = convert_checkpoint(WRITTEN / name)
    compare(model, WRITTEN / name, relative_error)
    activation, k, hook_point = CHECKPOINTS[name]
    config = model.config
    assert (config.activation, config.k, config.hook_point) == (activation, k, hook_point)
    assert config.base_model_name_or_path == CLIP
    if name.startswith("matryoshka"):
        assert config.nesting == "prefix" and config.nesting_widths == [6, 12, 24]


def test_every_checkpoint_in_the_folder_is_tested():
    assert {path.parent.name for path in WRITTEN.glob("*/cfg.json")} == {*CHECKPOINTS, "scaled_by_0.25"}


def test_a_factor_that_is_not_stored_has_to_be_given(relative_error, tmp_path):
    folder = WRITTEN / "scaled_by_0.25"
    with pytest.raises(ValueError, match="does not hold the factor: give it as input_scale"):
        convert_checkpoint(folder)
    model = convert_checkpoint(folder, input_scale=0.25)
    compare(model, folder, relative_error)
    assert model.input_scale == 0.25

    copy = shutil.copytree(folder, tmp_path / "with_scaler")
    (copy / "activation_scaler.json").write_text(json.dumps({"scaling_factor": 0.25, "has_whitening": False}))
    compare(convert_checkpoint(copy), folder, relative_error)


def test_a_file_stands_for_its_folder(relative_error):
    for file in ("sae_weights.safetensors", "cfg.json"):
        compare(convert_checkpoint(WRITTEN / "topk" / file), WRITTEN / "topk", relative_error)


def test_of_several_one_has_to_be_named(relative_error):
    with pytest.raises(ValueError, match=r"14.*subfolder: batchtopk, gated, "):
        convert_checkpoint(WRITTEN)
    compare(convert_checkpoint(WRITTEN, subfolder="gated"), WRITTEN / "gated", relative_error)


def test_a_single_one_below_is_found(tmp_path, relative_error):
    shutil.copytree(WRITTEN / "jumprelu", tmp_path / "blocks.9.hook_resid_post")
    compare(convert_checkpoint(tmp_path), WRITTEN / "jumprelu", relative_error)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"normalize_activations": "layer_norm"}, "brings each embedding to mean 0 and variance 1 by itself"),
        ({"normalize_activations": "constant_norm_rescale"}, "scales each embedding to one length by itself"),
        ({"normalize_activations": "covariance_whitening"}, "'covariance_whitening', whose statistics are not in"),
        ({"architecture": "transcoder", "d_out": 8}, "'transcoder': it predicts other embeddings than it encodes"),
        ({"architecture": "abstopk", "k": 4}, "'abstopk': its codes have negative entries"),
        ({"architecture": "crosscoder"}, "'crosscoder'.*standard, topk, jumprelu"),
        ({"d_out": 12}, "turns embeddings of 8 columns into ones of 12"),
        ({"reshape_activations": "hook_z"}, r"hook_z"),
        ({"activation_fn": "tanh-relu"}, "activation function 'tanh-relu'"),
        ({"d_sae": 25}, r"W_enc of .*\(8, 24\).*\(8, 25\)"),
        ({"finetuning_scaling_factor": True}, "says finetuning_scaling_factor, but holds no such tensor"),
    ],
)
def test_what_no_msae_computes_is_refused_with_the_reason(copied, changes, message):
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(copied("standard", **changes))


def test_old_settings_of_heads_are_refused_too(copied):
    with pytest.raises(ValueError, match="hook_z"):
        convert_checkpoint(copied("old_standard", hook_point="blocks.9.attn.hook_z"))


@pytest.mark.parametrize(
    ("hook", "model_name", "expected"),
    [
        ("blocks.0.hook_resid_post", "gpt2-small", "text.layers.0"),
        ("blocks.3.hook_resid_post", "invitae-gravity-lm", "text.layers.3"),
        ("vision_model.encoder.layers.4", CLIP, "vision.layers.4"),
        ("text_model.encoder.layers.4", CLIP, "text.layers.4"),
        ("image_embeds", CLIP, "image_embeds"),
    ],
)
def test_places_that_have_a_name_here_get_it(copied, hook, model_name, expected):
    folder = copied("standard", metadata={"hook_name": hook, "model_name": model_name, "sae_lens_version": "6.0.0"})
    config = read_checkpoint(folder).to_model().config
    assert (config.hook_point, config.base_model_name_or_path) == (expected, model_name)


@pytest.mark.parametrize("hook", ["blocks.9.hook_mlp_out", "blocks.0.hook_resid_pre", None])
def test_places_without_a_name_here_need_one_to_be_given(copied, hook):
    folder = copied("standard", metadata={"hook_name": hook, "model_name": CLIP, "sae_lens_version": "6.0.0"})
    with pytest.raises(ValueError, match=rf"{hook or 'unnamed'}.* in {CLIP}.*hook_point="):
        convert_checkpoint(folder)
    config = convert_checkpoint(folder, hook_point="vision.layers.9").config
    assert (config.hook_point, config.base_model_name_or_path) == ("vision.layers.9", CLIP)


def test_a_finetuned_factor_scales_the_decoder(copied, relative_error):
    factor = torch.linspace(0.5, 2, 24)
    tensors = lambda found: {"finetuning_scaling_factor": factor}  # noqa: E731
    model = convert_checkpoint(copied("standard", tensors, finetuning_scaling_factor=True))
    plain = convert_checkpoint(WRITTEN / "standard")
    assert relative_error(model.decoder, plain.decoder * factor[:, None]) < 1e-7


def test_a_factor_that_is_not_to_be_used_is_refused_unless_it_is_one(copied, relative_error):
    """Whether the decoder was tuned with it, nothing tells."""
    with pytest.raises(
        ValueError, match=r"holds a scaling_factor that is not 1, but its cfg\.json does not say to use"
    ):
        convert_checkpoint(copied("standard", lambda found: {"scaling_factor": torch.linspace(0.5, 2, 24)}))
    model = convert_checkpoint(copied("topk", lambda found: {"scaling_factor": torch.ones(24)}))
    compare(model, WRITTEN / "topk", relative_error)


@pytest.mark.parametrize(
    ("name", "tensors", "message"),
    [
        ("jumprelu", {"threshold": torch.ones(1)}, r"threshold of .* has shape \(1,\), expected \(24,\)"),
        ("jumprelu", {"threshold": torch.ones(25)}, r"threshold of .* has shape \(25,\), expected \(24,\)"),
        ("jumprelu", {"log_threshold": torch.ones(24)}, "holds threshold and log_threshold, expected one of"),
        ("gated", {"b_gate": torch.ones(1)}, r"b_gate of .* has shape \(1,\), expected \(24,\)"),
        ("gated", {"b_mag": torch.ones(25)}, r"b_mag of .* has shape \(25,\), expected \(24,\)"),
        ("batchtopk", {"topk_threshold": torch.tensor(torch.nan)}, "topk_threshold of .* holds NaN"),
        ("batchtopk", {"topk_threshold": torch.ones(24)}, r"topk_threshold of .* has shape \(24,\), expected \(\)"),
        ("standard", {"b_enc": torch.ones(24, dtype=torch.int8)}, "b_enc of .* is of int8, expected floating-point"),
        ("standard", {"finetuning_scaling_factor": torch.ones(24), "scaling_factor": torch.ones(24)}, "holds both"),
    ],
)
def test_tensors_that_cannot_be_are_refused(copied, name, tensors, message):
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(copied(name, lambda found: tensors))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("topk", {"k": 3.7}, r"k of .* is 3\.7, expected a whole number"),
        ("topk", {"k": True}, "k of .* is True, expected a whole number"),
        ("batchtopk", {"k": True}, "k of .* is True, expected one finite number"),
        ("batchtopk", {"k": -1}, "k of .* is -1, expected a number above 0"),
        (
            "standard",
            {"apply_b_dec_to_input": "false"},
            "apply_b_dec_to_input of .* is 'false', expected true or false",
        ),
        ("standard", {"architecture": ["standard"]}, r"architecture of .* is \['standard'\], expected a text"),
        (
            "matryoshka_batchtopk",
            {"matryoshka_widths": "6, 12"},
            "matryoshka_widths of .* is '6, 12', expected a list",
        ),
        ("matryoshka_batchtopk", {"matryoshka_widths": [6, "12"]}, "an entry of matryoshka_widths of .* is '12'"),
        ("standard", {"metadata": ["x"]}, r"metadata of .* is \['x'\], expected names and values"),
    ],
)
def test_settings_of_another_type_are_refused(copied, name, changes, message):
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(copied(name, **changes))


def test_a_k_that_is_not_stored_can_be_given(copied):
    folder = copied("topk", k=None)
    with pytest.raises(ValueError, match=r"'topk'.*say k=\.\.\."):
        convert_checkpoint(folder)
    assert convert_checkpoint(folder, k=3).config.k == 3


def test_widths_end_with_all_latents_even_where_their_number_is_not_stored(copied):
    config = convert_checkpoint(copied("matryoshka_batchtopk", d_sae=None)).config
    assert config.nesting_widths == [6, 12, 24]


def test_a_model_that_is_not_named_leaves_the_tower_open(copied):
    folder = copied("standard", metadata={"hook_name": "blocks.9.hook_resid_post", "sae_lens_version": "6.0.0"})
    with pytest.raises(ValueError, match=r"unnamed model.*hook_point="):
        convert_checkpoint(folder)


def test_a_tensor_that_nobody_asks_for_is_refused(copied):
    with pytest.raises(ValueError, match="also has W_skip, which hf_msae does not know"):
        convert_checkpoint(copied("standard", lambda found: {"W_skip": torch.eye(8)}))


def test_an_old_log_threshold_is_read(tmp_path, relative_error):
    folder = shutil.copytree(WRITTEN / "jumprelu", tmp_path / "old")
    tensors = load_file(folder / "sae_weights.safetensors")
    tensors["log_threshold"] = tensors.pop("threshold").log()
    save_file(tensors, folder / "sae_weights.safetensors")
    compare(convert_checkpoint(folder), WRITTEN / "jumprelu", relative_error)


def test_a_truncated_file_is_said_to_be(copied):
    folder = copied("standard")
    file = folder / "sae_weights.safetensors"
    file.write_bytes(file.read_bytes()[:900])
    with pytest.raises(ValueError, match=r"sae_weights\.safetensors is damaged or incomplete"):
        convert_checkpoint(folder)
    (folder / "cfg.json").write_text("{")
    with pytest.raises(ValueError, match=r"cfg\.json holds no JSON"):
        convert_checkpoint(folder)


def test_half_of_the_two_files_is_not_enough(copied):
    folder = copied("standard")
    (folder / "cfg.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no cfg\.json"):
        convert_checkpoint(folder, format="saelens")


# -- the way out -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_an_export_reads_back_as_the_same_function(kind, tmp_path, relative_error):
    model = make(KINDS[kind])
    x = inputs(model)
    again = convert_checkpoint(export_saelens(model, tmp_path / "out"))
    with torch.no_grad():
        code, expected = again.encode(x), model.encode(x)
        assert relative_error(code, expected) < TOLERANCE
        decoded, wanted = again.decode(code) - model.input_mean, model.decode(expected) - model.input_mean
        assert relative_error(decoded, wanted) < TOLERANCE
    assert again.config.hook_point == "image_embeds" and again.config.base_model_name_or_path == CLIP
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["cfg.json", "sae_weights.safetensors"]


def test_levels_are_noted_where_they_cannot_be_expressed(tmp_path):
    model = make(KINDS["relu, levels"])
    settings = json.loads((export_saelens(model, tmp_path) / "cfg.json").read_text())
    assert settings["architecture"] == "standard" and "k" not in settings
    levels = {"nesting": "topk", "nesting_ks": [4, 16, 40], "nesting_weights": "uniform"}
    assert settings["metadata"]["trained_with"] == {"activation": "relu", **levels}


def test_a_given_k_is_exported(tmp_path, relative_error):
    model = make(KINDS["relu, levels"])
    again = convert_checkpoint(export_saelens(model, tmp_path, k=3))
    assert again.config.activation == "topk" and again.config.k == 3
    assert relative_error(again.encode(inputs(model)), model.encode(inputs(model), k=3)) < TOLERANCE


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
        ({"soft_cap": 3.0}, None, r"soft_cap=3\.0 squeezes the code"),
        ({"activation": "jump_relu"}, 3, "k=3 takes the largest of what exceeds the thresholds of jump_relu"),
        ({}, 41, "k must be between 1 and num_latents=40"),
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
        assert max(errors) < TOLERANCE, kind
