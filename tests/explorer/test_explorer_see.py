"""The shares of a picture add up at every granularity, and maps show where a concept is."""

import copy
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

pytest.importorskip("gradio")

from hf_msae.explorer.components.picture_input import diverse_rows, embedded_upload, examples_of
from hf_msae.explorer.components.where import highest, overlay, where
from hf_msae.explorer.kept import Kept
from hf_msae.explorer.tabs.see import view as tab
from hf_msae.explorer.tabs.see.answer import ALL, granularities, granularity_bounds, see


@pytest.fixture(scope="module")
def embedding(explorer):
    return explorer.embed_picture(explorer.picture(0))


def reconstruction(explorer, embedding, granularity):
    with torch.no_grad():
        code = explorer.msae.encode(embedding[None], None if granularity == ALL else int(granularity))
        return explorer.msae.decode(code)[0].double()


def test_granularities_go_from_coarse_to_all_that_any_picture_has(explorer):
    most = (explorer.codes > 0).sum(axis=1).max()
    *steps, last = granularities(explorer)
    assert granularity_bounds(explorer) == (8, most)
    assert last == ALL and steps[0] == "8" and int(steps[-1]) < most
    assert [int(step) for step in steps] == sorted({int(step) for step in steps})


@pytest.mark.parametrize(("active", "bounds"), [(0, (1, 2)), (1, (1, 2)), (8, (1, 8)), (9, (8, 9))])
def test_a_slider_has_two_ends_even_where_pictures_have_few_concepts(explorer, active, bounds):
    few = copy.copy(explorer)
    few.codes = np.zeros_like(explorer.codes)
    few.codes[3, :active] = 1
    assert granularity_bounds(few) == bounds
    assert granularities(few)[-1] == ALL and len(granularities(few)) > 1


def test_a_number_its_digits_and_the_right_end_of_the_slider_are_understood(explorer, embedding):
    most = granularity_bounds(explorer)[1]
    for forms, granularity in (((16, "16", 16.0), "16"), ((most, str(most), ALL), ALL)):
        assert {see(explorer, embedding, form).granularity for form in forms} == {granularity}


def test_the_chosen_granularity_is_among_those_compared_in_its_place(explorer, embedding):
    levels = see(explorer, embedding, 11).levels
    assert [each["granularity"] for each in levels] == ["8", "11", *granularities(explorer)[1:]]
    similarities = [each["centered_cosine"] for each in levels]
    assert similarities[0] < similarities[1] < similarities[2] and levels[1]["num_active"] == 11
    mean = explorer.msae.input_mean.double()
    for level in levels:
        again = reconstruction(explorer, embedding, level["granularity"])
        assert level["cosine"] == pytest.approx(float(F.cosine_similarity(again, embedding.double(), 0)), abs=1e-6)
        centered = F.cosine_similarity(again - mean, embedding.double() - mean, 0)
        assert level["centered_cosine"] == pytest.approx(float(centered), abs=1e-6)


@pytest.mark.parametrize("granularity", [8, 9, 16, ALL])
def test_shares_are_what_their_definition_says_and_add_up_to_one(explorer, embedding, granularity):
    msae = explorer.msae
    x = embedding.double() - msae.input_mean.double()
    with torch.no_grad():
        code = msae.encode(embedding[None], None if granularity == ALL else granularity)[0]
        bias = msae.decode(torch.zeros_like(code)[None])[0].double() - msae.input_mean.double()
        shares = code.double() * (msae.dictionary.double() @ x) / msae.input_scale.double() / (x @ x)
    residual = embedding.double() - reconstruction(explorer, embedding, granularity)
    found = see(explorer, embedding, granularity)
    concepts = found.concepts
    assert np.allclose(concepts["share"], shares[concepts["latent"].tolist()], rtol=0, atol=1e-9)
    assert (
        set(concepts["latent"]) == set(code.nonzero().flatten().tolist())
        and concepts["share"].abs().is_monotonic_decreasing
    )
    assert found.bias == pytest.approx(float(bias @ x / (x @ x)), abs=1e-6)
    assert found.not_reconstructed == pytest.approx(float(residual @ x / (x @ x)), abs=1e-6)
    assert concepts["share"].sum() + found.bias + found.not_reconstructed == pytest.approx(1, abs=1e-9)


def test_the_tables_show_the_rest_and_mark_the_chosen_level(explorer, embedding):
    for granularity, which in ((32, "32"), (ALL, "all")):
        found = see(explorer, embedding, granularity)
        level = next(each for each in found.levels if each["granularity"] == str(granularity))
        numbers = tab.numbers(explorer, found)
        bars, levels = tab.concept_bars(explorer, numbers), tab.html.levels(numbers)
        assert f"<b>{level['centered_cosine']:.3f}</b>" in bars and "not explained" in bars
        assert f"{len(found.concepts) - tab.SHOWN} other concepts" in bars
        chosen = levels.partition('<tr class="msae-chosen" aria-current="true">')[2].split("</tr>")[0]
        assert levels.count("aria-current") == 1 and f'<th scope="row">{which}' in chosen


def test_clients_are_told_what_the_granularity_can_be():
    slider = tab.granularity_slider()
    assert slider.api_info()["anyOf"] == [{"type": "integer"}, {"type": "string"}]
    assert "all" in slider.api_info()["description"] and slider.example_payload() == 16


def test_concepts_to_look_closer_at_begin_with_the_pictures_own_and_name_each_once(explorer, embedding):
    found, fine = see(explorer, embedding, "8"), see(explorer, embedding, ALL)
    texts, keys = zip(*tab.closer_choices(explorer, found, fine), strict=True)
    assert keys[:8] == tuple(explorer.key_of(latent) for latent in found.concepts["latent"])
    assert {explorer.key_of(latent) for latent in fine.concepts["latent"][: tab.SHOWN]} <= set(keys[: 8 + tab.SHOWN])
    assert len(keys) == len(set(keys)) and set(explorer.concepts) <= set(keys)
    for text, key in zip(texts, keys, strict=True):
        assert ("(unvalidated)" in text) == (not explorer.label(explorer.latent_of(key)).validated)


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


def test_a_picture_is_embedded_once_for_all_granularities(explorer, upload, monkeypatch):
    loading = SimpleNamespace(get=lambda: explorer)
    kept = embedded_upload(loading, upload, None)
    assert torch.allclose(kept[1], explorer.embeddings[3], atol=1e-5)
    monkeypatch.setattr(explorer, "embed_picture", lambda _: pytest.fail("it was embedded again"))
    assert embedded_upload(loading, upload, kept) is kept


def test_the_pictures_with_most_of_a_concept_come_strongest_first_and_have_it(explorer):
    found = tab.alike(explorer, "crescent")
    values = [float(caption.removeprefix("crescent ")) for _, caption in found]
    assert values == sorted(values, reverse=True) and values[-1] > 0
    assert values[0] == pytest.approx(explorer.codes[:, explorer.latent_of("crescent")].max(), abs=0.01)
    rows = [int(Path(path).stem) for path, _ in found]
    assert all(explorer.images[row]["crescent"] for row in rows[:3])


def test_a_map_is_high_where_the_concept_is(explorer):
    # Row 0: the meadow is the lower part of the picture.
    found = where(explorer, explorer.picture(0), "meadow").activations
    half = len(found) // 2
    assert found[half:].mean() > 3 * found[:half].mean()


def test_a_map_is_compared_with_the_collection_and_not_with_itself(explorer, monkeypatch):
    monkeypatch.setattr("hf_msae.explorer.components.where.COMPARED", 12)
    monkeypatch.setattr("hf_msae.explorer.components.where._highest", Kept(1))
    found = where(explorer, explorer.picture(0), "bolt")  # has none
    model = explorer.patch_model
    highest = max(model.patch_map(explorer.picture(row), "bolt").max() for row in range(found.num_compared))
    assert found.scale == pytest.approx(highest, rel=1e-4) and found.num_compared == 12
    assert found.strongest < 0.2 * found.scale
    assert np.ptp(np.asarray(found.picture).astype(int), axis=2).mean() < 10  # nearly all of it is faded


def test_the_collection_is_read_once_and_in_batches_for_two_who_ask_for_maps(explorer, monkeypatch):
    backbone, read, sizes = explorer.patch_model.backbone, explorer.patch_model.backbone.read, []

    def spy(hook_point, images, *args, **kwargs):
        sizes.append(len(images))
        return read(hook_point, images, *args, **kwargs)

    monkeypatch.setattr(backbone, "read", spy)
    asked = copy.copy(explorer)  # nobody has asked this one
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(highest, [asked, asked])
    assert sizes == [64] and first is second


def test_a_picture_keeps_its_colors_where_the_map_is_high_and_is_grey_elsewhere():
    picture = Image.new("RGB", (40, 20), (200, 30, 90))
    drawn = np.asarray(overlay(picture, np.array([[1.0, 0.0]]), (0, 0, 40, 20)))
    left, right = drawn[:, : drawn.shape[1] // 2], drawn[:, drawn.shape[1] // 2 :]
    assert (left == (200, 30, 90)).all()
    assert (right.max(axis=2) == right.min(axis=2)).all()


def test_what_the_model_does_not_see_of_a_picture_is_faded():
    picture = Image.new("RGB", (40, 20), (200, 30, 90))
    drawn = np.asarray(overlay(picture, np.ones((2, 2)), (10, 0, 30, 20)))  # the middle square
    colorful = np.ptp(drawn.astype(int), axis=2)[0] > 0
    width = len(colorful)
    assert colorful[width // 4 : 3 * width // 4].all()
    assert not colorful[: width // 4 - 1].any() and not colorful[3 * width // 4 + 1 :].any()


def test_there_is_no_map_without_a_patch_model(explorer):
    alone = copy.copy(explorer)
    alone.patch_model = None
    assert where(alone, explorer.picture(0), "crescent") is None
