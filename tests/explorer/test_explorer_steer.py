"""Labels of a picture before and after its concepts are changed."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("gradio")

from hf_msae.explorer import VisitorError
from hf_msae.explorer.tabs.steer import view as tab
from hf_msae.explorer.tabs.steer.answer import (
    ADD,
    AS_NAMED,
    MULTIPLY,
    Edit,
    concepts_in,
    example,
    example_labels,
    prompts,
    read_edits,
    read_labels,
    steer,
    strong_activation,
)

LABELS = ("star", "circle", "heart", "square")


@pytest.fixture(scope="module")
def embedding(explorer):
    """Of a picture with one large star."""
    truth = explorer.images.select_columns(["star", "one"]).to_pandas()
    return explorer.embeddings[int(np.flatnonzero(truth["star"] & truth["one"])[0])]


@pytest.fixture(scope="module")
def steered(explorer, embedding):
    """(slots, labels) -> what becomes of the labels of that picture."""
    return lambda *slots, labels=LABELS: steer(explorer, embedding, labels, read_edits(explorer, slots))


def test_probabilities_are_the_backbones_own_softmax_over_the_labels(explorer, embedding, steered):
    found = steered()
    model = explorer.model.backbone.model
    texts = torch.nn.functional.normalize(explorer.embed_texts(LABELS), dim=-1)
    logits = model.logit_scale.detach().exp() * texts @ torch.nn.functional.normalize(embedding, dim=0)
    assert torch.allclose(torch.tensor(found.before), logits.softmax(dim=0), atol=1e-4)
    assert found.after == found.before and found.similarity == 1
    assert sum(found.before) == pytest.approx(1)
    assert steered(labels=LABELS[::-1]).before == pytest.approx(found.before[::-1])


def test_a_label_loses_what_its_concept_loses_and_wins_what_it_gains(steered):
    off = steered(("star", MULTIPLY, 0))
    assert off.before[0] > 0.9 and off.after[0] < 0.5
    assert sum(off.after) == pytest.approx(1)
    on = steered(("star", MULTIPLY, 0), ("heart", ADD, 1))
    assert on.likeliest == (LABELS.index("star"), LABELS.index("heart"))


def test_what_concepts_do_not_explain_stays_and_only_their_directions_move(explorer, embedding, steered):
    latent = explorer.latent_of("star")
    found = steered(("star", ADD, 2))
    (change,) = found.changes
    assert change.after == pytest.approx(change.before + 2 * strong_activation(explorer, latent))
    msae = explorer.msae
    moved = embedding + (change.after - change.before) * (msae.dictionary[latent] / msae.input_scale).detach()
    assert found.after == pytest.approx(steer(explorer, moved, LABELS).before, abs=1e-5)
    assert found.similarity == pytest.approx(float(torch.cosine_similarity(embedding, moved, dim=0)), abs=1e-5)


def test_multiplying_by_one_and_what_is_not_there_change_nothing_and_this_is_said(explorer, embedding, steered):
    present = concepts_in(explorer, embedding)
    absent = next(name for name in explorer.concepts if name not in present)
    for slot in (("star", MULTIPLY, 1), (absent, MULTIPLY, 3), (absent, ADD, 0)):
        found = steered(slot)
        assert not found.changed and found.after == found.before
        assert "changes nothing" in tab.html.summary(explorer, found)


def test_one_visitor_does_not_touch_another(explorer, embedding, steered):
    kept, codes = embedding.clone(), explorer.codes.copy()
    first = steered()
    steered(("star", MULTIPLY, 0), ("heart", ADD, 3))
    assert torch.equal(embedding, kept) and np.array_equal(explorer.codes, codes)
    assert steered() == first


def test_prompts_change_the_question_and_include_those_of_the_names(explorer, embedding):
    choices = prompts(explorer)
    assert choices[AS_NAMED] == ("{}", "a {} shape", "a picture of something {}")
    found = [steer(explorer, embedding, LABELS, (), prompt).before for prompt in choices]
    assert len(set(found)) == len(choices)
    with pytest.raises(VisitorError, match="from the list"):
        steer(explorer, embedding, LABELS, (), "{}")


def test_braces_in_labels_are_words(explorer, embedding):
    found = steer(explorer, embedding, read_labels("{0}, {star!r}"), (), AS_NAMED)
    assert found.labels == ("{0}", "{star!r}")


def test_labels_are_read_from_lines_and_commas():
    assert read_labels(" a star,a  circle\n\nheart ;") == ("a star", "a circle", "heart")


def test_a_concept_that_no_picture_has_cannot_be_added(explorer, embedding):
    unused = int(np.flatnonzero(~(explorer.codes > 0).any(axis=0))[0])
    with pytest.raises(VisitorError, match=f"latent {unused}"):
        steer(explorer, embedding, LABELS, [Edit(f"latent {unused}", unused, ADD, 1.0)])


def test_the_concepts_of_a_picture_come_strongest_first(explorer, embedding):
    there = concepts_in(explorer, embedding)
    values = list(there.values())
    assert values == sorted(values, reverse=True) and min(values) > 0
    assert "star" in list(there)[:4]


def test_the_edit_to_begin_with_changes_the_answer(explorer, monkeypatch):
    row, labels, name = example(explorer)
    names, there = read_labels(labels), concepts_in(explorer, explorer.embeddings[row])
    assert len(names) == 5 and list(names[:2]) == list(there)[:2] and name == names[0]
    assert not set(names[2:]) & set(there)  # what the picture does not show
    edits = read_edits(explorer, [(name, MULTIPLY, 0)])
    before, after = steer(explorer, explorer.embeddings[row], names, edits).likeliest
    assert before != after and names[before] == name
    monkeypatch.setattr("hf_msae.explorer.tabs.steer.answer.MIN_LABELS", 6)
    assert example(explorer) is None  # too few labels


def test_labels_to_begin_with_come_from_names_and_not_from_columns(explorer):
    other = copy.copy(explorer)
    other.images = explorer.images.rename_columns({"star": "flag", "circle": "other"})
    assert example_labels(other, 3) == example_labels(explorer, 3)
    strange = {"a, b": "star", "x" * 200: "circle"}
    other.concepts = {**explorer.concepts, **{name: explorer.concepts[like] for name, like in strange.items()}}
    assert all(not set(strange) & set(read_labels(example_labels(other, row))) for row in range(20))
    stars, renamed = explorer.concepts["star"], {"not a_thing": "circle", "shape: big_star": "star", "huge": "star"}
    other.concepts = {name: explorer.concepts[like] for name, like in renamed.items()}
    row = int(explorer.codes[:, stars.latent].argmax())
    assert example_labels(other, row) == "big star, huge", "as people write it, and nothing that is absent"
    del other.concepts["huge"]
    assert example_labels(other, row) == "" and example(other) is None, "one label is no choice"
    other.model = SimpleNamespace(concepts=None)
    assert example_labels(other, 3) == ""  # numbers of latents are no labels


def test_a_strong_activation_is_what_nine_of_ten_pictures_do_not_exceed(explorer):
    latent = explorer.latent_of("star")
    active = explorer.codes[:, latent][explorer.codes[:, latent] > 0]
    assert (active <= strong_activation(explorer, latent)).mean() == pytest.approx(0.9, abs=1 / len(active))


def test_both_bars_of_a_label_have_one_scale_and_labels_are_escaped(explorer, steered):
    found = steered(("star", MULTIPLY, 0), labels=("<i>star</i>", "heart"))
    html = tab.html.probabilities(found)
    assert "<i>" not in html and "“&lt;i&gt;star" in html and "Of these 2 labels" in html
    for share in (*found.before, *found.after):
        assert f"width:{share:.2%}" in html
    assert f"{found.changes[0].before:.2f} → 0.00" in tab.html.summary(explorer, found)
