"""The parts of a match add up to the cosine, whatever is compared, and what cannot be compared is refused."""

import copy

import numpy as np
import pytest
import torch
from torch.nn import functional as F

pytest.importorskip("gradio")

from hf_msae.explorer import VisitorError
from hf_msae.explorer.tabs.match import view as tab
from hf_msae.explorer.tabs.match.answer import fitting_words, match


@pytest.fixture(scope="module")
def embeddings(explorer):
    """Of three pictures and of words."""
    pictures = [explorer.embed_picture(explorer.picture(row)) for row in (0, 1, 2)]
    return [*pictures, explorer.embed_texts(["a striped crescent"])[0]]


def cosine(one, other):
    return float(F.cosine_similarity(one.double(), other.double(), 0))


@pytest.mark.parametrize(("one", "other"), [(0, 1), (0, 3), (0, 0)])
def test_the_parts_that_clients_get_are_the_explanations_and_add_up_to_the_cosine(explorer, embeddings, one, other):
    found = match(explorer, embeddings[one], embeddings[other])
    told, explanation = tab.numbers(explorer, found), found.explanation
    assert told["cosine"] == pytest.approx(cosine(embeddings[one], embeddings[other]), abs=1e-9)
    parts = [each["contribution"] for each in told["concepts"]]
    assert parts == explanation.frame["contribution"].tolist()[: tab.SHOWN]
    rest = told["other_concepts"] + told["bias"] + told["not_reconstructed"]
    assert sum(parts) + rest == pytest.approx(told["cosine"], abs=1e-9)
    assert len(parts) + told["num_other_concepts"] == (explorer.code(embeddings[one]) > 0).sum()


def test_words_that_name_what_is_in_a_picture_match_by_it(explorer, embeddings):
    found = match(explorer, embeddings[0], embeddings[3]).explanation
    assert set(found.top(2)["name"]) == {"crescent", "striped"}
    assert found.similarity > cosine(embeddings[0], explorer.embed_texts(["a dotted blue square"])[0])


def test_closer_pictures_are_counted_without_the_second_one_itself(explorer, embeddings):
    rows = explorer.embeddings[0 : len(explorer.embeddings)].double()
    for other in (1, 3):
        second = embeddings[other].double()
        cosines = (rows @ second / rows.norm(dim=1) / second.norm()).numpy()
        expected = int((cosines > cosine(embeddings[0], second) + 1e-6).sum()) - (other == 1)
        found = match(explorer, embeddings[0], embeddings[other])
        assert (found.num_closer, found.num_pictures) == (expected, len(explorer.images))


def test_no_picture_is_closer_than_itself(explorer):
    for words in explorer.embed_texts([f"a red {word}" for word in ("star", "square", "crescent", "heart", "ring")]):
        closest = int(explorer.index.by_embedding(words, 1)["row"].iloc[0])
        assert match(explorer, explorer.embeddings[closest], words).num_closer == 0


def test_the_table_shows_the_rest_and_the_sum(explorer, embeddings):
    found = match(explorer, embeddings[0], embeddings[1])
    table = tab.match_table(explorer, tab.numbers(explorer, found))
    others = len(found.explanation.frame) - tab.SHOWN
    for row in (f"{others} other concepts", "what all pictures share (bias)", "not explained"):
        assert f'<tr class="msae-muted"><th scope="row">{row}' in table
    assert f"{found.explanation.similarity:+.4f}" in table.rpartition("sum")[2]
    assert "msae-negative" in table  # something speaks against these two


def test_sentences_name_only_what_is_validated_and_weighs_something(explorer, embeddings):
    found = match(explorer, embeddings[0], embeddings[3])
    text = tab.in_words(tab.numbers(explorer, found), "these words")
    pro = text.partition("for the match: ")[2].partition(".")[0].split(", ")
    frame = found.explanation.frame
    largest = frame["contribution"].abs().max()
    contributions = {row.name: row.contribution for row in frame[::-1].itertuples()}
    assert pro and all(contributions[name] > 0.1 * largest for name in pro)
    assert all(explorer.label(explorer.latent_of(name)).validated for name in pro)
    assert "crescent" not in text.partition("against it: ")[2]
    assert f"{found.explanation.similarity:.3f}" in text and "200" in text


def test_the_words_of_the_example_fit_it(explorer):
    assert fitting_words(explorer, 0) == explorer.caption(0)
    bare = copy.copy(explorer)
    bare.images = explorer.images.remove_columns(["caption"])
    del bare._captions  # read from the pictures of the original
    word = fitting_words(bare, 0)
    activations = {name: explorer.codes[0, each.latent] for name, each in explorer.concepts.items()}
    assert word == max(activations, key=activations.get) and activations[word] > 0


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("value", [0.0, np.nan])
def test_an_embedding_without_a_direction_is_refused(explorer, embeddings, place, value):
    pair = [embeddings[0], embeddings[1]]
    pair[place] = torch.full_like(embeddings[0], value)
    with pytest.raises(VisitorError, match="zero"):
        match(explorer, *pair)
