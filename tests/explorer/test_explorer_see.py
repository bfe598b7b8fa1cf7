"""A picture's parts add up at every granularity, maps show where a concept is, and visitors stay apart."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

pytest.importorskip("gradio")

from hf_msae.concepts import explain_embedding
from hf_msae.concepts.labels import Label
from hf_msae.explorer import VisitorError
from hf_msae.explorer.components.concepts import shown_name, shown_name_html
from hf_msae.explorer.components.picture_input import diverse_rows, examples_of, read_upload, upload_path
from hf_msae.explorer.components.where import overlay, where
from hf_msae.explorer.tabs.see.answer import ALL, SHOWN, granularities, granularity_bounds, see
from hf_msae.explorer.tabs.see.view import (
    alike,
    closer_choices,
    concept_bars,
    granularity_slider,
    level_table,
    numbers,
    rebuilt,
    where_text,
)


@pytest.fixture(scope="module")
def embedding(explorer):
    return explorer.embed_picture(explorer.picture(0))


def reconstruction(explorer, embedding, granularity):
    with torch.no_grad():
        code = explorer.msae.encode(embedding[None], None if granularity == ALL else int(granularity))
        return explorer.msae.decode(code)[0].double()


def test_granularities_go_from_coarse_to_all_and_each_leaves_something_out(explorer):
    *steps, last = granularities(explorer)
    assert last == ALL and steps[0] == "8"
    assert [int(step) for step in steps] == sorted({int(step) for step in steps})
    assert int(steps[-1]) < (explorer.codes > 0).sum(axis=1).max()


def test_the_finest_granularity_is_the_most_concepts_that_a_picture_of_the_collection_has(explorer):
    assert granularity_bounds(explorer) == (8, (explorer.codes > 0).sum(axis=1).max())


@pytest.mark.parametrize(("active", "bounds"), [(0, (1, 2)), (1, (1, 2)), (8, (1, 8)), (9, (8, 9))])
def test_a_slider_has_two_ends_even_where_pictures_have_few_concepts(explorer, active, bounds):
    few = copy.copy(explorer)
    few.codes = np.zeros_like(explorer.codes)
    few.codes[3, :active] = 1
    assert granularity_bounds(few) == bounds
    assert granularities(few)[-1] == ALL and len(granularities(few)) > 1


def test_a_number_its_digits_and_the_right_end_of_the_slider_are_understood(explorer, embedding):
    assert see(explorer, embedding, 16) == see(explorer, embedding, "16") == see(explorer, embedding, 16.0)
    most = granularity_bounds(explorer)[1]
    assert see(explorer, embedding, most) == see(explorer, embedding, ALL)
    assert see(explorer, embedding, most).granularity == ALL


@pytest.mark.parametrize("k", [8, 9, 11, 13])
def test_k_concepts_are_the_k_largest_activations_for_any_k(explorer, embedding, k):
    with torch.no_grad():
        code = explorer.msae.encode(embedding[None])[0]
    found = see(explorer, embedding, k)
    assert {each.latent for each in found.concepts} == set(code.topk(k).indices.tolist())
    assert all(each.activation == pytest.approx(float(code[each.latent])) for each in found.concepts)


def test_the_chosen_granularity_is_among_those_compared_in_its_place(explorer, embedding):
    levels = see(explorer, embedding, 11).levels
    assert [each.granularity for each in levels] == ["8", "11", *granularities(explorer)[1:]]
    similarities = [each.centred_cosine for each in levels]
    assert similarities[0] < similarities[1] < similarities[2] and levels[1].num_active == 11


def test_all_parts_add_up_to_one_at_every_granularity(explorer, embedding):
    for granularity in granularities(explorer):
        found = see(explorer, embedding, granularity)
        parts = sum(each.part for each in found.concepts)
        assert parts + found.others + found.bias + found.unexplained == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("granularity", [9, 16, ALL])
def test_every_part_is_what_its_definition_says(explorer, embedding, granularity):
    msae = explorer.msae
    x = embedding.double() - msae.input_mean.double()
    with torch.no_grad():
        code = msae.encode(embedding[None], None if granularity == ALL else granularity)[0]
        nothing = msae.decode(torch.zeros_like(code)[None])[0].double() - msae.input_mean.double()
        dictionary = msae.dictionary.double()
    parts = {
        latent: float(code[latent].double() * (dictionary[latent] @ x) / msae.input_scale.double() / (x @ x))
        for latent in code.nonzero().flatten().tolist()
    }
    found = see(explorer, embedding, granularity)
    shown = {each.latent for each in found.concepts}
    for each in found.concepts:
        assert each.part == pytest.approx(parts[each.latent], abs=1e-12)
    assert found.others == pytest.approx(sum(part for latent, part in parts.items() if latent not in shown), abs=1e-12)
    assert found.num_others == len(parts) - len(shown)
    assert found.bias == pytest.approx(float(nothing @ x / (x @ x)), abs=1e-6)


def test_the_unexplained_part_is_what_the_reconstruction_leaves(explorer, embedding):
    x = embedding.double() - explorer.msae.input_mean.double()
    for granularity in ("8", ALL):
        left = (embedding.double() - reconstruction(explorer, embedding, granularity)) @ x / (x @ x)
        assert see(explorer, embedding, granularity).unexplained == pytest.approx(float(left), abs=1e-6)


def test_a_concept_has_the_same_part_at_every_granularity_that_has_it(explorer, embedding):
    fine = {each.latent: each.part for each in see(explorer, embedding, ALL).concepts}
    coarse = see(explorer, embedding, "8")
    assert len(coarse.concepts) == 8 and coarse.num_others == 0
    shared = [each for each in coarse.concepts if each.latent in fine]
    assert len(shared) >= 6
    for each in shared:
        assert each.part == pytest.approx(fine[each.latent], abs=1e-6)


def test_concepts_are_listed_by_the_size_of_their_parts_and_the_rest_is_counted(explorer, embedding):
    found = see(explorer, embedding, ALL)
    sizes = [abs(each.part) for each in found.concepts]
    assert sizes == sorted(sizes, reverse=True) and len(sizes) == SHOWN
    assert SHOWN + found.num_others == found.levels[-1].num_active == (explorer.codes[0] > 0).sum()


def test_the_cosines_of_a_level_are_those_of_the_reconstruction(explorer, embedding):
    mean = explorer.msae.input_mean.double()
    for level in see(explorer, embedding, "16").levels:
        again = reconstruction(explorer, embedding, level.granularity)
        assert level.cosine == pytest.approx(float(F.cosine_similarity(again, embedding.double(), 0)), abs=1e-6)
        centred = F.cosine_similarity(again - mean, embedding.double() - mean, 0)
        assert level.centred_cosine == pytest.approx(float(centred), abs=1e-6)


def test_what_is_in_a_scene_is_among_its_largest_parts(explorer):
    # Row 0: a large striped pink crescent at the top, on a meadow, with a watermark.
    found = see(explorer, explorer.embed_picture(explorer.picture(0)), "8")
    assert {"crescent", "striped", "meadow", "pink", "watermark"} <= {each.name for each in found.concepts}


@pytest.mark.parametrize(
    "granularity",
    [
        *(None, 0, 7, "7", 8.5, 10**6, -16, True, float("nan"), float("inf")),
        *("", "many", "ALL", "all ", "-8", "8.0", "١٦", "8" * 1000, ["8"], [8], {"k": 8}),
    ],
)
def test_a_granularity_that_is_none_is_refused(explorer, embedding, granularity):
    with pytest.raises(VisitorError, match="granularity"):
        see(explorer, embedding, granularity)


def test_the_key_of_a_concept_is_its_name_or_else_its_number_and_leads_back_to_it(explorer):
    kinds = set()
    for row in range(20):
        for each in see(explorer, explorer.embed_picture(explorer.picture(row)), ALL).concepts:
            chosen = explorer.concepts.get(each.name)
            is_the_one = chosen is not None and chosen.latent == each.latent
            assert each.key == (each.name if is_the_one else f"latent {each.latent}")
            assert explorer.latent_of(each.key) == each.latent
            kinds.add(is_the_one)
    assert kinds == {True, False}


def test_the_table_mutes_unvalidated_names_and_shows_what_is_not_explained(explorer, embedding):
    found = see(explorer, embedding, ALL)
    table = concept_bars(found)
    assert "not explained" in table and f"{found.num_others} other concepts" in table
    unsure = [each for each in found.concepts if not each.validated]
    assert unsure
    for each in unsure:
        row = f'<tr class="msae-muted msae-unsure"><th scope="row">{each.name}'
        assert f'{row}<span class="msae-unseen"> (unvalidated)</span>' in table
    assert table.count("(unvalidated)") == len(unsure)


def test_the_table_of_levels_marks_the_chosen_one_alone(explorer, embedding):
    table = level_table(see(explorer, embedding, "32"))
    assert table.count("aria-current") == 1
    assert '<tr class="msae-chosen" aria-current="true"><th scope="row">32' in table


def test_the_line_beside_the_slider_says_how_alike_the_rebuilt_embedding_is(explorer, embedding):
    for granularity, which in ((11, "<b>11</b> concepts"), (ALL, f"<b>All {(explorer.codes[0] > 0).sum()}</b>")):
        found = see(explorer, embedding, granularity)
        level = next(each for each in found.levels if each.granularity == str(granularity))
        assert which in rebuilt(found) and f"<b>{level.centred_cosine:.3f}</b>" in rebuilt(found)
        assert concept_bars(found).startswith(rebuilt(found))


def test_clients_are_told_what_the_granularity_can_be():
    slider = granularity_slider()
    assert slider.api_info()["anyOf"] == [{"type": "integer"}, {"type": "string"}]
    assert "all" in slider.api_info()["description"] and slider.example_payload() == 16


def test_a_name_that_may_be_chance_is_marked_and_a_number_is_not():
    assert shown_name(Label(1, "star", True)) == shown_name_html(Label(1, "star", True)) == "star"
    assert shown_name(Label(1, "star", False)) == "star (unvalidated)"
    assert shown_name(Label(417, None, False)) == shown_name_html(Label(417, None, False)) == "latent 417"
    html = shown_name_html(Label(1, "<b>", False))
    assert 'class="msae-guess"' in html and "&lt;b&gt;" in html and "(unvalidated)" in html


def test_unvalidated_names_are_marked_in_the_list_and_under_pictures(explorer, embedding):
    found = see(explorer, embedding, ALL)
    shown = {key: name for name, key in closer_choices(explorer, found)}
    unsure = [each for each in found.concepts if not each.validated]
    assert unsure
    for each in found.concepts:
        assert shown[each.key].startswith(f"{each.name} (unvalidated)" if each in unsure else each.name)
        assert ("(unvalidated)" in shown[each.key]) == (each in unsure)
    assert all(f"{unsure[0].name} (unvalidated) " in caption for _, caption in alike(explorer, unsure[0].key))


def test_examples_have_little_in_common_and_say_what_they_show(explorer):
    rows = diverse_rows(explorer, 6)
    assert rows[0] == 0 and len(set(rows)) == 6
    embeddings = explorer.embeddings[0:200].double()
    directions = F.normalize(embeddings - embeddings.mean(dim=0), dim=1)
    cosines = directions @ directions.T
    for number in range(1, 6):  # no other picture is farther from all that were chosen before
        nearest = cosines[:, rows[:number]].amax(dim=1)
        nearest[rows[:number]] = 2
        assert rows[number] == int(nearest.argmin())
    assert [text for _, text in examples_of(explorer)] == [explorer.caption(row) for row in rows]
    assert sorted(diverse_rows(explorer, 10_000)) == list(range(200))


def test_the_numbers_hold_all_that_adds_up(explorer, embedding):
    found = numbers(see(explorer, embedding, "16"))
    parts = sum(each["part"] for each in found["concepts"])
    assert parts + found["other_concepts"] + found["bias"] + found["not_explained"] == pytest.approx(1, abs=1e-9)
    assert [each["granularity"] for each in found["levels"]] == list(granularities(explorer))


def test_concepts_to_look_closer_at_begin_with_the_pictures_own_and_name_each_once(explorer, embedding):
    found = see(explorer, embedding, "8")
    fine = see(explorer, embedding, ALL)
    keys = [key for _, key in closer_choices(explorer, found, fine)]
    assert keys[:8] == [each.key for each in found.concepts]
    assert {each.key for each in fine.concepts} <= set(keys[: 8 + len(fine.concepts)])
    assert len(keys) == len(set(keys)) and set(explorer.concepts) <= set(keys)


def test_the_pictures_with_most_of_a_concept_come_strongest_first_and_have_it(explorer):
    found = alike(explorer, "crescent")
    values = [float(caption.removeprefix("crescent ")) for _, caption in found]
    assert values == sorted(values, reverse=True) and values[-1] > 0
    assert values[0] == pytest.approx(explorer.codes[:, explorer.latent_of("crescent")].max(), abs=0.01)
    rows = [int(Path(path).stem) for path, _ in found]
    assert all(explorer.images[row]["crescent"] for row in rows[:3])


@pytest.mark.parametrize("concept", [None, "no such concept", "latent 99999", "latent -1", 5, ["crescent"]])
def test_a_concept_that_does_not_exist_is_refused(explorer, concept):
    with pytest.raises(VisitorError, match="concept"):
        alike(explorer, concept)
    with pytest.raises(VisitorError, match="concept"):
        where(explorer, explorer.picture(0), concept)


@pytest.mark.slow
def test_maps_tell_pictures_with_a_concept_from_those_without(explorer):
    for concept in ("square", "watermark"):
        strongest = np.array([where(explorer, explorer.picture(row), concept).strongest for row in range(40)])
        has = np.array(explorer.images[:40][concept], bool)
        assert np.median(strongest[has]) > 2 * np.median(strongest[~has])


def test_a_map_is_high_where_the_concept_is(explorer):
    # Row 0: the meadow is the lower part of the picture.
    found = where(explorer, explorer.picture(0), "meadow").activations
    half = len(found) // 2
    assert found[half:].mean() > 3 * found[:half].mean()


def test_a_map_is_compared_with_the_collection_and_not_with_itself(explorer):
    found = where(explorer, explorer.picture(0), "bolt")  # has none
    model = explorer.patch_model
    highest = max(model.patch_map(explorer.picture(row), "bolt").max() for row in range(found.num_compared))
    assert found.scale == pytest.approx(highest, rel=1e-4) and found.num_compared == 64
    assert found.strongest < 0.2 * found.scale
    assert np.ptp(np.asarray(found.picture).astype(int), axis=2).mean() < 10  # nearly all of it is faded
    assert f"{found.scale:.2f}" in where_text(found, "bolt")


def test_a_picture_keeps_its_colours_where_the_map_is_high_and_is_grey_elsewhere():
    picture = Image.new("RGB", (40, 20), (200, 30, 90))
    drawn = np.asarray(overlay(picture, np.array([[1.0, 0.0]]), (0, 0, 40, 20)))
    left, right = drawn[:, : drawn.shape[1] // 2], drawn[:, drawn.shape[1] // 2 :]
    assert (left == (200, 30, 90)).all()
    assert (right.max(axis=2) == right.min(axis=2)).all()


def test_what_the_model_does_not_see_of_a_picture_is_faded():
    picture = Image.new("RGB", (40, 20), (200, 30, 90))
    drawn = np.asarray(overlay(picture, np.ones((2, 2)), (10, 0, 30, 20)))  # the middle square
    colourful = np.ptp(drawn.astype(int), axis=2)[0] > 0
    width = len(colourful)
    assert colourful[width // 4 : 3 * width // 4].all()
    assert not colourful[: width // 4 - 1].any() and not colourful[3 * width // 4 + 1 :].any()


def test_there_is_no_map_without_a_patch_model(explorer):
    alone = copy.copy(explorer)
    alone.patch_model = None
    assert where(alone, explorer.picture(0), "crescent") is None
    assert where_text(None, "crescent") == ""


def test_only_files_that_were_uploaded_are_opened(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    (tmp_path / "uploads").mkdir()
    for folder in (tmp_path, tmp_path / "uploads"):
        Image.new("RGB", (4, 4)).save(folder / "a.png")
    (tmp_path / "uploads" / "link.png").symlink_to(tmp_path / "a.png")
    assert read_upload({"path": str(tmp_path / "uploads" / "a.png")}).size == (4, 4)
    for path in ("a.png", "uploads/../a.png", "uploads/link.png", "uploads/a\0.png"):
        with pytest.raises(VisitorError, match="upload a file"):
            read_upload({"path": f"{tmp_path}/{path}"})
    for value in ("a.png", 5, ["a.png"], {}, {"path": None, "url": "data:image/png;base64,aaaa"}):
        with pytest.raises(VisitorError, match="upload a file"):
            upload_path(value)
    with pytest.raises(VisitorError, match="Choose a picture"):
        read_upload(None)


@pytest.mark.slow
def test_the_tab_answers_clients_and_embeds_a_picture_once_for_all_granularities(explorer, tmp_path, monkeypatch):
    import gradio as gr
    from gradio_client import Client, handle_file

    from hf_msae.explorer.app import Loading
    from hf_msae.explorer.tabs.see import view as tab

    embedded = []
    embed = explorer.embed_picture
    monkeypatch.setattr(explorer, "embed_picture", lambda picture: embedded.append(1) or embed(picture))
    files = [tmp_path / "0.png", tmp_path / "1.png"]
    for row, file in enumerate(files):
        explorer.picture(row).save(file)
    (tmp_path / "no.png").write_text("no picture")
    with gr.Blocks() as demo, gr.Tab(tab.TITLE):
        tab.build(Loading(lambda: explorer), demo.load)
    _, url, _ = demo.launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, ssr_mode=False)
    try:
        one, other = Client(url, verbose=False), Client(url, verbose=False)
        answers = [
            client.predict(handle_file(file), granularity, api_name="/see")
            for granularity in ("8", 11)
            for client, file in ((one, files[0]), (other, files[1]))
        ]
        assert len(embedded) == 2
        for place, (concepts, levels, found) in enumerate(answers):
            expected = see(explorer, embed(explorer.picture(place % 2)), ("8", 11)[place // 2])
            assert (concepts, levels) == (concept_bars(expected), level_table(expected))
            assert found["not_explained"] == pytest.approx(expected.unexplained, abs=1e-9)
        drawn, note, pictures = one.predict(handle_file(files[0]), "crescent", api_name="/look_closer")
        assert Image.open(drawn).size == (384, 384) and "crescent" in note
        assert [each["caption"] for each in pictures] == [caption for _, caption in alike(explorer, "crescent")]
        for arguments, message in (
            ((handle_file(files[0]), "7"), "granularity"),
            ((handle_file(files[0]), ["8"]), "granularity"),
            ((None, "8"), "Choose a picture"),
            ((handle_file(tmp_path / "no.png"), "8"), "picture"),
        ):
            with pytest.raises(Exception, match=message):
                one.predict(*arguments, api_name="/see")
    finally:
        demo.close()


def test_parts_are_the_shares_of_an_explanation(explorer, embedding):
    found = see(explorer, embedding, "8")
    explanation = explain_embedding(explorer.msae, embedding, top=8, k=8)
    shares = explanation.frame.set_index("latent")["share"]
    assert found.concepts and (found.bias, found.unexplained) == pytest.approx(
        (explanation.bias, explanation.not_reconstructed), abs=1e-9
    )
    for each in found.concepts:
        assert each.part == pytest.approx(shares[each.latent], abs=1e-9)
