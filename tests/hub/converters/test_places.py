"""Where embeddings come from: hook points by our names, and the tower of a model."""

import pytest

from hf_msae.hub.converters.places import hook_point_of, origin, tower_of
from hf_msae.hub.converters.source import CheckpointSource


@pytest.mark.parametrize(
    ("name", "tower", "expected"),
    [
        ("blocks.9.hook_resid_post", "vision", "vision.layers.9"),
        ("blocks.9.hook_resid_pre", "text", "text.layers.8"),
        ("blocks.0.hook_resid_pre", "vision", None),
        ("blocks.9.hook_mlp_out", "vision", None),
        ("vision_model.encoder.layers.3", "text", "vision.layers.3"),
        ("visual.transformer.resblocks.3", "text", "vision.layers.3"),
        ("resid_post_layer_3", "text", "text.layers.3"),
        ("layers.07", "text", "text.layers.7"),
        ("layers.7.mlp", "vision", None),
        ("text_embeds", "vision", "text_embeds"),
        (None, "vision", None),
        ("layers.7", None, None),
    ],
)
def test_hook_points_get_our_names(name, tower, expected):
    assert hook_point_of(name, tower) == expected


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("openai/clip-vit-base-patch32",), "vision"),
        (("google/SigLIP",), "vision"),
        (("vit_base_patch16",), "vision"),
        (("mine", "HookedVisionTransformer"), "vision"),
        (("eclipse/clipper-7b",), "text"),
        (("gpt2-small", "HookedTransformer"), "text"),
        ((None, None), None),
    ],
)
def test_towers_are_recognized_by_whole_words(names, expected):
    assert tower_of(*names) == expected


def test_origin_translates_the_first_known_hook_and_notes_a_guess():
    source = CheckpointSource("x", ())
    clip = "openai/clip-vit-base-patch32"
    expected = {"base_model_name_or_path": clip, "hook_point": "vision.layers.3"}
    assert origin(source, "x", [None, "blocks.3.hook_mlp_out", "layers.3"], clip) == expected
    assert not source.notes
    assert origin(source, "x", ["layers.3"], "my-lm")["hook_point"] == "text.layers.3"
    assert "my-lm" in source.notes[0] and "hook_point=" in source.notes[0]


def test_an_unknown_origin_has_to_be_given():
    source = CheckpointSource("x", ())
    with pytest.raises(ValueError, match=r"x .*the heads.*hook_point="):
        origin(source, "x", ["blocks.9.attn.hook_z"], place="the heads", tower="vision")
    with pytest.raises(ValueError, match=r"x .*patches.*hook_point="):
        origin(source, "x", known="patches")
    given = CheckpointSource("x", (), given={"hook_point": "text_embeds"})
    assert origin(given, "x", ["layers.3"], "m") == {"base_model_name_or_path": "m"}
