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


@pytest.mark.parametrize(
    ("one", "other"), [("Red stars", "red star"), ("berries", "berry"), ("boxes", "box"), ("t-shirt", "T shirt")]
)
def test_number_case_and_punctuation_do_not_count(one, other):
    assert same_words(one) == same_words(other)


def test_singular_words_stay():
    assert [same_words(word) for word in ("glass", "bus", "iris", "gas")] == ["glass", "bus", "iris", "gas"]


def test_known_concepts_are_found_by_words_and_by_meaning():
    vectors = {"car": (1, 0), "automobile": (0.95, 0.3), "tree": (0, 1)}
    known = KnownConcepts(lambda texts: np.array([vectors[text] for text in texts]))
    known.add("red car")
    known.add("red car")
    assert list(known) == ["red car"]
    assert known.find("Red cars") == "red car"
    assert known.find("red automobile") == "red car"
    assert known.find("red tree") is None
    assert known.find("car") is None  # more general, so another concept
    without = KnownConcepts()
    without.add("red car")
    assert without.find("red automobile") is None


def test_word_embeddings_know_what_is_similar():
    units = load_word_embeds()(["cat", "kitten", "bridge"])
    units = units / np.linalg.norm(units, axis=1, keepdims=True)
    assert units[0] @ units[1] > 0.4 > units[0] @ units[2]
