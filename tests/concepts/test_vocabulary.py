"""The words that may become names."""

import pytest
import torch

from hf_msae.concepts import Vocabulary


def test_templates_are_averaged_as_unit_vectors():
    directions = {"red": [3.0, 0.0], "a red shape": [0.0, 5.0], "star": [0.0, 2.0], "a star shape": [0.0, 1.0]}
    vocabulary = Vocabulary(["red", "star"], templates=("{}", "a {} shape"))
    embeds = vocabulary.embed(lambda prompts: torch.tensor([directions[prompt] for prompt in prompts]))
    assert torch.allclose(embeds, torch.tensor([[0.5, 0.5], [0.0, 1.0]]))
    assert list(vocabulary) == ["red", "star"] and len(vocabulary) == 2


@pytest.mark.parametrize(
    ("words", "templates", "error", "message"),
    [
        ([], ("{}",), ValueError, "at least one word"),
        (["red", "blue", "red"], ("{}",), ValueError, "'red' stands twice in the vocabulary, at 0 and 2"),
        (["red", " "], ("{}",), ValueError, "word 1 of the vocabulary is empty"),
        (["red", 3], ("{}",), TypeError, "word 1 of the vocabulary is 3"),
        ("red", ("{}",), TypeError, "single string 'red'"),
        (["red"], ("a picture",), ValueError, "one {} where the word goes, got 'a picture'"),
        (["red"], (), ValueError, "at least one template"),
    ],
)
def test_bad_vocabularies_are_refused(words, templates, error, message):
    with pytest.raises(error, match=message):
        Vocabulary(words, templates)
