"""Labels of a picture before and after its concepts are changed."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hf_msae.explorer import VisitorError
from hf_msae.explorer.explorer import Concept
from hf_msae.explorer.tabs.steer.answer import (
    ADD,
    AS_IT_IS,
    AS_NAMED,
    MULTIPLY,
    Edit,
    concepts_in,
    example_edit,
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
    return explorer.embeddings[int(np.flatnonzero((truth["star"] & truth["one"]).to_numpy())[0])]


def _edits(explorer, *slots):
    return read_edits(explorer, slots)


def test_probabilities_are_the_backbones_own_softmax_over_the_labels(explorer, embedding):
    found = steer(explorer, embedding, LABELS)
    model = explorer.model.backbone.model
    texts = torch.nn.functional.normalize(explorer.embed_texts(LABELS), dim=-1)
    logits = model.logit_scale.detach().exp() * texts @ torch.nn.functional.normalize(embedding, dim=0)
    assert torch.allclose(torch.tensor(found.before), logits.softmax(dim=0), atol=1e-4)
    assert found.after == found.before
    assert found.similarity == 1
    assert sum(found.before) == pytest.approx(1)


def test_a_label_loses_what_its_concept_loses_and_wins_what_it_gains(explorer, embedding):
    off = steer(explorer, embedding, LABELS, _edits(explorer, ("star", MULTIPLY, 0)))
    assert off.before[0] > 0.9
    assert off.after[0] < 0.5
    assert sum(off.after) == pytest.approx(1)
    on = steer(explorer, embedding, LABELS, _edits(explorer, ("star", MULTIPLY, 0), ("heart", ADD, 1)))
    assert int(np.argmax(on.after)) == LABELS.index("heart")


def test_what_concepts_do_not_explain_stays_and_only_their_directions_move(explorer, embedding):
    latent = explorer.latent_of("star")
    (edit,) = _edits(explorer, ("star", ADD, 2))
    found = steer(explorer, embedding, LABELS, [edit])
    (change,) = found.changes
    assert change.after == pytest.approx(change.before + 2 * strong_activation(explorer, latent))
    msae = explorer.msae
    moved = embedding + (change.after - change.before) * (msae.dictionary[latent] / msae.input_scale).detach()
    assert found.after == pytest.approx(steer(explorer, moved, LABELS).before, abs=1e-5)
    assert found.similarity == pytest.approx(float(torch.cosine_similarity(embedding, moved, dim=0)), abs=1e-5)


def test_multiplying_by_one_and_what_is_not_there_change_nothing_and_are_said_to(explorer, embedding):
    present = dict(concepts_in(explorer, embedding))
    absent = next(name for name in explorer.concepts if name not in present)
    for slot in (("star", MULTIPLY, 1), (absent, MULTIPLY, 3), (absent, ADD, 0)):
        found = steer(explorer, embedding, LABELS, _edits(explorer, slot))
        assert not found.changed
        assert found.after == found.before


def test_one_visitor_does_not_touch_another(explorer, embedding):
    kept, codes = embedding.clone(), explorer.codes.copy()
    first = steer(explorer, embedding, LABELS)
    steer(explorer, embedding, LABELS, _edits(explorer, ("star", MULTIPLY, 0), ("heart", ADD, 3)))
    assert torch.equal(embedding, kept)
    assert np.array_equal(explorer.codes, codes)
    assert steer(explorer, embedding, LABELS) == first


def test_the_order_of_labels_is_the_visitors(explorer, embedding):
    found = steer(explorer, embedding, LABELS)
    turned = steer(explorer, embedding, LABELS[::-1])
    assert turned.labels == LABELS[::-1]
    assert turned.before == pytest.approx(found.before[::-1])


def test_prompts_change_the_question_and_include_those_of_the_names(explorer, embedding):
    choices = prompts(explorer)
    assert choices[AS_NAMED] == ("{}", "a {} shape", "a picture of something {}")
    found = [steer(explorer, embedding, LABELS, (), prompt).before for prompt in choices]
    assert len(set(found)) == len(choices)
    with pytest.raises(VisitorError, match="way to say a label"):
        steer(explorer, embedding, LABELS, (), "{}")


def test_braces_in_labels_are_words(explorer, embedding):
    found = steer(explorer, embedding, read_labels("{0}, {star!r}"), (), AS_NAMED)
    assert found.labels == ("{0}", "{star!r}")


def test_a_concept_that_no_picture_has_cannot_be_added(explorer, embedding):
    unused = int(np.flatnonzero(~(explorer.codes > 0).any(axis=0))[0])
    with pytest.raises(VisitorError, match="No picture of the collection"):
        steer(explorer, embedding, LABELS, [Edit(f"latent {unused}", unused, ADD, 1.0)])


def test_labels_are_read_from_lines_and_commas():
    assert read_labels(" a star,a  circle\n\nheart ;") == ("a star", "a circle", "heart")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "there are 0"),
        ("", "there are 0"),
        ("\0, ,", "there are 0"),
        ("one", "there is 1"),
        (",".join(map(str, range(11))), "there are 11"),
        ("x" * 10_000, "10,000 characters"),
        ("a, " + "x" * 101, "more than 100"),
        ("A star, a  STAR", "stands twice"),
        (["a", "b"], "have to be words"),
        (float("nan"), "have to be words"),
    ],
)
def test_labels_that_cannot_be_are_refused_in_words(text, told):
    with pytest.raises(VisitorError, match=told):
        read_labels(text)


@pytest.mark.parametrize(
    ("slots", "told"),
    [
        ([("no such", MULTIPLY, 0)], "no such concept"),
        ([(["star"], MULTIPLY, 0)], "no such concept"),
        ([("star", "divide", 0)], "way to change"),
        ([("star", None, 0)], "way to change"),
        ([("star", MULTIPLY, float("nan"))], "has to be a number"),
        ([("star", MULTIPLY, None)], "has to be a number"),
        ([("star", MULTIPLY, "2")], "has to be a number"),
        ([("star", MULTIPLY, True)], "has to be a number"),
        ([("star", ADD, -1)], "from 0 to 3"),
        ([("star", ADD, 1e30)], "from 0 to 3"),
        ([("star", ADD, 1), ("star", MULTIPLY, 0)], "chosen twice"),
    ],
)
def test_edits_that_cannot_be_are_refused_in_words(explorer, slots, told):
    with pytest.raises(VisitorError, match=told):
        read_edits(explorer, slots)


def test_empty_slots_are_left_out_and_one_latent_is_not_edited_twice_under_two_names(explorer):
    assert read_edits(explorer, [("", "nonsense", None), (None, None, None)]) == ()
    latent = explorer.latent_of("star")
    with pytest.raises(VisitorError, match="chosen twice"):
        read_edits(explorer, [("star", ADD, 1), (f"latent {latent}", ADD, 1)])


def test_the_concepts_of_a_picture_come_strongest_first(explorer, embedding):
    there = concepts_in(explorer, embedding)
    values = [value for _, value in there]
    assert values == sorted(values, reverse=True)
    assert min(values) > 0
    assert "star" in [name for name, _ in there[:4]]


def test_there_are_labels_to_begin_with(explorer):
    assert set(read_labels(example_labels(explorer))) <= set(explorer.concepts)


def test_the_edit_to_begin_with_turns_the_answer(explorer):
    labels = example_labels(explorer)
    row, name = example_edit(explorer, labels)
    found = steer(explorer, explorer.embeddings[row], read_labels(labels), _edits(explorer, (name, MULTIPLY, 0)))
    assert np.argmax(found.before) != np.argmax(found.after)
    assert name in found.labels[int(np.argmax(found.before))]


def test_a_strong_activation_is_what_nine_of_ten_pictures_do_not_exceed(explorer):
    latent = explorer.latent_of("star")
    active = np.sort(explorer.codes[:, latent][explorer.codes[:, latent] > 0])
    assert (active <= strong_activation(explorer, latent)).mean() == pytest.approx(0.9, abs=1 / len(active))


def test_both_bars_of_a_label_have_one_scale_and_labels_are_escaped(explorer, embedding):
    pytest.importorskip("gradio")
    from hf_msae.explorer.tabs.steer.view import paired_bars, summary

    labels = ("<b>star</b>", "heart")
    found = steer(explorer, embedding, labels, _edits(explorer, ("star", MULTIPLY, 0)))
    html = paired_bars(found)
    assert "<b>" not in html
    for share in (*found.before, *found.after):
        assert f"width:{share:.2%}" in html
    assert f"{found.changes[0].before:.2f} → 0.00" in summary(explorer, found)
    idle = steer(explorer, embedding, labels, _edits(explorer, ("star", MULTIPLY, 1)))
    assert "changes nothing" in summary(explorer, idle)


def test_the_likeliest_label_before_and_after_is_said_first(explorer, embedding):
    pytest.importorskip("gradio")
    from hf_msae.explorer.tabs.steer.view import paired_bars

    told = [
        paired_bars(steer(explorer, embedding, labels, edits)).split("</p>")[0]
        for labels, edits in (
            (LABELS, ()),
            (LABELS, _edits(explorer, ("star", MULTIPLY, 0), ("heart", ADD, 1))),
            (LABELS, _edits(explorer, ("star", MULTIPLY, 2))),
            (("<i>star", "heart"), ()),
        )
    ]
    assert "is “star”" in told[0] and "change" not in told[0]
    assert "is “star”" in told[1] and "After the change it is “heart”" in told[1]
    assert "It stays so after the change" in told[2]
    assert "“&lt;i&gt;star”" in told[3]


def test_the_list_marks_names_that_may_be_chance_and_sends_back_keys(explorer):
    pytest.importorskip("gradio")
    from hf_msae.explorer.components.concepts import concept_choices

    unsure = next(latent for latent in range(1024) if not explorer.label(latent).validated)
    name = explorer.label(unsure).name
    other = copy.copy(explorer)  # a model none of whose names is validated
    other.concepts = {name: Concept(name, unsure, False)}
    assert concept_choices(other) == [(f"{name} (unvalidated)", name)]
    assert ("star", "star") in concept_choices(explorer)


def test_names_that_are_no_labels_give_no_edit_to_begin_with(explorer):
    assert example_edit(explorer, "x" * 200) is None


@pytest.mark.slow
def test_the_steer_tab_answers_clients(explorer, tmp_path):
    gr = pytest.importorskip("gradio")
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    from hf_msae.explorer.tabs.steer import view as tab

    with gr.Blocks() as demo:
        tab.build(SimpleNamespace(get=lambda: explorer), demo.load)
    _, url, _ = demo.launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, show_error=True)
    try:
        client = Client(url, verbose=False)
        row = int(np.flatnonzero(explorer.images.select_columns(["star"]).to_pandas()["star"])[0])
        explorer.picture(row).save(tmp_path / "star.png")
        picture = handle_file(str(tmp_path / "star.png"))
        slots = ["star", MULTIPLY, 0, *["", MULTIPLY, 0] * 3]
        html, told, numbers = client.predict(picture, "star, heart", AS_IT_IS, *slots, api_name="/steer")
        assert "msae-steer" in html
        assert "star" in told
        expected = steer(explorer, explorer.embeddings[row], ("star", "heart"), _edits(explorer, tuple(slots[:3])))
        assert numbers["before"] == pytest.approx(expected.before, abs=1e-3)
        assert numbers["after"] == pytest.approx(expected.after, abs=1e-3)
        (tmp_path / "words.png").write_text("no picture")
        for bad, labels, message in (
            (handle_file(str(tmp_path / "words.png")), "star, heart", "picture"),
            (None, "star, heart", "Choose a picture first"),
            (picture, "star", "there is 1"),
        ):
            with pytest.raises(AppError, match=message):
                client.predict(bad, labels, AS_IT_IS, *slots, api_name="/steer")
    finally:
        demo.close()
