"""The parts of a match add up to the cosine, whatever is compared, and what cannot be compared is refused."""

import copy

import numpy as np
import pytest
import torch
from torch.nn import functional as F

pytest.importorskip("gradio")

from hf_msae.explorer import VisitorError
from hf_msae.explorer.tabs.match.answer import SHOWN, fitting_words, match
from hf_msae.explorer.tabs.match.view import in_words, match_table, numbers


@pytest.fixture(scope="module")
def embeddings(explorer):
    """Of three pictures and of words."""
    pictures = [explorer.embed_picture(explorer.picture(row)) for row in (0, 1, 2)]
    return [*pictures, explorer.embed_texts(["a striped crescent"])[0]]


def cosine(one, other):
    return float(F.cosine_similarity(one.double(), other.double(), 0))


def total(found):
    return sum(each.contribution for each in found.parts) + found.others + found.bias + found.unexplained


@pytest.mark.parametrize(("one", "other"), [(0, 1), (1, 0), (0, 3), (2, 3), (0, 0)])
def test_the_parts_add_up_to_the_cosine(explorer, embeddings, one, other):
    found = match(explorer, embeddings[one], embeddings[other])
    assert found.cosine == pytest.approx(cosine(embeddings[one], embeddings[other]), abs=1e-9)
    assert total(found) == pytest.approx(found.cosine, abs=1e-9)


def test_a_contribution_is_the_latents_part_of_the_picture_times_the_other(explorer, embeddings):
    picture, words = embeddings[0].double(), embeddings[3].double()
    msae = explorer.msae
    with torch.no_grad():
        code = msae.encode(embeddings[0][None])[0].double()
        dictionary = msae.dictionary.double()
    for each in match(explorer, embeddings[0], embeddings[3]).parts:
        part = code[each.latent] * dictionary[each.latent] / msae.input_scale.double()
        assert each.contribution == pytest.approx(float(part @ words / picture.norm() / words.norm()), abs=1e-9)


def test_what_is_not_explained_is_the_residual_of_the_picture(explorer, embeddings):
    picture, other = embeddings[0].double(), embeddings[1].double()
    with torch.no_grad():
        residual = picture - explorer.msae.decode(explorer.msae.encode(embeddings[0][None]))[0].double()
    expected = float(residual @ other / picture.norm() / other.norm())
    assert match(explorer, embeddings[0], embeddings[1]).unexplained == pytest.approx(expected, abs=1e-6)


def test_what_all_pictures_share_is_what_an_empty_code_is_decoded_to(explorer, embeddings):
    picture, other = embeddings[0].double(), embeddings[3].double()
    with torch.no_grad():
        shared = explorer.msae.decode(torch.zeros(1, explorer.msae.config.num_latents))[0].double()
    expected = float(shared @ other / picture.norm() / other.norm())
    assert match(explorer, embeddings[0], embeddings[3]).bias == pytest.approx(expected, abs=1e-6)


def test_parts_are_listed_by_size_and_the_others_counted(explorer, embeddings):
    found = match(explorer, embeddings[0], embeddings[3])
    sizes = [abs(each.contribution) for each in found.parts]
    assert sizes == sorted(sizes, reverse=True) and len(sizes) == SHOWN
    assert found.num_others == (explorer.codes[0] > 0).sum() - SHOWN


def test_words_that_name_what_is_in_a_picture_match_by_it(explorer, embeddings):
    found = match(explorer, embeddings[0], embeddings[3])
    assert {each.name for each in found.parts[:2]} == {"crescent", "striped"}
    assert found.cosine > cosine(embeddings[0], explorer.embed_texts(["a dotted blue square"])[0])


def test_closer_pictures_are_counted_without_the_second_one_itself(explorer, embeddings):
    rows = explorer.embeddings[0 : len(explorer.embeddings)].double()
    for other in (1, 3):
        second = embeddings[other].double()
        cosines = (rows @ second / rows.norm(dim=1) / second.norm()).numpy()
        expected = int((cosines > cosine(embeddings[0], second) + 1e-7).sum()) - (other == 1)
        found = match(explorer, embeddings[0], embeddings[other])
        assert (found.num_closer, found.num_pictures) == (expected, len(explorer.images))


def test_the_table_shows_the_rest_and_the_sum(explorer, embeddings):
    found = match(explorer, embeddings[0], embeddings[1])
    table = match_table(found)
    for row in (f"all {found.num_others} other concepts", "what all pictures share (bias)", "not explained"):
        assert f'<tr class="msae-muted"><th scope="row">{row}' in table
    assert f"{found.cosine:+.4f}" in table.rpartition("the sum, which is the cosine")[2]
    assert "msae-negative" in table  # something speaks against these two


def test_names_that_may_be_chance_are_marked_in_the_table(explorer, embeddings):
    found = match(explorer, embeddings[0], embeddings[3])
    unsure = [each for each in found.parts if not each.validated]
    table = match_table(found)
    assert unsure and table.count("(unvalidated)") == len(unsure)
    for each in unsure:
        assert f'<tr class="msae-muted msae-unsure"><th scope="row">{each.name}<span class="msae-unseen">' in table


def test_the_words_of_the_example_fit_it(explorer):
    assert fitting_words(explorer, 0) == explorer.caption(0)
    bare = copy.copy(explorer)
    bare.images = explorer.images.remove_columns(["caption"])
    del bare._captions  # read from the pictures of the original
    word = fitting_words(bare, 0)
    activations = {name: explorer.codes[0, each.latent] for name, each in explorer.concepts.items()}
    assert word == max(activations, key=activations.get) and activations[word] > 0


def test_sentences_name_only_what_weighs_something(explorer, embeddings):
    found = match(explorer, embeddings[0], embeddings[3])
    text = in_words(found, "these words")
    _, _, against = text.partition("against it: ")
    for_it = text.partition("speaks for it: ")[2].partition(".")[0].split(", ")
    largest = max(abs(each.contribution) for each in found.parts)
    contributions = {each.name: each.contribution for each in reversed(found.parts)}
    assert for_it and all(contributions[name] > 0.1 * largest for name in for_it)
    assert "crescent" not in against and f"{found.cosine:.3f}" in text and "200" in text


def test_the_numbers_hold_all_that_adds_up(explorer, embeddings):
    found = numbers(match(explorer, embeddings[0], embeddings[1]))
    parts = sum(each["contribution"] for each in found["concepts"])
    assert parts + found["other_concepts"] + found["bias"] + found["not_explained"] == pytest.approx(found["cosine"])


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("value", [0.0, np.nan])
def test_an_embedding_without_a_direction_is_refused(explorer, embeddings, place, value):
    pair = [embeddings[0], embeddings[1]]
    pair[place] = torch.full_like(embeddings[0], value)
    with pytest.raises(VisitorError, match="zeros"):
        match(explorer, *pair)


@pytest.mark.slow
def test_the_tab_answers_clients(explorer, tmp_path):
    import gradio as gr
    from gradio_client import Client, handle_file

    from hf_msae.explorer.app import Loading
    from hf_msae.explorer.tabs.match import view as tab

    for row in (0, 1):
        explorer.picture(row).save(tmp_path / f"{row}.png")
    first, second = (handle_file(tmp_path / f"{row}.png") for row in (0, 1))
    with gr.Blocks() as demo, gr.Tab(tab.TITLE):
        tab.build(Loading(lambda: explorer), demo.load)
    _, url, _ = demo.launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, ssr_mode=False)
    try:
        client = Client(url, verbose=False)
        embeddings = [explorer.embed_picture(explorer.picture(row)) for row in (0, 1)]
        words = explorer.embed_texts(["a red circle"])[0]
        for found, other in (
            (client.predict(first, "  a red\ncircle ", api_name="/match_words"), words),
            (client.predict(first, second, api_name="/match_pictures"), embeddings[1]),
        ):
            expected = match(explorer, embeddings[0], other)
            assert found[2]["cosine"] == pytest.approx(expected.cosine, abs=1e-6)
            assert f"{expected.cosine:.3f}" in found[0] and "not explained" in found[1]
        for arguments, name, message in (
            ((first, " "), "/match_words", "Write a description"),
            ((first, "x" * 10_000), "/match_words", "at most 500"),
            ((None, "words"), "/match_words", "Choose a picture"),
            ((first, None), "/match_pictures", "Choose a picture"),
        ):
            with pytest.raises(Exception, match=message):
                client.predict(*arguments, api_name=name)
    finally:
        demo.close()
