"""Formulas: text and back, the images they are true of, and texts that are none."""

import numpy as np
import pytest

from hf_msae.neuron_labels.evaluation.formulas import Atom, Compound, parse_formula

IMAGES = {name: np.array(list(np.ndindex(2, 2, 2)), dtype=bool)[:, place] for place, name in enumerate("abc")}


def _true(text):
    return parse_formula(text).evaluate(IMAGES.__getitem__)


@pytest.mark.parametrize(
    ("text", "python"),
    [
        ("a", "a"),
        ("NOT a", "~a"),
        ("a AND b OR c", "(a & b) | c"),
        ("a OR b AND c", "a | (b & c)"),
        ("(a OR b) AND c", "(a | b) & c"),
        ("NOT (a OR b) AND NOT c", "~(a | b) & ~c"),
        ("NOT NOT a", "a"),
        ("NOT NOT (a AND b)", "a & b"),
        ("a AND (b AND (c))", "a & b & c"),
    ],
)
def test_a_formula_means_what_logic_says_and_survives_its_text(text, python):
    wanted = eval(python, {}, IMAGES)
    np.testing.assert_array_equal(_true(text), wanted)
    np.testing.assert_array_equal(_true(str(parse_formula(text))), wanted)


def test_names_may_have_several_words():
    found = parse_formula("red car AND NOT fire  truck")
    assert found == Compound(Atom("red car"), "AND", Atom("fire truck", negated=True))
    assert str(found) == "red car AND NOT fire truck"
    assert found.concepts == ("red car", "fire truck")
    assert parse_formula("sand and sea") == Atom("sand and sea")  # small letters are part of the name


@pytest.mark.parametrize("text", ["", "AND", "a AND", "(a", "a)", "NOT", "a (b)", "a OR OR b", "()"])
def test_other_texts_are_refused(text):
    with pytest.raises(ValueError, match="formula"):
        parse_formula(text)


def test_endless_brackets_are_refused():
    with pytest.raises(ValueError, match="100"):
        parse_formula("(" * 5000 + "a" + ")" * 5000)
