"""Searches find what is nearest, edits do to the ranks what they say, and visitors do not see each other's."""

import copy
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch.nn import functional as F

pytest.importorskip("gradio")

from hf_msae.explorer import VisitorError
from hf_msae.explorer.tabs.search import view as tab
from hf_msae.explorer.tabs.search.answer import (
    CONCEPTS,
    PICTURE,
    ROW,
    SHOWN,
    WORDS,
    by_concepts,
    example_edit,
    neighbors,
    search,
)


def cosines(explorer, embedding):
    return F.cosine_similarity(explorer.embeddings[0 : len(explorer.embeddings)], embedding[None]).numpy()


def ranked(explorer, embedding, left_out):
    order = np.argsort(-cosines(explorer, embedding), kind="stable")
    return [int(row) for row in order if row != left_out]


def edited(explorer, embedding, changes):
    """The embedding after the changes, by the formula."""
    moved = embedding.double()
    for each in changes:
        direction = explorer.msae.dictionary[each.latent].detach().double()
        moved = moved + (each.after - each.before) * direction / explorer.msae.input_scale.double()
    return moved.float()


def rows(hits):
    return hits["row"].tolist()


def share(explorer, hits, column):
    return np.mean([explorer.images[row][column] for row in rows(hits)])


def test_a_search_by_a_row_finds_the_nearest_others(explorer):
    found = search(explorer, ROW, row=5)
    assert rows(found.before) == ranked(explorer, explorer.embeddings[5], 5)[:SHOWN]
    assert found.before["rank"].tolist() == list(range(1, SHOWN + 1))
    assert np.allclose(found.before["score"], cosines(explorer, explorer.embeddings[5])[rows(found.before)])
    assert found.after is None and found.moves is None and not found.changes


def test_an_uploaded_picture_of_the_collection_finds_itself(explorer, upload):
    found = search(explorer, PICTURE, picture=upload)
    assert rows(found.before)[0] == 3 and found.before["score"].iloc[0] > 0.999


def test_words_find_pictures_of_what_they_say(explorer):
    assert share(explorer, search(explorer, WORDS, words="a blurry photo").before, "blurry") > 0.8


def test_ranks_after_an_edit_are_those_of_the_edited_embedding_without_the_row(explorer):
    found = search(explorer, ROW, row=5, wanted={"star": 1.0, "red": -2.0})
    before = ranked(explorer, explorer.embeddings[5], 5)
    after = ranked(explorer, edited(explorer, explorer.embeddings[5], found.changes), 5)
    assert rows(found.after) == after[:SHOWN]
    assert rows(found.before) == before[:SHOWN]
    assert rows(found.moves) == sorted({*before[:SHOWN], *after[:SHOWN]}, key=after.index)
    for hit in found.moves.itertuples():
        assert (hit.rank, hit.rank_before) == (1 + after.index(hit.row), 1 + before.index(hit.row))


def test_a_strength_of_one_adds_what_the_strongest_pictures_have(explorer):
    latent = explorer.latent_of("star")
    typical = np.sort(explorer.codes[:, latent])[-10:].mean()
    length = float(torch.linalg.vector_norm(explorer.embeddings[0 : len(explorer.embeddings)], dim=1).median())
    for embedding in (explorer.embeddings[5], explorer.embed_texts(["a blue house"])[0]):
        code = explorer.msae.encode(embedding[None])[0]
        for strength in (0.5, 1.0, 3.0):
            (change,) = neighbors(explorer, embedding, {"star": strength}).changes
            assert change.before == pytest.approx(float(code[latent].detach()), abs=1e-5)
            added = strength * typical * float(embedding.norm()) / length
            assert change.after - change.before == pytest.approx(added, rel=1e-4)


def test_a_strength_of_minus_one_takes_a_concept_out_and_minus_two_turns_it_round(explorer):
    row = explorer.strongest(explorer.latent_of("red"), 1)[0]
    after = [search(explorer, ROW, row=row, wanted={"red": each}).changes[0] for each in (-0.5, -1.0, -2.0)]
    assert after[0].after == pytest.approx(after[0].before / 2)
    assert after[1].after == 0 and after[2].after < 0


def test_boosting_brings_pictures_with_the_concept_and_muting_drives_them_out(explorer):
    without = [row for row in range(40) if not explorer.images[row]["star"]][:5]
    boosted = [search(explorer, ROW, row=row, wanted={"star": 1.0}) for row in without]
    assert np.mean([share(explorer, each.after, "star") for each in boosted]) > 0.5
    assert np.mean([share(explorer, each.before, "star") for each in boosted]) < 0.3
    night = [row for row in range(100) if explorer.images[row]["night"]][:5]
    muted = [search(explorer, ROW, row=row, wanted={"night": -1.0}) for row in night]
    gone = np.mean([share(explorer, each.after, "night") for each in muted])
    assert gone < 0.6 * np.mean([share(explorer, each.before, "night") for each in muted])


def test_taking_out_what_is_not_there_changes_nothing_and_is_said(explorer):
    absent = next(name for name, each in explorer.concepts.items() if explorer.codes[5, each.latent] == 0)
    found = search(explorer, ROW, row=5, wanted={absent: -1.0})
    assert not found.changed and rows(found.after) == rows(found.before)
    assert "changes nothing" in tab.html.summary(explorer, found)


def test_concepts_alone_find_pictures_that_show_them(explorer):
    found = search(explorer, CONCEPTS, wanted={"star": 1.0})
    assert found.by_concepts and found.after is None and share(explorer, found.before, "star") == 1
    assert found.before["score"].is_monotonic_decreasing and found.before["score"].iloc[-1] > 0
    kept_out = by_concepts(explorer, {"star": 1.0, "red": -2.0})
    assert share(explorer, kept_out, "red") == 0


def test_a_concept_that_no_picture_shows_cannot_be_brought_in(explorer):
    silent = int(np.flatnonzero(~(explorer.codes > 0).any(axis=0))[0])
    with pytest.raises(VisitorError, match="No picture of the collection shows"):
        search(explorer, ROW, row=5, wanted={f"latent {silent}": 1.0})
    with pytest.raises(VisitorError, match="No picture of the collection shows"):
        search(explorer, CONCEPTS, wanted={f"latent {silent}": 1.0})


def test_visitors_at_the_same_time_get_what_they_would_get_alone(explorer):
    asked = [(row, {"star": strength}) for row in range(3) for strength in (-2.0, 1.0, 3.0)]
    alone = [search(explorer, ROW, row=row, wanted=wanted) for row, wanted in asked]
    with ThreadPoolExecutor(6) as threads:
        together = list(threads.map(lambda each: search(explorer, ROW, row=each[0], wanted=each[1]), asked))
    assert [each.changes for each in together] == [each.changes for each in alone]
    assert all(one.moves.equals(other.moves) for one, other in zip(together, alone, strict=True))


def test_the_edit_to_begin_with_is_of_something_else_and_brings_it_up(explorer):
    name = example_edit(explorer, 0)
    latent = explorer.latent_of(name)
    found = search(explorer, ROW, row=0, wanted={name: 1.0})
    before, after = (explorer.codes[rows(hits), latent] for hits in (found.before, found.after))
    assert explorer.codes[0, latent] == 0 and np.mean(after) > 2 * np.mean(before)
    assert found.num_new == len(set(rows(found.after)) - set(rows(found.before))) > 1
    assert f"{found.num_new} of the 12" in tab.html.summary(explorer, found)


def test_a_picture_that_has_all_concepts_is_shown_without_an_edit(explorer):
    full = copy.copy(explorer)
    full.codes = explorer.codes + np.float32(1)
    assert example_edit(full, 0) == ""


def test_captions_say_rank_similarity_and_the_rank_before(explorer):
    found = search(explorer, ROW, row=5, wanted={"star": 1.0})
    for (path, caption), hit in zip(tab.pictures(explorer, found.after), found.after.itertuples(), strict=True):
        assert path == explorer.thumbnail(hit.row)
        was = tab.ordinal(hit.rank_before)
        assert caption == f"{tab.ordinal(hit.rank)}, similarity {hit.score:.2f}, was {was}"
    alone = tab.pictures(explorer, found.before)
    assert all("similarity" in caption and "was" not in caption for _, caption in alone)
    numbers = (1, 2, 3, 4, 11, 12, 13, 21, 102, 111, 1001)
    expected = "1st 2nd 3rd 4th 11th 12th 13th 21st 102nd 111th 1,001st"
    assert " ".join(map(tab.ordinal, numbers)) == expected


def test_the_table_has_a_line_for_each_picture_and_escapes_what_the_data_say(explorer, monkeypatch):
    found = search(explorer, ROW, row=5, wanted={"star": 1.0})
    monkeypatch.setattr(explorer, "caption", lambda row: f"<img src=x onerror=alert({row})>")
    table = tab.html.ranks(explorer, found.moves.to_dict("records"))
    assert table.count("<tr>") == 1 + len(found.moves) and "<img" not in table
    assert f"<td>{found.after['rank_before'].iloc[0]}</td><td>1</td>" in table
