"""Hook points: what is read is what transformers computes there, and what is written is what the rest of it sees."""

import pytest
import torch

from hf_msae.backbones.hook_points import HookPoint, find_site
from tests.tiny_backbones import FAMILIES, TWO_TOWERS, pictures

TEXTS = ["a red circle", "blue"]


def items(hook_point):
    return TEXTS if hook_point.startswith("text") else pictures()


@pytest.mark.parametrize("name", FAMILIES)
def test_all_hook_points_of_a_family(backbones, name):
    expected = {"image_embeds", "vision.layers.0", "vision.layers.1"}
    if name in TWO_TOWERS:
        expected |= {"text_embeds", "text.layers.0", "text.layers.1"}
    assert set(backbones[name].hook_points) == expected


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("name", FAMILIES)
def test_tokens_are_the_hidden_states_of_transformers(backbones, name, layer):
    backbone = backbones[name]
    inputs = dict(backbone.image_processor(images=pictures(), return_tensors="pt"))
    features = backbone.model.get_image_features if name in TWO_TOWERS else backbone.model
    with torch.no_grad():
        states = features(**inputs, output_hidden_states=True).hidden_states
    tokens = backbone.read(f"vision.layers.{layer}", pictures())
    assert torch.equal(tokens, states[layer + 1])
    assert tokens.shape[-1] == backbone.width(f"vision.layers.{layer}")
    in_parts = backbone.read(f"vision.layers.{layer}", pictures(), batch_size=2)
    torch.testing.assert_close(in_parts, tokens)


@pytest.mark.parametrize("name", TWO_TOWERS)
def test_text_tokens_are_padded_to_one_length(backbones, name):
    backbone = backbones[name]
    tokens = backbone.read("text.layers.1", TEXTS)
    assert tokens.shape == (2, 10, 32)
    alone = backbone.read("text.layers.1", TEXTS[1:])
    torch.testing.assert_close(alone[0], tokens[1])
    if not name.startswith("Siglip"):  # causal: the padding behind a text does not reach its own tokens
        length = len(backbone.tokenizer(TEXTS[1])["input_ids"])
        short = dict(backbone.tokenizer(TEXTS[1:], return_tensors="pt"))
        with torch.no_grad():
            states = backbone.model.get_text_features(**short, output_hidden_states=True).hidden_states
        torch.testing.assert_close(states[2][0], tokens[1, :length])


@pytest.mark.parametrize("name", FAMILIES)
def test_patches_have_places(backbones, name):
    backbone, wide = backbones[name], pictures(1, (20, 60))
    tokens, (rows, columns) = backbone.read_patches("vision.layers.1", wide[0])
    assert tokens.shape == (rows * columns, 32)
    whole = backbone.read("vision.layers.1", wide)[0]
    if name == "Siglip2Model":  # keeps the picture's shape, and fills up with padding
        assert rows < columns and rows * columns < len(whole) == 16
        assert torch.equal(tokens, whole[: rows * columns])
    else:
        assert (rows, columns) == (2, 2) and torch.equal(tokens, whole[-4:])
        assert len(whole) == (4 if name.startswith("Siglip") else 5)


@pytest.mark.parametrize("hook_point", ["image_embeds", "text_embeds", "vision.layers.0", "text.layers.1"])
@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_written_is_what_the_rest_of_the_model_sees(backbones, name, hook_point):
    backbone = backbones[name]
    if hook_point not in backbone.hook_points:
        assert hook_point.startswith("text") and name not in TWO_TOWERS
        return
    point = HookPoint.parse(hook_point)
    site = find_site(backbone.model, point)
    read_out = backbone.text_embeds if point.tower == "text" else backbone.image_embeds
    before, seen = read_out(items(hook_point)), []
    direction = torch.randn(backbone.width(hook_point), generator=torch.Generator().manual_seed(0))

    def move(embeddings):
        seen.append(embeddings)
        return embeddings + direction

    with site.hooked(move):
        after = read_out(items(hook_point))
    if point.layer is None:
        assert torch.equal(seen[0], before)
        assert torch.equal(after, before + direction)
    else:
        assert (after - before).abs().max() > 1e-3
        recorded = seen[0] + direction
        with site.hooked(move):
            read = backbone.read(hook_point, items(hook_point))
        torch.testing.assert_close(read[:, : recorded.shape[1]], recorded)
    assert torch.equal(read_out(items(hook_point)), before)
    with pytest.raises(RuntimeError, match="stop"), site.hooked(move):
        raise RuntimeError("stop")
    assert torch.equal(read_out(items(hook_point)), before)


def test_recorded_hidden_states_show_what_was_written(backbones):
    backbone = backbones["CLIPModel"]
    inputs = dict(backbone.image_processor(images=pictures(), return_tensors="pt"))
    features = backbone.model.get_image_features
    with torch.no_grad():
        features(**inputs, output_hidden_states=True)  # transformers' own hooks are there from now on
        with find_site(backbone.model, HookPoint.parse("vision.layers.0")).hooked(torch.zeros_like):
            states = features(**inputs, output_hidden_states=True).hidden_states
    assert not states[1].any()


def test_what_a_model_does_not_have_is_named(backbones):
    with pytest.raises(ValueError, match=r"Dinov2Model.*text_embeds"):
        find_site(backbones["Dinov2Model"].model, HookPoint.parse("text_embeds"))
    with pytest.raises(ValueError, match=r"CLIPModel has 2 .*vision\.layers\.2"):
        find_site(backbones["CLIPModel"].model, HookPoint.parse("vision.layers.2"))
    for name in ("vision.layers", "vision.layers.-1", "vision.layers.01", "audio.layers.0", "pooler"):
        with pytest.raises(ValueError, match=f"{name}.*vision.layers"):
            HookPoint.parse(name)
    with pytest.raises(ValueError, match=r"vision\.layers\.7.*vision\.layers\.0 to 1"):
        backbones["Dinov2Model"].read("vision.layers.7", pictures())
