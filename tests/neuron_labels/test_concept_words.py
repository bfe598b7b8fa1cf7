import logging
import sys

import numpy as np
import pytest

from hf_msae.neuron_labels.words import KnownConcepts, clean_concept, load_word_embeds, same_words


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        (' "A Red Star." ', "red star"),
        ("the  polka dots", "polka dots"),
        ("\u201cT-shirt\u201d", "t-shirt"),
        ("Straße", "strasse"),
        ("\uff52ed", "red"),
    ],
)
def test_concepts_get_one_form(text, clean):
    assert clean_concept(text) == clean


@pytest.mark.parametrize("text", ["", "...", "42", "red\x00", "red\u202eder", "a " * 20, "x" * 61, "one\ntwo"])
def test_what_is_no_concept_is_refused(text):
    with pytest.raises(ValueError, match="concept"):
        clean_concept(text)


def test_a_path_or_format_string_is_only_text():
    assert clean_concept("../../etc/passwd {0.__class__}") == "/../etc/passwd {0.__class__}"


PLURALS = """
    bus buses, glass glasses, box boxes, dress dresses, bench benches, brush brushes, lens lenses, canvas canvases,
    iris irises, gas gases, house houses, horse horses, rose roses, vase vases, nose noses, cheese cheeses, axe axes,
    prize prizes, quiz quizzes, berry berries, city cities, movie movies, cookie cookies, pie pies, tie ties, bee bees,
    tomato tomatoes, shoe shoes, toe toes, photo photos, canoe canoes, leaf leaves, knife knives, wolf wolves,
    loaf loaves, shelf shelves, glove gloves, wave waves, stove stoves, olive olives, chief chiefs, roof roofs,
    giraffe giraffes, man men, woman women, fireman firemen, child children, person people, foot feet, tooth teeth,
    goose geese, mouse mice, cactus cacti, cactus cactuses, oasis oases, octopus octopuses, bridge bridges,
    face faces, cage cages, tree trees, key keys, boy boys, sheep sheep, circle circles, caves cave, red.stars Red.star
"""


def test_number_case_and_punctuation_do_not_count():
    pairs = [pair.split() for pair in PLURALS.split(",")]
    assert [(one, other) for one, other in pairs if same_words(one) != same_words(other)] == []


def test_other_words_are_other_concepts():
    words = "bus bush bass base glass class brass bra gas star stair house horse hose rose rows tie toe tree man moon"
    words = [*words.split(), "wolf", "wool", "leaf", "lead", "red", "read", "cat", "cats eye", "news", "new", "lens"]
    assert len({same_words(word) for word in words}) == len(words)


def test_marks_are_parts_of_words():
    pairs = [("हाथी", "हाथ"), ("เสือ", "เสีย"), ("كِتاب", "كُتاب")]  # elephant, hand; tiger, broken; book, scribes
    assert all(len({same_words(word) for word in pair}) == 2 for pair in pairs)
    assert same_words("लाल हाथी") == "लाल हाथी" and same_words("cafe\u0301s") == same_words("caf\u00e9")
    assert same_words("\u2600\ufe0f suns") == same_words("sun"), "a mark that follows no letter is none"
    known = KnownConcepts(lambda texts: np.array([[float(text == "हाथी"), float(text != "हाथी")] for text in texts]))
    known.add("लाल हाथी")
    assert known.find("लाल हाथ") is None


def test_known_concepts_are_found_by_words_and_by_meaning():
    vectors = {"car": (1, 0), "house": (0.95, 0.3), "automobile": (0.95, 0.3), "tree": (0, 1)}
    known = KnownConcepts(lambda texts: np.array([vectors[text] for text in texts]))
    known.add("red car")
    known.add("red car")
    assert list(known) == ["red car"]
    assert known.find("Red cars") == "red car"
    assert known.find("red automobile") == "red car"
    assert known.find("red tree") is None
    assert known.find("red houses".removesuffix("s")) == "red car"  # words are embedded as they are, not as stems
    assert known.find("car") is None  # more general, so another concept
    without = KnownConcepts()
    without.add("red car")
    assert without.find("red automobile") is None


def test_word_embeddings_know_what_is_similar():
    units = load_word_embeds()(["cat", "kitten", "bridge"])
    units = units / np.linalg.norm(units, axis=1, keepdims=True)
    assert units[0] @ units[1] > 0.4 > units[0] @ units[2]


def test_the_package_of_word_embeddings_does_not_configure_logging(tmp_path, monkeypatch):
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "wordllama", raising=False)
    content = "import logging\nlogging.basicConfig(level=logging.INFO)\n\n\nclass WordLlama:\n    load = dict\n"
    (tmp_path / "wordllama.py").write_text(content)
    level = root.level
    assert callable(load_word_embeds.__wrapped__())
    assert not root.handlers and root.level == level and sys.modules["wordllama"].WordLlama
