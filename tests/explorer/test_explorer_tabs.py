"""What holds for all tabs: a question that makes no sense is refused, and names that may be chance are marked."""

import numpy as np
import pytest

pytest.importorskip("gradio")

from hf_msae.explorer import VisitorError
from hf_msae.explorer.components.where import where
from hf_msae.explorer.tabs.bias.answer import TEXTS, Target, bias, dose_response, read_target
from hf_msae.explorer.tabs.common import choice
from hf_msae.explorer.tabs.concepts import view as concepts
from hf_msae.explorer.tabs.concepts.answer import evidence, listing
from hf_msae.explorer.tabs.search import view as searching
from hf_msae.explorer.tabs.search.answer import CONCEPTS, PICTURE, ROW, WORDS, read_strengths, search
from hf_msae.explorer.tabs.see import view as seeing
from hf_msae.explorer.tabs.see.answer import read_granularity
from hf_msae.explorer.tabs.steer.answer import ADD, MULTIPLY, read_edits, read_labels


def curves(explorer, names):
    return dose_response(explorer, bias(explorer, Target(column="blurry")), names)


NO_NUMBER, NO_CHOICE, NO_CONCEPT = "number", "from the list", "no such concept"


@pytest.mark.parametrize(
    ("ask", "given", "told"),
    [
        *((read_granularity, [value], "granularity") for value in (None, 7, 8.5, 10**6, True, float("nan"))),
        *((read_granularity, [value], "granularity") for value in ("all ", "-8", "١٦", "8" * 1000, ["8"])),
        (seeing.alike, ["no such concept"], NO_CONCEPT),
        (lambda explorer: where(explorer, explorer.picture(0), "no such concept"), [], NO_CONCEPT),
        (search, ["magic"], NO_CHOICE),
        (search, [None], NO_CHOICE),
        (search, [ROW, None, None, 200], "from 0 to 199"),
        (search, [ROW, None, None, 1.5], "whole number"),
        (search, [ROW, None, None, "3"], NO_NUMBER),
        (search, [WORDS, None, " \n"], "Write"),
        (search, [WORDS, None, "a" * 10_000], "10,000"),
        (search, [PICTURE], "picture"),
        (search, [PICTURE, {"path": "/etc/hostname"}], "upload"),
        (search, [CONCEPTS], "at least one"),
        (search, [CONCEPTS, None, None, None, {"star": -1.0}], "at least one"),
        (read_strengths, [[("no such thing", 1.0)]], NO_CONCEPT),
        (read_strengths, [[("star", float("nan"))]], NO_NUMBER),
        (read_strengths, [[("star", 3.5)]], "from -2 to 3"),
        (read_strengths, [[("star", 1.0), ("latent 317", 2.0)]], "latent 317.*twice"),  # which is the star
        (listing, [5], "words"),
        (listing, ["a" * 1000], "1,000"),
        (listing, ["", None], "yes or no"),
        (listing, ["", "true"], "yes or no"),
        (listing, ["", False, "beauty"], NO_CHOICE),
        (evidence, ["latent 1024"], NO_CONCEPT),
        (evidence, [float("nan")], NO_CONCEPT),
        *((read_target, [value], NO_CHOICE) for value in ("no such column", "caption", None, ["star"])),
        (read_target, [TEXTS, "", "no star"], "box 1"),
        (read_target, [TEXTS, "a star", None], "box 2"),
        (read_target, [TEXTS, "a star", {"no": "star"}], "box 2"),
        (read_target, [TEXTS, "x" * 10_000, "no star"], "10,000"),
        (read_target, [TEXTS, "A star ", "a  STAR"], "the same"),
        *((curves, [names], "Choose a concept") for names in (None, [], "blurry")),
        (curves, [["blurry"] * 5], "At most 4"),
        (curves, [["no such"]], NO_CONCEPT),
        (curves, [["latent 1000"]], "latent 1000"),
        (read_edits, [[("no such", MULTIPLY, 0)]], NO_CONCEPT),
        (read_edits, [[("star", "divide", 0)]], NO_CHOICE),
        (read_edits, [[("star", MULTIPLY, "2")]], NO_NUMBER),
        (read_edits, [[("star", ADD, -1)]], "from 0 to 3"),
        (read_edits, [[("star", ADD, 1), ("latent 317", ADD, 1)]], "latent 317.*twice"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_it_is(explorer, ask, given, told):
    with pytest.raises(VisitorError, match=told):
        ask(explorer, *given)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "there are 0"),
        ("\0, ,", "there are 0"),
        ("one", "there is 1"),
        (",".join(map(str, range(11))), "there are 11"),
        ("x" * 10_000, "10,000"),
        ("a, " + "x" * 101, "more than 100"),
        ("A star, a  STAR", "the same"),
        (["a", "b"], "words"),
    ],
)
def test_labels_that_cannot_be_are_refused(text, told):
    with pytest.raises(VisitorError, match=told):
        read_labels(text)


def test_slots_without_a_concept_or_a_change_are_left_out(explorer):
    assert read_strengths(explorer, [("", 1.0), (None, "x"), ("red", 0), ("star", 2)]) == {"star": 2.0}
    assert read_edits(explorer, [("", "nonsense", None), (None, None, None)]) == ()


def test_names_that_may_be_chance_are_marked_everywhere(explorer):
    latent = next(each for each in np.flatnonzero(explorer.codes[5]) if not explorer.label(each).validated)
    key, name = f"latent {latent}", explorer.label(latent).name
    changed = search(explorer, ROW, row=5, wanted={key: -1.0})
    shown = [
        searching.html.summary(explorer, changed),
        choice(explorer, latent)[0],
        seeing.alike(explorer, key)[0][1],
        concepts.html.evidence(evidence(explorer, key)),
        concepts.styled(explorer, listing(explorer, str(latent)).frame).to_html(),
    ]
    for each in shown:
        assert name in each and "(unvalidated)" in each
    assert choice(explorer, latent) == (f"{name} (unvalidated), {key}", key)
    assert choice(explorer, explorer.latent_of("star")) == ("star", "star")
    sure = [concepts.html.evidence(evidence(explorer, "star")), seeing.alike(explorer, "star")[0][1]]
    assert not any("(unvalidated)" in each for each in sure)
