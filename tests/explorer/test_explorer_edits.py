"""Saved edits, applied to a picture."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch

pytest.importorskip("gradio")

from hf_msae.explorer import Explorer, ExplorerSettings, VisitorError
from hf_msae.explorer.edits import check_edits, read_edits
from hf_msae.explorer.tabs.edits import view
from hf_msae.explorer.tabs.edits.answer import apply_edit, example
from hf_msae.explorer.tabs.steer.answer import probabilities
from hf_msae.steering import METHODS, gaussian_task
from tests.explorer.asking import address, ask, upload

LABELS = ("star", "circle", "heart")


@pytest.fixture(scope="module")
def embedding(explorer, star):
    return explorer.embeddings[int(np.flatnonzero(star)[0])]


@pytest.mark.parametrize("name", ["star", "reactive", "code"])
def test_what_is_said_is_what_the_edit_does(steered, embedding, name):
    edit = steered.edits[name]
    found, near = apply_edit(steered, embedding, name, -1, LABELS)
    after = edit.remove(embedding)
    assert (found.edit, found.method, found.amount) == (name, edit.method, -1)
    assert found.score == pytest.approx(float(edit.score(embedding)), abs=1e-5)
    assert found.score_after == pytest.approx(float(edit.score(after)), abs=1e-3) and found.score_after < found.score
    of_all = edit.score(steered.embeddings[:]).numpy()
    assert found.num_compared == len(of_all) and abs(found.num_below - (of_all < found.score).sum()) <= 1
    assert found.dose == pytest.approx(float((after - embedding).norm() / embedding.norm()), rel=1e-4)
    assert found.similarity == pytest.approx(float(torch.cosine_similarity(embedding, after, dim=0)), abs=1e-5)
    assert [found.before, found.after] == [
        pytest.approx(each, abs=1e-5) for each in probabilities(steered, [embedding, after], LABELS)
    ]
    assert found.before[0] > found.after[0]
    for table, query in ((near.before, embedding), (near.after, after)):
        expected = steered.index.by_embedding(query, 12)
        assert table["row"].tolist() == expected["row"].tolist()
        np.testing.assert_allclose(table["score"], expected["similarity"], atol=1e-5)
    json.dumps(asdict(found), allow_nan=False)


def test_amounts_are_parts_of_the_removal_or_what_is_added(steered, embedding):
    edit = steered.edits["star"]
    whole = apply_edit(steered, embedding, "star", -1)[0]
    assert apply_edit(steered, embedding, "star", -0.5)[0].dose == pytest.approx(whole.dose / 2, rel=1e-4)
    assert apply_edit(steered, embedding, "star", -2)[0].dose == pytest.approx(whole.dose * 2, rel=1e-4)
    more = float(edit.score(edit.add(embedding, 1.5)))
    assert apply_edit(steered, embedding, "star", 1.5)[0].score_after == pytest.approx(more, abs=1e-4)
    nothing, near = apply_edit(steered, embedding, "star", 0)
    assert (nothing.dose, nothing.similarity, nothing.changed) == (0, pytest.approx(1), False)
    assert near.num_new == 0 and "amount of 0" in view.html.summary(nothing)


def test_where_the_concept_is_not_found_a_reactive_edit_changes_nothing_and_this_is_said(steered, star):
    edit = steered.edits["reactive"]
    row = next(row for row in np.flatnonzero(~star) if float(edit.score(steered.embeddings[int(row)])) < 0)
    found, _ = apply_edit(steered, steered.embeddings[int(row)], "reactive", -1, LABELS)
    assert not found.changed and found.after == found.before
    assert "changes nothing" in view.html.summary(found)


def test_one_visitor_does_not_touch_another(steered, embedding):
    kept, all_before = embedding.clone(), steered.embeddings[:].clone()
    first = apply_edit(steered, embedding, "star", -1, LABELS)[0]
    apply_edit(steered, embedding, "star", 2, LABELS)
    assert torch.equal(embedding, kept) and torch.equal(steered.embeddings[:], all_before)
    assert apply_edit(steered, embedding, "star", -1, LABELS)[0] == first


def test_the_picture_to_begin_with_has_most_of_the_concept(steered, star):
    row = example(steered, "star")
    assert star[row] and row == int(steered.edits["star"].score(steered.embeddings[:]).argmax())


@pytest.mark.parametrize(
    ("name", "amount", "told"),
    [
        ("moon", -1, "from the list"),
        (None, -1, "from the list"),
        ("star", -2.5, "from -2 to 2"),
        ("star", "1", "number"),
    ],
)
def test_what_makes_no_sense_is_refused(steered, embedding, name, amount, told):
    with pytest.raises(VisitorError, match=told):
        apply_edit(steered, embedding, name, amount)


def test_edits_are_read_from_their_folder_or_from_one_of_several(fitted, tmp_path, explorer):
    for name in ("b", "a"):
        fitted("lda").save_pretrained(tmp_path / "edits" / name)
    (tmp_path / "edits" / "notes").mkdir()
    assert list(read_edits(tmp_path / "edits")) == ["a", "b"]
    (edit,) = read_edits(tmp_path / "edits" / "b").values()
    assert edit.method == "lda" and list(read_edits(tmp_path / "edits" / "b")) == ["b"]
    with pytest.raises(FileNotFoundError, match="notes"):
        read_edits(tmp_path / "edits" / "notes")
    (tmp_path / "edits" / "a" / "edit.json").write_text("{")
    with pytest.raises(ValueError, match=r"edits/a.*damaged"):
        read_edits(tmp_path / "edits")


@pytest.mark.parametrize(
    ("of", "said"),
    [
        ({"base_model_weights_sha256": "0" * 64, "base_model_name_or_path": "user/other"}, "mine.*user/other"),
        ({"base_model_weights_sha256": None}, "mine.*backbone is unknown"),
        ({"hook_point": "vision.layers.1"}, r"mine.*vision\.layers\.1"),
        ({"width": 7}, "mine.*7.*128"),
    ],
)
def test_edits_of_something_else_are_refused_by_name(explorer, fitted, of, said):
    edit = fitted("mean_difference")
    edit.provenance |= of
    with pytest.raises(ValueError, match=said):
        Explorer(explorer.model, explorer.images, explorer.embeddings[:], edits={"mine": edit})


def test_an_edit_of_another_space_ends_the_loading_before_pictures_are_embedded(tmp_path, monkeypatch):
    task = gaussian_task(num_rows=200, width=128)
    METHODS["lda"]().fit(task.features, task.concepts["bias"]).save_pretrained(tmp_path / "mine")
    monkeypatch.setattr("hf_msae.explorer.sources._embed", lambda *_: pytest.fail("pictures were embedded"))
    with pytest.raises(ValueError, match=r"mine.*backbone is unknown"):
        Explorer.load(ExplorerSettings(dataset="scenes:test:60:7", edits=str(tmp_path)))


def test_programs_can_ask_where_there_are_edits(demo, steered_demo, picture):
    pages = [page.fns.values() for page in (demo, steered_demo)]
    names = [{each.api_name for each in page if each.api_visibility == "public"} for page in pages]
    assert names[1] - names[0] == {"edit", "swordbench"} and "steer" in names[0]
    url = address(steered_demo)
    path = json.loads(upload(url, picture.read_bytes())[1])[0]
    sent = {"path": path, "meta": {"_type": "gradio.FileData"}}
    told = ask(url, "edit", sent, "star", -1, "star, heart", None)
    assert "The edit reads" in told and "nearest pictures" in told and '"method": "leace"' in told
    assert "from the list" in ask(url, "edit", sent, "moon", -1, "", None)
    assert "upload" in ask(url, "edit", {"path": "/etc/hostname"}, "star", -1, "", None)


def test_edits_are_checked_once_they_are_fitted(explorer):
    with pytest.raises(ValueError, match="not been fitted"):
        check_edits({"mine": METHODS["lda"]()}, explorer.model.backbone)
