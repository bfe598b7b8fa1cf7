"""What drives a classifier, as the page tells it: targets, halves, bars, and curves."""

import copy
import html
from dataclasses import replace
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch

from hf_msae.bias.probabilities import as_classifier
from hf_msae.explorer import VisitorError
from hf_msae.explorer.kept import Kept
from hf_msae.explorer.tabs.bias import answer
from hf_msae.explorer.tabs.bias.answer import (
    MIN_EACH,
    TEXTS,
    Target,
    _probe,
    bias,
    columns,
    dose_response,
    explain_classifier,
    first_to_ask,
    first_to_draw,
    probability_of_second,
    read_target,
    usable_columns,
)
from hf_msae.metrics import LinearClassifier

TARGET = Target(column="blurry")


@pytest.fixture(scope="module")
def found(explorer):
    return bias(explorer, TARGET)


def test_the_concept_of_a_column_drives_its_probe(found):
    first = found.report.frame.iloc[0]
    assert first["name"] == "blurry"
    assert first["drives"]
    assert first["effect"] > 0.3
    assert first["low"] <= first["effect"] <= first["high"]
    assert found.accuracy > found.guessing


def test_a_probe_is_asked_about_pictures_it_has_not_seen_and_both_halves_have_as_many(explorer, monkeypatch):
    seen = {}
    fit = LinearClassifier.fit.__func__

    def spy(cls, embeddings, labels, *args, **kwargs):
        seen["rows"], seen["labels"] = np.asarray(embeddings), np.asarray(labels)
        return fit(cls, embeddings, labels, *args, **kwargs)

    monkeypatch.setattr(LinearClassifier, "fit", classmethod(spy))
    _, test, _, _ = _probe(explorer, "blurry")
    asked = explorer.embeddings[test].numpy()
    assert not {row.tobytes() for row in asked} & {row.tobytes() for row in seen["rows"]}
    assert len(asked) + len(seen["rows"]) == len(explorer.images)
    truth = np.array(explorer.images["blurry"])
    assert abs(int(truth[test].sum()) - int(seen["labels"].sum())) <= 1


def test_the_quick_probability_is_that_of_the_classifier(explorer):
    classifier = explorer.zero_shot(["a red shape", "a blue shape"])
    x = torch.cat([explorer.embeddings[:50], torch.zeros(1, explorer.embeddings.width)])
    expected = as_classifier(classifier, 1)(x)
    assert torch.allclose(probability_of_second(classifier)(x), expected, rtol=0, atol=1e-5)


def test_two_texts_ask_about_the_first(explorer):
    red = bias(explorer, read_target(explorer, TEXTS, "a red shape", "a blue shape"))
    blue = bias(explorer, read_target(explorer, TEXTS, "a blue shape", "a red shape"))
    effects = [each.report.frame.set_index("name")["effect"] for each in (red, blue)]
    assert effects[0]["red"] > 0.1 > -0.1 > effects[0]["blue"]
    assert np.allclose(effects[0], -effects[1].loc[effects[0].index], atol=1e-6)
    assert red.share == pytest.approx(1 - blue.share)
    assert red.accuracy is None


def test_answers_are_computed_once_and_those_about_texts_kept_without_them(explorer, found, monkeypatch):
    assert bias(explorer, Target(column="blurry")) is found
    asked = []

    def spy(explorer, target):
        asked.append((explorer, target))
        return replace(found, target=target, report=replace(found.report, target=str(target)))

    monkeypatch.setattr(answer, "explain_classifier", spy)
    monkeypatch.setattr(answer, "_of_texts", Kept(2))
    target = read_target(explorer, TEXTS, "a secret star", "no star")
    first, second = bias(explorer, target), bias(explorer, read_target(explorer, TEXTS, "a secret star", "no  star"))
    assert len(asked) == 1 and second.report.frame.equals(first.report.frame)
    assert second.target == target and second.report.target == "a secret star"
    other = copy.copy(explorer)
    assert bias(explorer, Target(texts=target.texts[::-1])).target.texts == target.texts[::-1]
    assert bias(other, target).target == target
    assert len(asked) == 3  # another order and another model are other questions
    ((_, digest), (_, future)), *_ = answer._of_texts._answers.items()
    assert b"secret" not in digest and "secret" not in repr(future.result())


def test_columns_that_are_offered_have_enough_of_both_kinds(explorer):
    assert set(usable_columns(explorer)) < set(columns(explorer))
    assert "caption" not in columns(explorer)
    counts = explorer.images.select_columns(list(usable_columns(explorer))).to_pandas().sum()
    assert counts.between(MIN_EACH, len(explorer.images) - MIN_EACH).all()


def test_columns_of_two_classes_of_any_type_are_offered_and_their_second_class_is_explained(explorer, monkeypatch):
    monkeypatch.setattr(answer, "_labelled", answer._labelled.__wrapped__)  # which keeps one collection
    other, truth = copy.copy(explorer), np.array(explorer.images["blurry"])
    words = np.where(truth, "soft", "sharp").tolist()
    words[0] = ""
    given = {"number": truth.astype(int).tolist(), "word": words, "three": (np.arange(len(truth)) % 3).tolist()}
    images = datasets.Dataset.from_dict(
        {"image": [None] * len(truth), **given, "declared": truth.astype(int).tolist()}
    )
    images = images.cast_column("declared", datasets.ClassLabel(names=["sharp", "soft"]))
    other.images = images.cast_column("image", datasets.Image())
    assert columns(other) == {"number": ("0", "1"), "word": ("sharp", "soft"), "declared": ("sharp", "soft")}
    assert set(usable_columns(other)) == set(columns(other))
    assert answer._labels(other, "number").tolist() == truth.tolist() == answer._labels(other, "declared").tolist()
    word = explain_classifier(other, read_target(other, "word")).report
    assert word.target == "word soft" and word.frame["name"][0] == "blurry" and word.frame["effect"][0] > 0.3


def test_a_target_that_hardly_any_picture_has_is_refused_with_its_numbers(explorer):
    assert "sunset" not in usable_columns(explorer)
    have = sum(explorer.images["sunset"])
    with pytest.raises(VisitorError, match=f"sunset.*{have} of the 200 pictures"):
        bias(explorer, read_target(explorer, "sunset"))


def test_a_classifier_that_says_the_same_of_all_is_refused(explorer):
    with pytest.raises(VisitorError, match=r"all 200 pictures.*yes"):
        bias(explorer, Target(texts=("xyzzy", "a picture of a shape")))


def test_of_many_concepts_the_likeliest_are_tested_and_the_tests_pay_for_all(explorer, found, monkeypatch):
    answer = "hf_msae.explorer.tabs.bias.answer"
    probe = _probe(explorer, "blurry")
    monkeypatch.setattr(f"{answer}._probe", lambda *_: probe)
    monkeypatch.setattr(f"{answer}.MAX_CONCEPTS", 5)
    few = explain_classifier(explorer, TARGET)
    assert len(few.report.frame) == 5 and few.report.frame["name"][0] == "blurry"
    assert few.num_concepts == found.num_concepts == len(found.report.frame)
    monkeypatch.setattr(f"{answer}._corrected", lambda report, number: report)
    alone = explain_classifier(explorer, TARGET).report.frame.set_index("latent")
    paid = few.report.frame.set_index("latent").loc[alone.index]
    expected = (alone["q_effect"] * found.num_concepts / 5).clip(upper=1)
    assert np.allclose(paid["q_effect"], expected)
    assert (paid["drives"] == alone["drives"] & (expected <= 0.05)).all()


def test_a_curve_goes_from_absent_to_most_and_its_90_percent_dose_gives_the_effect(explorer, found):
    assert first_to_draw(explorer, found) == found.report.drivers["name"].tolist()[:3]
    (curve,) = dose_response(explorer, found, ["blurry"])
    assert curve.shares == (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
    assert list(curve.doses) == sorted(curve.doses)
    assert curve.doses[0] == 0
    row = found.report.frame.set_index("name").loc["blurry"]
    assert curve.probabilities[4] - curve.probabilities[0] == pytest.approx(row["effect"])
    assert all(low <= p <= high for low, p, high in zip(curve.low, curve.probabilities, curve.high, strict=True))


def test_the_column_to_begin_with_is_one_that_a_concept_is_named_like(explorer):
    first, usable = first_to_ask(explorer), usable_columns(explorer)
    assert first in set(usable) & set(explorer.concepts)
    other = copy.copy(explorer)
    other.concepts = {name: each for name, each in explorer.concepts.items() if name != first}
    assert first_to_ask(other) in set(usable) & set(other.concepts)
    other.concepts = {}
    assert first_to_ask(other) == usable[0]


@pytest.mark.parametrize(
    ("q", "low", "said", "not_said"),
    [
        (0.125, 0.1, ("Not proven", "blurry", "1 in 8 "), "None of"),
        (0.01, -0.1, ("Not proven", "blurry", "includes 0"), "1 in"),
        (0.9, 0.1, ("is shown to drive",), "may drive"),
    ],
)
def test_what_is_not_proven_is_called_so_with_its_odds(explorer, found, q, low, said, not_said):
    pytest.importorskip("gradio")
    from hf_msae.explorer.tabs.bias import view

    frame = found.report.frame.assign(q_effect=1.0, drives=False)
    frame.loc[0, ["q_effect", "low"]] = q, low
    unsure = replace(found, report=replace(found.report, frame=frame))
    sentence = view.headline(unsure)
    assert all(each in sentence for each in said) and not_said not in sentence
    assert view.numbers(unsure)["verdict"] == sentence
    page = html.unescape(view.findings(explorer, unsure))
    assert sentence in page and "Benjamini" in page and "Holm" in page
    assert first_to_draw(explorer, unsure) == ["blurry"]


def test_drivers_and_what_goes_along_stand_apart(explorer, found):
    pytest.importorskip("gradio")
    from hf_msae.explorer.tabs.bias.view import findings, numbers

    frame = found.report.frame.assign(p_association=1.0)
    frame.loc[len(frame) - 3 :, "p_association"] = 0.001
    report = replace(found.report, frame=frame)
    html = findings(explorer, replace(found, report=report))
    driving, along = html.split("What only goes along")
    for place, row in enumerate(frame.itertuples()):
        listed = f'<th scope="row">{row.name}</th>'
        assert (listed in driving) == row.drives
        assert (listed in along) == (place >= len(frame) - 3)
    assert report.verdict()[1:].split(":")[0].replace("'", "&#39;") in html
    assert f"{report.num_samples} of the pictures" in html
    assert len(numbers(found)["concepts"]) == len(frame)


@pytest.mark.filterwarnings("ignore:The value passed into gr.Dropdown")  # an update, made outside an event
@pytest.mark.parametrize(
    ("first", "told"), [("blurry", "What drives it"), ("sunset", "20 of each"), (None, "Write in the two boxes")]
)
def test_opening_the_tab_asks_about_a_column_and_where_it_cannot_the_columns_are_offered(
    explorer, monkeypatch, first, told
):
    gr = pytest.importorskip("gradio")

    from hf_msae.explorer.tabs.bias import view as tab

    monkeypatch.setattr(tab, "first_to_ask", lambda _: first)
    with gr.Blocks() as demo, gr.Tab("Bias") as box:
        tab.build(SimpleNamespace(get=lambda: explorer, is_done=True, has_failed=False), box.select)

    def events(name):
        return [each for each in demo.fns.values() if name in [event for _, event in each.targets]]

    (opening,) = events("select")
    target, opened, timer = opening.fn(False, None)
    assert opened and not timer.active and len(opening.outputs) == 3
    assert [name for _, name in target.choices] == [*usable_columns(explorer), TEXTS]
    assert target._constructor_args[0]["value"] == (first or TEXTS)
    for given in ((True, None), (False, "star")):  # opened before, or somebody has chosen meanwhile
        again, *_ = opening.fn(*given)
        assert "value" not in getattr(again, "_constructor_args", [{}])[0]
    words_shown, asking = events("change")  # the column that comes is asked about as one that is chosen
    assert words_shown.fn(first or TEXTS).visible == (first is None)
    html, numbers, asked = asking.fn(first or TEXTS, "", "")
    assert told in html and (asked is None) == (numbers is None) == (first != "blurry")
