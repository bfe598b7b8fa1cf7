import pytest

from hf_msae.neuron_labels.imagers.base import Prompts


def test_plain_prompts_do_not_depend_on_the_seed():
    assert {Prompts()("red star", seed) for seed in range(9)} == {"a picture of red star"}


def test_photos_vary_with_the_seed():
    prompts = [Prompts("photo")("red star", seed) for seed in range(200)]
    assert all("photograph of red star, " in prompt for prompt in prompts)
    assert len(set(prompts)) == 25
    assert prompts[7] == Prompts("photo")("red star", 7)


def test_nothing_in_a_concept_is_replaced():
    assert Prompts("a {} here")("{0.__class__} {} %s", 0) == "a {0.__class__} {} %s here"


@pytest.mark.parametrize("style", ["cartoon", "", "{} and {}"])
def test_a_style_has_one_place_for_the_concept(style):
    with pytest.raises(ValueError, match=repr(style) if style else "''"):
        Prompts(style)
