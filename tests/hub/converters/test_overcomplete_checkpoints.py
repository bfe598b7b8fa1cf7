"""Overcomplete's checkpoints, written by overcomplete 0.3.0 itself (foreign/overcomplete/write_overcomplete.py)."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hf_msae.hub.converters import convert_checkpoint, read_checkpoint
from hf_msae.hub.converters.overcomplete import RECIPE

FOREIGN = Path(__file__).parent / "foreign" / "overcomplete"
SAID = {
    "relu": {"activation": "relu"},
    "top_k": {"k": 4},
    "top_k_multiplied": {"k": 4},
    "top_k_not_normalised_plain": {},
    "relu_max_l2_plain": {},
    "top_k_batch_norm": {"k": 4},
    "top_k_tied": {"k": 4},
    "top_k_untied": {"k": 4},
    "top_k_archetypal": {"k": 4},
    "jump_relu": {},
    "batch_top_k_plain": {"k": 4},
    "archetypal_plain": {},
}
"""What has to be said, since no state dict tells it."""


PLACE = "vision.layers.3"
NAMED = {"k": 4, "hook_point": PLACE}


@pytest.fixture
def changed(tmp_path):
    def changed(name, **tensors):
        folder = Path(shutil.copytree(FOREIGN / name, tmp_path / name))
        (folder / "expected.safetensors").unlink()
        torch.save({**torch.load(folder / "sae.pt"), **tensors}, folder / "sae.pt")
        return folder

    return changed


@pytest.mark.parametrize("name", SAID)
def test_codes_and_reconstructions_are_those_of_overcomplete(name, relative_error):
    expected = load_file(FOREIGN / name / "expected.safetensors")
    model = convert_checkpoint(FOREIGN / name / "sae.pt", hook_point=PLACE, **SAID[name])
    output = model(expected["inputs"])
    assert relative_error(output.latents, expected["code"]) < 1e-5
    assert relative_error(output.reconstruction, expected["reconstruction"]) < 1e-5
    assert model.config.tied == (name == "top_k_tied")


def test_a_folder_and_a_safetensors_file_are_read_as_well(tmp_path, relative_error):
    expected = load_file(FOREIGN / "top_k" / "expected.safetensors")
    save_file(torch.load(FOREIGN / "top_k" / "sae.pt"), tmp_path / "any_name.safetensors")
    model = convert_checkpoint(tmp_path, **NAMED)
    assert relative_error(model.encode(expected["inputs"]), expected["code"]) < 1e-5


def test_a_whole_module_is_refused_with_the_lines_that_make_a_plain_file():
    with pytest.raises(ValueError, match="whole module of overcomplete") as refused:
        convert_checkpoint(FOREIGN / "whole_module" / "sae.pt", k=4)
    assert RECIPE in str(refused.value)


def test_the_recipe_saves_what_the_reader_reads(tmp_path):
    """Its lines, run on a module that torch.load gives back here without overcomplete."""

    class Sae(torch.nn.Linear):
        top_k = 4

        def get_dictionary(self):
            return torch.ones(24, 8)

    lines = RECIPE.replace("torch.load(", "load(").replace('"sae.pt"', "None")
    lines = lines.replace('"plain.pt"', repr(str(tmp_path / "plain.pt")))
    exec("\n".join(line[4:] for line in lines.splitlines()), {"torch": torch, "load": lambda *_, **__: Sae(8, 24)})
    written = torch.load(tmp_path / "plain.pt", weights_only=True)
    plain = torch.load(FOREIGN / "archetypal_plain" / "sae.pt", weights_only=True)
    assert set(written) == set(plain) and written["class"] == "Sae" and written["top_k"] == 4


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("top_k", r"say k=\.\.\. \(a TopKSAE's top_k\) or activation=relu"),
        ("layer_norm", "LayerNorm"),
        ("hidden_layers", "hidden layers"),
        ("matching_pursuit", "no encoder: an MpSAE or OMPSAE"),
        ("quantised", "QSAE"),
    ],
)
def test_what_is_not_told_or_not_computed_by_an_msae_is_refused(name, message):
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(FOREIGN / name / "sae.pt", hook_point=PLACE)


def test_batch_top_k_needs_the_threshold_that_state_dicts_lack():
    with pytest.raises(ValueError, match="holds no threshold, which activation=batch_topk needs") as refused:
        convert_checkpoint(FOREIGN / "batch_top_k_state_dict" / "sae.pt", activation="batch_topk", **NAMED)
    assert RECIPE in str(refused.value)
    with pytest.raises(ValueError, match="keeps top_k=64 activations of a whole batch: say k="):
        convert_checkpoint(FOREIGN / "batch_top_k_plain" / "sae.pt", hook_point=PLACE)
    with pytest.raises(ValueError, match="keeps top_k=64 activations of a whole batch: say k="):
        convert_checkpoint(FOREIGN / "batch_top_k_plain" / "sae.pt", hook_point=PLACE, activation="topk")


@pytest.mark.parametrize(
    ("name", "norms"),
    [
        ("top_k_saved_in_training", r"0\.99\d+ to 1\.0\d+"),
        ("top_k_not_normalised", r"0\.\d+ to 1\.\d+"),
        ("relu_max_l2", r"0\.\d+ to 1"),
    ],
)
def test_a_dictionary_whose_normalisation_nothing_tells_is_refused(name, norms):
    """As it is stored it may not be the one that is used, and normalised it may not be either."""
    with pytest.raises(ValueError, match=rf"have norms from {norms}.*depends on the SAE's normalization") as refused:
        convert_checkpoint(FOREIGN / name / "sae.pt", activation="relu", hook_point=PLACE)
    assert RECIPE in str(refused.value)


def test_an_archetypal_dictionary_that_was_saved_in_training_is_refused(changed):
    tensors = torch.load(FOREIGN / "top_k_archetypal" / "sae.pt")
    folder = changed("top_k_archetypal", **{"dictionary.W": tensors["dictionary.W"] * 1.01})
    with pytest.raises(ValueError, match=r"rows of dictionary\.W of .* are not positive numbers of sum 1"):
        convert_checkpoint(folder, **NAMED)


def test_what_becomes_of_an_archetypal_dictionary_is_noted():
    notes = read_checkpoint(FOREIGN / "top_k_archetypal" / "sae.pt", **NAMED).notes
    assert any("archetypal" in note for note in notes)


def test_where_embeddings_are_from_has_to_be_said():
    with pytest.raises(ValueError, match="hook_point="):
        read_checkpoint(FOREIGN / "top_k" / "sae.pt", k=4)
    assert convert_checkpoint(FOREIGN / "top_k" / "sae.pt", **NAMED).config.hook_point == PLACE


def test_a_class_that_is_no_text_is_refused(changed):
    folder = changed("archetypal_plain", **{"class": ["TopKSAE"]})
    with pytest.raises(ValueError, match=r"class of .* is \['TopKSAE'\], expected a text"):
        convert_checkpoint(folder, **NAMED)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"dictionary._weights": torch.full((24, 8), float("nan"))}, "NaN or infinite"),
        (
            {"dictionary._weights": torch.nn.functional.normalize(torch.ones(24, 9))},
            r"encoder.*\(24, 8\).*\(24, 9\)",
        ),
        ({"something": torch.ones(1)}, "also has something, which hf_msae does not know"),
        ({"encoder.weight": torch.ones(24, 8)}, r"both encoder\.weight and encoder\.final_block\.0\.weight"),
        ({"dictionary.W": torch.ones(24, 8)}, r"both dictionary\._weights and dictionary\.W"),
        ({"encoder.tied_to._weights": torch.ones(24, 8)}, r"encoder\.tied_to\._weights"),
        ({"dictionary.multiplier": torch.ones(1)}, r"multiplier of .* has shape \(1,\), expected \(\)"),
    ],
)
def test_tensors_that_cannot_be_are_refused(tensors, message, changed):
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(changed("top_k", **tensors), **NAMED)


def test_a_truncated_file_is_refused(changed):
    file = changed("top_k") / "sae.pt"
    file.write_bytes(file.read_bytes()[:-500])
    with pytest.raises(ValueError, match="damaged or incomplete"):
        convert_checkpoint(file, format="overcomplete", **NAMED)
