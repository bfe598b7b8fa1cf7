"""Overcomplete's checkpoints, written by overcomplete 0.3.0 itself (foreign/overcomplete/write_overcomplete.py)."""

import pytest
import torch
from safetensors.torch import save_file

from hf_msae.hub.converters import convert_checkpoint, read_checkpoint
from hf_msae.hub.converters.overcomplete import RECIPE
from tests.hub.converters.conftest import FOREIGN

FOLDER = FOREIGN / "overcomplete"
PLACE = "vision.layers.3"
GIVEN = {"k": 4, "hook_point": PLACE}
CHECKPOINTS = {  # folder -> what has to be given, since no state dict says it
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


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_it_computes_what_overcomplete_does(name, check_outputs):
    model = convert_checkpoint(FOLDER / name / "sae.pt", hook_point=PLACE, **CHECKPOINTS[name])
    check_outputs(model, f"overcomplete/{name}")
    assert model.config.tied == (name == "top_k_tied") and model.config.hook_point == PLACE


def test_a_folder_and_a_safetensors_file_are_read_as_well(tmp_path, check_outputs):
    save_file(torch.load(FOLDER / "top_k" / "sae.pt"), tmp_path / "any_name.safetensors")
    check_outputs(convert_checkpoint(tmp_path, **GIVEN), "overcomplete/top_k")


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
    plain = torch.load(FOLDER / "archetypal_plain" / "sae.pt", weights_only=True)
    assert set(written) == set(plain) and written["class"] == "Sae" and written["top_k"] == 4


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("layer_norm", {}, "LayerNorm"),
        ("hidden_layers", {}, "mlp_blocks.*not one matrix"),
        ("matching_pursuit", {}, "no encoder.*MpSAE"),
        ("quantised", {}, "QSAE"),
        ("top_k", {}, "give k .*activation=relu"),
        ("batch_top_k_plain", {}, "top_k=64 .*batch.*give k"),
        ("batch_top_k_plain", {"activation": "topk"}, "top_k=64 .*batch.*give k"),
    ],
)
def test_what_no_msae_computes_or_nothing_says_is_refused(name, given, message):
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(FOLDER / name / "sae.pt", hook_point=PLACE, **given)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("whole_module", {"k": 4}, "object of overcomplete"),
        ("batch_top_k_state_dict", {"activation": "batch_topk", "k": 4}, "threshold.*activation=batch_topk"),
        # As it is stored the dictionary may not be the one that is used, and normalized it may not be either.
        ("top_k_saved_in_training", {"activation": "relu"}, r"norms from 0\.99\d+ to 1\.0\d+"),
        ("top_k_not_normalised", {"activation": "relu"}, r"norms from 0\.\d+ to 1\.\d+"),
        ("relu_max_l2", {"activation": "relu"}, r"norms from 0\.\d+ to 1"),
    ],
)
def test_where_a_state_dict_is_not_enough_the_recipe_is_given(name, given, message):
    with pytest.raises(ValueError, match=message) as refused:
        convert_checkpoint(FOLDER / name / "sae.pt", hook_point=PLACE, **given)
    assert RECIPE in str(refused.value)


def test_what_becomes_of_an_archetypal_dictionary_is_noted():
    assert any("archetypal" in note for note in read_checkpoint(FOLDER / "top_k_archetypal" / "sae.pt", **GIVEN).notes)


def test_the_hook_point_has_to_be_given():
    with pytest.raises(ValueError, match="hook_point="):
        read_checkpoint(FOLDER / "top_k" / "sae.pt", k=4)


@pytest.mark.parametrize(
    ("name", "tensors", "message"),
    [
        ("top_k_archetypal", {"dictionary.W": torch.full((24, 40), 0.1)}, r"dictionary\.W of .*sum 1"),
        ("top_k", {"dictionary._weights": torch.full((24, 9), 1 / 3)}, r"encoder.*\(24, 8\).*\(24, 9\)"),
        ("top_k", {"encoder.weight": torch.ones(24, 8)}, r"both encoder\.weight and encoder\.final_block\.0\.weight"),
        ("top_k", {"dictionary.W": torch.ones(24, 8)}, r"both dictionary\._weights and dictionary\.W"),
        ("top_k", {"encoder.tied_to._weights": torch.ones(24, 8)}, r"encoder\.tied_to\._weights"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(name, tensors, message, changed):
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(changed(f"overcomplete/{name}", tensors=tensors), **GIVEN)
