"""dictionary_learning's checkpoints, written by dictionary-learning 0.1.0 itself (foreign/dictionary_learning/).

The folders of sae-for-vlm, which uses the same classes, are on their documented layout.
"""

import shutil

import pytest
import torch
from safetensors.torch import load_file

from hf_msae.hub.converters import convert_checkpoint, read_checkpoint
from tests.hub.converters.conftest import FOREIGN

FOLDER = FOREIGN / "dictionary_learning"
CHECKPOINTS = {  # folder -> (activation, a word of its note)
    "relu": ("relu", "unit norm"),
    "relu_new": ("relu", "output_features"),
    "gated": ("jump_relu", "gated"),
    "jump_relu": ("jump_relu", None),
    "top_k": ("topk", None),
    "batch_top_k": ("batch_topk", None),
    "batch_top_k_without_threshold": ("batch_topk", "before it was set"),
    "matryoshka": ("batch_topk", None),
}
SAE_FOR_VLM = "imagenet_train_activations_clip-vit-large-patch14-336_22_post_mlp_residual_batch_top_k_20_x8"


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_it_computes_what_dictionary_learning_does(name, check_outputs):
    given = {"hook_point": "text.layers.3"} if name == "batch_top_k_without_threshold" else {}
    found = read_checkpoint(FOLDER / name, **given)
    model = found.to_model(given)
    check_outputs(model, f"dictionary_learning/{name}")
    activation, note = CHECKPOINTS[name]
    assert model.config.activation == activation
    assert note is None or any(note in each for each in found.notes)


@pytest.mark.parametrize("name", ["relu", "relu_new", "gated", "jump_relu", "matryoshka"])
def test_most_classes_are_known_by_their_tensors(name, changed, check_outputs):
    folder = changed(f"dictionary_learning/{name}")
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match="hook_point="):
        convert_checkpoint(folder)
    check_outputs(convert_checkpoint(folder, hook_point="vision.layers.9"), f"dictionary_learning/{name}")


@pytest.mark.parametrize(("name", "activation"), [("top_k", "topk"), ("batch_top_k", "batch_topk")])
def test_top_k_and_batch_top_k_have_to_be_distinguished(name, activation, changed, check_outputs):
    folder = changed(f"dictionary_learning/{name}")
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match=r"config\.json.*activation=topk or activation=batch_topk"):
        convert_checkpoint(folder)
    model = convert_checkpoint(folder, activation=activation, hook_point="image_embeds")
    check_outputs(model, f"dictionary_learning/{name}")


def test_a_file_of_before_there_were_thresholds_is_top_k(changed, check_outputs):
    folder = changed("dictionary_learning/top_k", tensors={"threshold": None})
    (folder / "config.json").unlink()
    check_outputs(convert_checkpoint(folder, hook_point="image_embeds"), "dictionary_learning/top_k")


def test_groups_of_a_matryoshka_become_prefixes_with_their_weights():
    model = convert_checkpoint(FOLDER / "matryoshka")
    assert model.config.nesting == "prefix" and model.config.nesting_widths == [6, 12, 24]
    assert model.config.nesting_weights == [0.5, 0.3, 0.2]
    expected = load_file(FOLDER / "matryoshka" / "expected.safetensors")
    levels = model(expected["inputs"], output_nested=True).nested_reconstructions
    tensors = torch.load(FOLDER / "matryoshka" / "ae.pt")
    torch.testing.assert_close(levels[0], expected["code"][:, :6] @ tensors["W_dec"][:6] + tensors["b_dec"])


def test_an_activation_at_the_threshold_is_dropped_as_theirs_is(changed):
    bias = torch.full((24,), 0.25)
    bias[1] += 2**-20
    tensors = {"encoder.weight": torch.zeros(24, 8), "b_dec": torch.zeros(8), "encoder.bias": bias}
    folder = changed("dictionary_learning/batch_top_k", tensors={**tensors, "threshold": torch.tensor(0.25)})
    assert convert_checkpoint(folder).encode(torch.ones(8)).nonzero().flatten().tolist() == [1]


def test_the_activation_and_k_can_be_chosen():
    name = "batch_top_k_without_threshold"
    x = load_file(FOLDER / name / "expected.safetensors")["inputs"]
    model = convert_checkpoint(FOLDER / name, activation="topk", hook_point="text.layers.3")
    assert ((model.encode(x) > 0).sum(-1) == 4).all()
    full = convert_checkpoint(FOLDER / "top_k", activation="relu")
    assert full.config.k is None and (full.encode(x) > 0).sum(-1).max() > 4
    assert convert_checkpoint(FOLDER / "top_k", activation="relu", k=6).config.k == 6


def test_backbone_and_hook_point_come_from_the_config():
    config = convert_checkpoint(FOLDER / "relu").config
    assert config.base_model_name_or_path == "openai/clip-vit-base-patch32"
    assert config.hook_point == "vision.layers.9"


def test_sae_for_vlm_is_read_from_the_names_of_its_folders(tmp_path, check_outputs):
    checkpoints = tmp_path / "batch_top_k_20_x8" / SAE_FOR_VLM / "trainer_0" / "checkpoints"
    checkpoints.mkdir(parents=True)
    shutil.copy(FOLDER / "top_k" / "ae.pt", checkpoints / "ae_900.pt")  # an earlier state
    shutil.copy(FOLDER / "batch_top_k" / "ae.pt", checkpoints / "ae_100000.pt")
    for source in (checkpoints / "ae_100000.pt", tmp_path, checkpoints.parent):
        model = convert_checkpoint(source)
        check_outputs(model, "dictionary_learning/batch_top_k")
        assert model.config.base_model_name_or_path == "openai/clip-vit-large-patch14-336"
        assert model.config.hook_point == "vision.layers.22"


def test_the_final_state_is_preferred_to_earlier_ones(changed, check_outputs):
    folder = changed("dictionary_learning/top_k")
    (folder / "checkpoints").mkdir()
    shutil.copy(FOLDER / "batch_top_k" / "ae.pt", folder / "checkpoints" / "ae_10.pt")
    check_outputs(convert_checkpoint(folder), "dictionary_learning/top_k")
    model = convert_checkpoint(folder / "checkpoints", activation="batch_topk", hook_point="image_embeds")
    check_outputs(model, "dictionary_learning/batch_top_k")


@pytest.mark.parametrize(
    ("name", "settings", "tensors", "message"),
    [
        ("relu", {"dict_class": "CrossCoder"}, {}, "'CrossCoder'.*AutoEncoder"),
        ("top_k", {"k": 7}, {}, r"k=4.*config\.json is 7"),
        ("batch_top_k", {}, {"threshold": None}, "threshold.*activation=batch_topk"),
        ("matryoshka", {}, {"group_sizes": torch.tensor(24)}, r"group_sizes of .*\(\)"),
        ("matryoshka", {}, {"group_sizes": torch.tensor([0, 24])}, "group_sizes of .* 0"),
        ("matryoshka", {}, {"group_sizes": torch.tensor([6, 6])}, "group_sizes .* 12 .* 24 latents"),
        ("top_k", {}, {"k": torch.tensor([4, 4])}, r"k of .*\(2,\)"),
        ("relu", {}, {"encoder.weight": torch.ones(2, 8, 24)}, r"encoder\.weight of .*\(2, 8, 24\)"),  # a crosscoder
    ],
)
def test_settings_and_tensors_that_do_not_fit_are_refused(name, settings, tensors, message, changed):
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(changed(f"dictionary_learning/{name}", settings, tensors))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"buffer": {}}', r"config\.json.*activation=batch_topk"),
        ('{"trainer": ["AutoEncoderTopK"]}', r"trainer of .*config\.json is \['AutoEncoderTopK'\]"),
    ],
)
def test_a_config_without_a_trainer_is_refused(content, message, changed):
    folder = changed("dictionary_learning/top_k")
    (folder / "config.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(folder)
