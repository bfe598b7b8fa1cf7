"""sparsify's checkpoints, written by eai-sparsify 1.3.3 itself (foreign/sparsify/write_sparsify.py)."""

import pytest

from hf_msae.hub.converters import convert_checkpoint
from tests.hub.converters.conftest import FOREIGN

LAYER_9 = "sparsify/many/layers.9"


@pytest.mark.parametrize(
    ("name", "given", "hook_point"),
    [
        ("many/layers.9", {}, "text.layers.9"),
        ("many/layers.3.mlp", {"hook_point": "text.layers.3"}, "text.layers.3"),
        ("vision/vision_model.encoder.layers.2", {}, "vision.layers.2"),
    ],
)
def test_it_computes_what_sparsify_does(name, given, hook_point, check_outputs):
    model = convert_checkpoint(FOREIGN / "sparsify" / name, **given)
    check_outputs(model, f"sparsify/{name}")
    assert (model.config.activation, model.config.num_latents) == ("topk", 24)
    assert model.config.hook_point == hook_point


def test_a_single_file_takes_its_settings_from_its_folder(check_outputs):
    model = convert_checkpoint(FOREIGN / LAYER_9 / "sae.safetensors")
    check_outputs(model, LAYER_9)
    assert model.config.hook_point == "text.layers.9"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("many/layers.3.mlp", r"layers\.3\.mlp.*hook_point="),
        ("refused/groupmax", "groupmax.*cannot be converted"),
        ("refused/transcode", "transcode.*cannot be converted"),
        ("refused/skip_connection", "skip_connection.*cannot be converted"),
    ],
)
def test_what_no_msae_computes_is_refused(name, message):
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(FOREIGN / "sparsify" / name)


@pytest.mark.parametrize(
    ("settings", "message"), [({"signed": True}, "signed=True.*negative"), ({"k": None}, r"k of .*cfg\.json.*missing")]
)
def test_settings_that_do_not_fit_are_refused(settings, message, changed):
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(changed(LAYER_9, settings))


def test_an_older_file_without_activation_is_top_k(changed, check_outputs):
    folder = changed(LAYER_9, {"activation": None, "multi_topk": None, "signed": None})
    check_outputs(convert_checkpoint(folder), LAYER_9)
