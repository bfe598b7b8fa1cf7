"""WordNet's files: senses, hypernyms, and how far above a class a label is."""

import numpy as np
import pytest

# Number, file, type, words (hexadecimal number of them), pointers, then the gloss.
DATA = """\
  1 a line of the license
00000001 03 n 01 animal 0 000 | a living thing
00000002 03 n 02 dog 0 domestic_dog 0 002 @ 00000001 n 0000 ~ 00000003 n 0000 | a pet
00000003 03 n 01 beagle 0 001 @ 00000002 n 0000 | a hound
00000004 03 n 02 frank 0 dog 0 000 | a sausage
"""
INDEX = """\
animal n 1 0 1 0 00000001
dog n 2 1 @ 2 1 00000002 00000004
domestic_dog n 1 0 1 0 00000002
beagle n 1 1 @ 1 0 00000003
frank n 1 0 1 0 00000004
"""


@pytest.fixture
def wordnet(benchmark_module, tmp_path):
    (tmp_path / "data.noun").write_text(DATA)
    (tmp_path / "index.noun").write_text(INDEX)
    return benchmark_module("wordnet").WordNet(tmp_path)


def test_steps_count_from_a_class_to_what_a_label_names(wordnet):
    assert wordnet.above("00000003") == {"00000003": 0, "00000002": 1, "00000001": 2}
    labels = ["Beagles", "domestic dogs", "dog", "animal", "frank", None]
    assert [wordnet.steps(label, "00000003") for label in labels] == [0, 1, 1, 2, np.inf, np.inf]


def test_a_word_means_its_most_frequent_sense(wordnet):
    assert wordnet.plain_words("00000002") == {"dog", "domestic dog"}
    assert wordnet.plain_words("00000004") == {"frank"}
    assert set(wordnet.nouns.values()) == {"animal", "dog", "domestic dog", "beagle", "frank"}
