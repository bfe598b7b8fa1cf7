"""dictionary_learning's checkpoints, written by dictionary-learning 0.1.0 itself (foreign/dictionary_learning/).

The folders of sae-for-vlm, which uses the same classes, are on their documented layout.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hf_msae.hub.converters import convert_checkpoint, read_checkpoint

FOREIGN = Path(__file__).parent / "foreign" / "dictionary_learning"
ACTIVATIONS = {
    "relu": "relu",
    "relu_new": "relu",
    "gated": "jump_relu",
    "jump_relu": "jump_relu",
    "top_k": "topk",
    "batch_top_k": "batch_topk",
    "batch_top_k_without_threshold": "batch_topk",
    "matryoshka": "batch_topk",
}
TOLD_BY_TENSORS = ("relu", "relu_new", "gated", "jump_relu", "matryoshka")
SAE_FOR_VLM = "imagenet_train_activations_clip-vit-large-patch14-336_22_post_mlp_residual_batch_top_k_20_x8"


@pytest.fixture
def copy(tmp_path):
    return lambda name: Path(shutil.copytree(FOREIGN / name, tmp_path / "sae"))


def check(model, name, relative_error):
    expected = load_file(FOREIGN / name / "expected.safetensors")
    output = model(expected["inputs"])
    assert relative_error(output.latents, expected["code"]) < 1e-5
    assert relative_error(output.reconstruction, expected["reconstruction"]) < 1e-5


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_codes_and_reconstructions_are_those_of_dictionary_learning(name, relative_error):
    given = {"hook_point": "text.layers.3"} if name == "batch_top_k_without_threshold" else {}
    model = convert_checkpoint(FOREIGN / name, **given)
    check(model, name, relative_error)
    assert model.config.activation == ACTIVATIONS[name]


@pytest.mark.parametrize("name", TOLD_BY_TENSORS)
def test_the_tensors_tell_the_class_without_a_config(name, copy, relative_error):
    folder = copy(name)
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match="hook_point="):
        convert_checkpoint(folder)
    check(convert_checkpoint(folder, hook_point="vision.layers.9"), name, relative_error)


@pytest.mark.parametrize(("name", "activation"), [("top_k", "topk"), ("batch_top_k", "batch_topk")])
def test_top_k_and_batch_top_k_have_to_be_told_apart(name, activation, copy, relative_error):
    folder = copy(name)
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match="say activation=topk or activation=batch_topk"):
        convert_checkpoint(folder)
    check(convert_checkpoint(folder, activation=activation, hook_point="image_embeds"), name, relative_error)


def test_top_k_of_before_there_was_a_threshold_needs_nothing_said(copy, relative_error):
    folder = copy("top_k")
    (folder / "config.json").unlink()
    tensors = torch.load(folder / "ae.pt")
    del tensors["threshold"]
    torch.save(tensors, folder / "ae.pt")
    check(convert_checkpoint(folder, hook_point="image_embeds"), "top_k", relative_error)


def test_groups_of_a_matryoshka_become_prefixes_with_their_weights():
    model = convert_checkpoint(FOREIGN / "matryoshka")
    assert model.config.nesting == "prefix" and model.config.nesting_widths == [6, 12, 24]
    assert model.config.nesting_weights == [0.5, 0.3, 0.2]
    expected = load_file(FOREIGN / "matryoshka" / "expected.safetensors")
    levels = model(expected["inputs"], output_nested=True).nested_reconstructions
    tensors = torch.load(FOREIGN / "matryoshka" / "ae.pt")
    smallest = expected["code"][:, :6] @ tensors["W_dec"][:6] + tensors["b_dec"]
    torch.testing.assert_close(levels[0], smallest)


def test_an_activation_at_the_threshold_is_dropped_as_theirs_is(copy):
    folder = copy("batch_top_k")
    tensors = torch.load(folder / "ae.pt")
    for key in ("encoder.weight", "b_dec"):
        tensors[key].zero_()
    tensors["encoder.bias"].fill_(0.25)
    tensors["encoder.bias"][1] = 0.25 + 2**-20
    tensors["threshold"].fill_(0.25)
    torch.save(tensors, folder / "ae.pt")
    assert convert_checkpoint(folder).encode(torch.ones(8)).nonzero().flatten().tolist() == [1]


def test_a_threshold_that_was_never_set_is_noted_and_top_k_can_be_chosen():
    folder = FOREIGN / "batch_top_k_without_threshold"
    assert any("before it was set" in note for note in read_checkpoint(folder, hook_point="text.layers.3").notes)
    model = convert_checkpoint(folder, activation="topk", hook_point="text.layers.3")
    x = load_file(folder / "expected.safetensors")["inputs"]
    assert ((model.encode(x) > 0).sum(-1) == 4).all()


def test_dictionary_rows_that_from_pretrained_would_scale_are_noted():
    assert any("unit norm" in note for note in read_checkpoint(FOREIGN / "relu").notes)


def test_backbone_and_hook_point_come_from_the_config():
    config = convert_checkpoint(FOREIGN / "relu").config
    assert config.base_model_name_or_path == "openai/clip-vit-base-patch32"
    assert config.hook_point == "vision.layers.9"
    with pytest.raises(ValueError, match=r"mlp_out_layer_3 in layer 3 of EleutherAI/pythia-70m.* hook_point="):
        read_checkpoint(FOREIGN / "batch_top_k_without_threshold")


def test_sae_for_vlm_is_read_from_the_names_of_its_folders(tmp_path, relative_error):
    checkpoints = tmp_path / "batch_top_k_20_x8" / SAE_FOR_VLM / "trainer_0" / "checkpoints"
    checkpoints.mkdir(parents=True)
    shutil.copy(FOREIGN / "top_k" / "ae.pt", checkpoints / "ae_900.pt")  # an earlier state
    shutil.copy(FOREIGN / "batch_top_k" / "ae.pt", checkpoints / "ae_100000.pt")
    for source in (checkpoints / "ae_100000.pt", tmp_path, checkpoints.parent):
        model = convert_checkpoint(source)
        check(model, "batch_top_k", relative_error)
        assert model.config.base_model_name_or_path == "openai/clip-vit-large-patch14-336"
        assert model.config.hook_point == "vision.layers.22"


def test_one_of_several_autoencoders_has_to_be_named(tmp_path, relative_error):
    for name in ("relu", "gated"):
        shutil.copytree(FOREIGN / name, tmp_path / name)
    with pytest.raises(ValueError, match=r"2 checkpoints, name one as subfolder: gated/ae\.pt, relu/ae\.pt"):
        convert_checkpoint(tmp_path)
    check(convert_checkpoint(tmp_path, subfolder="gated/ae.pt"), "gated", relative_error)


def test_the_final_state_is_preferred_to_earlier_ones(tmp_path, relative_error):
    folder = shutil.copytree(FOREIGN / "top_k", tmp_path / "trainer_0")
    (folder / "checkpoints").mkdir()
    shutil.copy(FOREIGN / "batch_top_k" / "ae.pt", folder / "checkpoints" / "ae_10.pt")
    check(convert_checkpoint(tmp_path / "trainer_0"), "top_k", relative_error)
    model = convert_checkpoint(folder / "checkpoints", activation="batch_topk", hook_point="image_embeds")
    check(model, "batch_top_k", relative_error)


def test_a_config_that_contradicts_the_tensors_is_refused(copy):
    folder = copy("relu")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({"trainer": {**config["trainer"], "dict_class": "CrossCoder"}}))
    with pytest.raises(ValueError, match="says 'CrossCoder', but the file holds the tensors of AutoEncoder"):
        convert_checkpoint(folder)


def test_a_k_that_contradicts_the_config_is_refused(copy):
    folder = copy("top_k")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({"trainer": {**config["trainer"], "k": 7}}))
    with pytest.raises(ValueError, match=r"holds k=4, but its config\.json says k=7"):
        convert_checkpoint(folder)


def test_a_k_of_another_type_than_a_number_is_refused(copy):
    folder = copy("top_k")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({"trainer": {**config["trainer"], "k": "4"}}))
    with pytest.raises(ValueError, match=r"k of .*config\.json is '4'"):
        convert_checkpoint(folder)


def test_a_k_that_is_not_stored_can_be_given(copy):
    folder = copy("top_k")
    tensors = torch.load(folder / "ae.pt")
    del tensors["k"]
    torch.save(tensors, folder / "ae.pt")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({"trainer": {**config["trainer"], "k": None}}))
    with pytest.raises(ValueError, match=r"say k=\.\.\."):
        convert_checkpoint(folder)
    assert convert_checkpoint(folder, k=3).config.k == 3


def test_a_config_without_a_trainer_is_said_to_be_that(copy):
    folder = copy("top_k")
    (folder / "config.json").write_text('{"buffer": {}}')
    with pytest.raises(ValueError, match=r"config\.json.*dict_class.*activation=batch_topk"):
        convert_checkpoint(folder)
    (folder / "config.json").write_text('{"trainer": ["AutoEncoderTopK"]}')
    with pytest.raises(ValueError, match=r"trainer of .*config\.json is \['AutoEncoderTopK'\], expected names"):
        convert_checkpoint(folder)


def test_another_activation_does_not_keep_the_k_of_the_first():
    x = load_file(FOREIGN / "top_k" / "expected.safetensors")["inputs"]
    full = convert_checkpoint(FOREIGN / "top_k", activation="relu")
    assert full.config.k is None and (full.encode(x) > 0).sum(-1).max() > 4
    assert convert_checkpoint(FOREIGN / "top_k", activation="relu", k=6).config.k == 6


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("batch_top_k", {"threshold": torch.tensor(float("nan"))}, "threshold of .* holds NaN"),
        ("batch_top_k", {"threshold": torch.ones(24)}, r"threshold of .*\(24,\)"),
        ("matryoshka", {"group_sizes": torch.tensor(24)}, r"group_sizes of .*\(\)"),
        ("matryoshka", {"group_sizes": torch.tensor([0, 24])}, "an entry of group_sizes of .* is 0"),
        ("top_k", {"k": torch.tensor([4, 4])}, r"k of .*\(2,\)"),
        ("relu", {"bias": torch.zeros(8, dtype=torch.int8)}, "bias of .* is of int8, expected floating-point"),
        ("gated", {"r_mag": torch.zeros(1)}, r"r_mag of .* has shape \(1,\), expected \(24,\)"),
    ],
)
def test_numbers_that_cannot_be_are_refused(name, change, message, copy):
    folder = copy(name)
    torch.save({**torch.load(folder / "ae.pt"), **change}, folder / "ae.pt")
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(folder)


def test_a_crosscoder_is_refused(copy):
    folder = copy("relu")
    tensors = torch.load(folder / "ae.pt")
    torch.save({**tensors, "encoder.weight": torch.ones(2, 8, 24)}, folder / "ae.pt")
    with pytest.raises(ValueError, match=r"encoder\.weight of .*\(2, 8, 24\)"):
        convert_checkpoint(folder)


def test_groups_that_do_not_add_up_are_refused(copy):
    folder = copy("matryoshka")
    tensors = torch.load(folder / "ae.pt")
    torch.save({**tensors, "group_sizes": torch.tensor([6, 6])}, folder / "ae.pt")
    with pytest.raises(ValueError, match=r"group_sizes .* 12 together, but there are 24 latents"):
        convert_checkpoint(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bias": torch.full((8,), float("inf"))}, "NaN or infinite"),
        ({"bias": torch.zeros(9)}, r"bias of .* has shape \(9,\), expected \(8,\)"),
        ({"extra": torch.zeros(9)}, "extra"),
        ({"bias": "text"}, "holds a str under 'bias', where a tensor is expected"),
    ],
)
def test_tensors_that_cannot_be_are_refused(change, message, copy):
    folder = copy("relu")
    torch.save({**torch.load(folder / "ae.pt"), **change}, folder / "ae.pt")
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(folder)


def test_a_truncated_file_is_refused(copy):
    folder = copy("relu")
    (folder / "ae.pt").write_bytes((folder / "ae.pt").read_bytes()[:-500])
    with pytest.raises(ValueError, match="damaged or incomplete"):
        convert_checkpoint(folder)
