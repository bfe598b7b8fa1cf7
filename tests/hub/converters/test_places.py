"""Where embeddings come from: hook points by our names, the tower of a model, and what has to be said."""

import pytest

from hf_msae.hub.converters.places import hook_point_of, place_of, tower_of


@pytest.mark.parametrize(
    ("name", "tower", "expected"),
    [
        ("blocks.9.hook_resid_post", "vision", "vision.layers.9"),
        ("blocks.9.hook_resid_pre", "text", "text.layers.8"),
        ("blocks.0.hook_resid_pre", "vision", None),
        ("blocks.9.hook_mlp_out", "vision", None),
        ("blocks.9.attn.hook_z", "vision", None),
        ("vision_model.encoder.layers.3", "text", "vision.layers.3"),
        ("text_model.encoder.layers.3", "vision", "text.layers.3"),
        ("visual.transformer.resblocks.3", "text", "vision.layers.3"),
        ("layers.07", "text", "text.layers.7"),
        ("layers.7.mlp", "vision", None),
        ("text_embeds", "vision", "text_embeds"),
        (None, "vision", None),
        ("layers.7", None, None),
        ("blocks.9.hook_resid_post", None, None),
        ("vision_model.encoder.layers.3", None, "vision.layers.3"),
        ("", "vision", None),
    ],
)
def test_hook_points_get_our_names(name, tower, expected):
    assert hook_point_of(name, tower) == expected


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("openai/clip-vit-base-patch32",), "vision"),
        (("google/siglip2-base-patch16-224",), "vision"),
        (("google/SigLIP",), "vision"),
        (("facebook/dinov2-base",), "vision"),
        (("vit_base_patch16",), "vision"),
        (("mine", "HookedVisionTransformer"), "vision"),
        (("invitae-gravity-lm",), "text"),
        (("eclipse/clipper-7b",), "text"),
        (("gpt2-small", "HookedTransformer"), "text"),
        ((None, None), None),
        (("",), None),
    ],
)
def test_the_tower_is_told_by_whole_words(names, expected):
    assert tower_of(*names) == expected


def test_what_is_taken_for_a_language_model_is_noted():
    notes = []
    assert tower_of("openai/clip-vit-base-patch32", notes=notes) == "vision" and not notes
    assert tower_of("invitae-gravity-lm", notes=notes) == "text"
    assert "invitae-gravity-lm was taken for a language model" in notes[0]


def test_a_place_that_nothing_tells_has_to_be_said():
    assert place_of("vision.layers.3", None, {}, "x") == {"hook_point": "vision.layers.3"}
    assert place_of("vision.layers.3", None, {"hook_point": "text_embeds"}, "x") == {}
    with pytest.raises(ValueError, match=r"x was trained on the heads, .* say which kind they are: hook_point="):
        place_of(None, "the heads", {}, "x")
    with pytest.raises(ValueError, match=r"x .*patches.*hook_point="):
        place_of(None, None, {}, "x", known="patches")
