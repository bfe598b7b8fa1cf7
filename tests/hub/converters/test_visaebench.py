"""ViSAEBench's checkpoints, on its documented layout; visaebench 0.1.0 itself computed what is expected of them
(foreign/visaebench/write_visaebench.py)."""

import pytest
import torch

from hf_msae.hub.converters import convert_checkpoint, read_checkpoint
from tests.hub.converters.conftest import FOREIGN

FOLDER = FOREIGN / "visaebench"
GIVEN = {"hook_point": "vision.layers.10", "input_scale": 1.0}
"""What no checkpoint of it says. The expected outputs are of embeddings as its SAEs get them."""


@pytest.mark.parametrize(
    ("name", "activation", "note"),
    [
        ("batch_top_k", "batch_topk", None),
        ("batch_top_k_without_threshold", "batch_topk", "every positive activation"),
        ("batch_top_k_of_overcomplete", "batch_topk", None),
        ("top_k", "topk", None),
        ("jump_relu", "jump_relu", None),
        ("jump_relu_without_thresholds", "jump_relu", "0.01"),
    ],
)
def test_it_computes_what_visaebench_does(name, activation, note, check_outputs):
    found = read_checkpoint(FOLDER / name, **GIVEN)
    model = found.to_model(GIVEN)
    check_outputs(model, f"visaebench/{name}")
    assert model.config.activation == activation
    assert any(note in each for each in found.notes) if note else not found.notes


def test_what_the_checkpoint_does_not_say_has_to_be_given():
    for given, message in (
        ({"input_scale": 1.0}, "patch tokens.*hook_point="),
        (GIVEN | {"input_scale": 2.0}, "mean:"),
    ):
        with pytest.raises(ValueError, match=message):
            convert_checkpoint(FOLDER / "batch_top_k", **given)


@pytest.mark.parametrize(
    ("name", "settings", "tensors", "message"),
    [
        ("batch_top_k", {"hidden_dim": 48}, {}, "hidden_dim=48.*24"),
        ("batch_top_k", {"k": None}, {}, "k of .*missing"),
        ("batch_top_k", {"activation": "gated"}, {}, "'gated'.*topk, batchtopk, jumprelu"),
        ("batch_top_k", {}, {"dictionary.multiplier": torch.ones(())}, r"also has dictionary\.multiplier"),
        ("jump_relu", {}, {"thresholds": torch.ones(24)}, "jump_thresholds and thresholds"),
    ],
)
def test_settings_and_tensors_that_do_not_fit_are_refused(name, settings, tensors, message, changed):
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(changed(f"visaebench/{name}", settings, tensors), format="visaebench", **GIVEN)


def test_a_config_that_is_no_yaml_is_refused(changed):
    folder = changed("visaebench/top_k")
    (folder / "config.yaml").write_text("activation: [topk")
    with pytest.raises(ValueError, match=r"config\.yaml"):
        convert_checkpoint(folder, **GIVEN)
