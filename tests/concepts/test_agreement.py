"""Names from pictures: planted truth behind a modality gap, decoys, synonyms, second meanings and the figures."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from torch.nn.functional import normalize

from hf_msae import MSAEConfig, MSAEModel
from hf_msae.concepts import Vocabulary, agreement, moments, name_by_agreement, name_latents, zero_shot
from hf_msae.concepts.moments import MomentsCollector
from hf_msae.concepts.table import name_columns
from hf_msae.embeddings import load_embeddings

D, CONCEPTS, ROWS = 32, 12, 3000
LATENTS = CONCEPTS + 2  # one of two meanings, and one that is never active


def _generator(seed):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def world():
    """Pictures and words with a modality gap, and an MSAE whose latent j is active where concept j is."""
    axes = torch.linalg.qr(torch.randn(D, D, generator=_generator(0)))[0]
    concepts, image_gap, text_gap = axes[:CONCEPTS], 3 * axes[-1], 3 * axes[-2]
    there = torch.rand(ROWS, CONCEPTS, generator=_generator(1)) < 0.06
    noise = 0.05 * torch.randn(ROWS, D, generator=_generator(2))
    pictures = image_gap + there.float() @ concepts + noise
    words = text_gap + concepts + 0.05 * torch.randn(CONCEPTS, D, generator=_generator(3))
    msae = MSAEModel(MSAEConfig(d_in=D, num_latents=LATENTS, nesting_ks=[LATENTS])).eval()
    with torch.no_grad():
        rows = torch.cat([concepts, concepts[:2].sum(0, keepdim=True), concepts[:1]])
        msae.encoder.copy_(rows.T)
        msae.decoder.copy_(normalize(rows, dim=-1))
        msae.pre_bias.zero_()
        msae.latent_bias.fill_(-0.5)
        msae.latent_bias[-1] = -100.0
    return msae, pictures, words


VOCABULARY = Vocabulary([f"concept {i}" for i in range(CONCEPTS)])


def _names(world, words=None, vocabulary=VOCABULARY, **options):
    msae, pictures, planted = world
    return name_by_agreement(
        msae, pictures, vocabulary, planted if words is None else words, progress=False, **options
    )


@pytest.fixture(scope="module")
def names(world):
    """What `name_by_agreement` finds. Do not change it in place."""
    return _names(world)


@pytest.fixture(scope="module")
def table(world):
    """What `name_latents` finds. Do not change it in place."""
    return name_latents(world[0], VOCABULARY, world[2], world[1])


def test_every_latent_gets_the_word_of_its_concept_across_the_gap(table):
    frame = table.to_pandas()
    assert frame["name"][:CONCEPTS].tolist() == list(VOCABULARY)
    assert frame["validated"][:CONCEPTS].all()
    assert table.provenance["evidence"] == "pictures"
    assert (frame["direction_name"][:CONCEPTS] == frame["name"][:CONCEPTS]).mean() > 0.5
    assert table.best()["agreement"].is_monotonic_decreasing


@pytest.mark.parametrize(("number", "far", "seed"), [(12, 0.0, 0), (12, 0.05, 1), (400, 0.0, 2), (400, 0.05, 0)])
def test_a_vocabulary_of_noise_validates_nothing(world, number, far, seed):
    noise = torch.randn(number, D, generator=_generator(seed)) / D**0.5
    noise[: int(far * number)] *= 10  # words that lie much farther out than the others
    noise += 3 * normalize(torch.randn(1, D, generator=_generator(10)), dim=-1)
    found = _names(world, noise, Vocabulary([f"noise {i}" for i in range(number)]), seed=seed)
    assert found["name"].notna().sum() > LATENTS // 2  # names there are, but no evidence
    assert (found["q_value"] > 0.05).all()


def test_names_hold_among_many_words_of_noise(world):
    noise = world[2].mean(0) + torch.randn(3000, D, generator=_generator(5)) / D**0.5
    vocabulary = Vocabulary([*VOCABULARY, *(f"noise {i}" for i in range(3000))])
    found = _names(world, torch.cat([world[2], noise]), vocabulary)
    right = found["name"][:CONCEPTS] == list(VOCABULARY)
    assert right.all() and (found["q_value"][:CONCEPTS] <= 0.05).all()


def test_of_synonyms_the_most_frequent_is_the_name(world):
    words = torch.cat([world[2], world[2][3:4] + 0.02 * torch.randn(1, D, generator=_generator(6))])
    plain = [*VOCABULARY, "synonym"]
    found = _names(world, words.flip(0), Vocabulary(plain[::-1], order="frequency")).loc[3]
    assert (found["name"], found["synonyms"]) == ("synonym", "concept 3")
    found = _names(world, words, Vocabulary(plain, order="frequency")).loc[3]
    assert (found["name"], found["synonyms"]) == ("concept 3", "synonym")
    assert found["runner_up"] not in (None, "concept 3", "synonym")


def test_a_second_meaning_is_said(names):
    both = names.loc[CONCEPTS]
    assert {both["name"], both["also"]} == {"concept 0", "concept 1"}
    assert both["also_agreement"] > 0.4
    assert (names["also_agreement"][:CONCEPTS].fillna(0) < 0.3).all()


def test_the_name_is_no_second_meaning_of_itself(world):
    few = _names(world, world[2][:3], Vocabulary(VOCABULARY.words[:3]))
    assert (few["name"] != few["also"])[few["name"].notna()].all() and few["also"].notna().any()
    assert (few["also"].isna() == few["also_agreement"].isna()).all()


def test_a_latent_that_no_picture_activates_has_no_name(names, table):
    dead = names.loc[LATENTS - 1]
    assert dead[["name", "runner_up", "also"]].isna().all() and dead["synonyms"] == ""
    assert (dead["p_value"], dead["q_value"]) == (1, 1)
    assert np.isnan(dead["agreement"]) and np.isnan(dead["zero_shot_auroc"])
    frame = table.to_pandas()
    assert frame["name"].iloc[-1] == frame["direction_name"].iloc[-1] and not frame["validated"].iloc[-1]


def _with_latents_that_are_never_active(msae, number):
    """The same model with more latents, and with its latents in other places."""
    places = torch.randperm(number, generator=_generator(8))[:LATENTS]
    larger = MSAEModel(MSAEConfig(d_in=D, num_latents=number, nesting_ks=[number])).eval()
    with torch.no_grad():
        larger.latent_bias.fill_(-100.0)
        larger.pre_bias.zero_()
        larger.encoder[:, places], larger.latent_bias[places] = msae.encoder, msae.latent_bias
    return larger, places


def test_latents_that_are_never_active_change_nothing(world, names):
    larger, places = _with_latents_that_are_never_active(world[0], 300)
    found = _names((larger, *world[1:]))
    assert found["latent"].tolist() == list(range(300))
    pd.testing.assert_frame_equal(
        found.drop(columns="latent").loc[places.tolist()].reset_index(drop=True),
        names.drop(columns="latent"),
        check_exact=False,
        atol=1e-5,
    )
    others = found.drop(places.tolist())
    assert others["name"].isna().all() and (others["p_value"] == 1).all() and (others["q_value"] == 1).all()


def test_without_any_active_latent_there_are_names_by_direction_alone(world):
    dead = MSAEModel(MSAEConfig(d_in=D, num_latents=LATENTS, nesting_ks=[LATENTS])).eval()
    dead.load_state_dict(world[0].state_dict())
    torch.nn.init.constant_(dead.latent_bias, -100.0)
    frame = name_latents(dead, VOCABULARY, world[2], world[1]).to_pandas()
    assert frame["name"].tolist() == frame["direction_name"].tolist()
    assert not frame["validated"].any() and frame["agreement"].isna().all() and frame["activation_name"].isna().all()
    assert frame["agreement"].dtype == frame["zero_shot_auroc"].dtype == np.float64


def test_lengths_of_the_words_embeddings_do_not_matter(world, names):
    lengths = torch.rand(CONCEPTS, 1, generator=_generator(9)) * 9 + 1
    pd.testing.assert_frame_equal(_names(world, lengths * world[2]), names, check_exact=False, atol=1e-4)


def _with_a_common_part(world, strength):
    """The pictures, moved at random to or from all words."""
    text_gap = normalize(world[2].mean(0), dim=-1)
    return world[1] + strength * torch.randn(ROWS, 1, generator=_generator(11)) * text_gap


@pytest.mark.parametrize("strength", [0.15, 0.3])
def test_what_raises_the_scores_of_all_words_hides_no_name(world, strength):
    frame = name_latents(world[0], VOCABULARY, world[2], _with_a_common_part(world, strength)).to_pandas()
    assert frame["name"][:CONCEPTS].tolist() == list(VOCABULARY)
    assert frame["validated"][:CONCEPTS].all()


def test_a_text_among_the_pictures_hides_no_name(world):
    msae, pictures, words = world
    with pytest.warns(UserWarning, match=r"without 2 of the 3,002 .*rows 0, 2"):
        mixed = torch.cat([words[:1], pictures[:1], 2 * words[3:4], pictures[1:]])
        frame = name_latents(msae, VOCABULARY, words, mixed).to_pandas()
    assert frame["name"][:CONCEPTS].tolist() == list(VOCABULARY)
    assert frame["validated"][:CONCEPTS].all()


@pytest.mark.parametrize("strength", [0.0, 0.3])
def test_figures_are_of_pictures_that_did_not_choose_the_name(world, strength):
    msae, words = world[0], world[2]
    pictures = _with_a_common_part(world, strength)
    found = _names((msae, pictures, words), seed=4)
    held_out = np.random.default_rng(4).permutation(ROWS) < ROWS // 2
    with torch.no_grad():
        latents = msae.encode(pictures).numpy()[held_out]
    scores = (normalize(pictures, dim=-1) @ normalize(words, dim=-1).T).numpy()
    common, of_words = scores.mean(axis=1, keepdims=True), scores[~held_out].var(axis=0).mean()
    of_common = common[~held_out].var()
    kept = np.sqrt(min(1, 0.4 / 0.6 * (of_words - of_common) / of_common))  # so it is 40% of what is left
    assert kept == 1 if strength == 0 else kept < 0.7
    scores = (scores - (1 - kept) * common)[held_out]
    for latent in (0, 5, CONCEPTS):
        row = found.loc[latent]
        score = scores[:, VOCABULARY.words.index(row["name"])]
        assert row["agreement"] == pytest.approx(np.corrcoef(latents[:, latent], score)[0, 1], abs=1e-4)
        fits = np.exp(2 * (score - score.mean()) / score.std())
        fits /= fits.sum()
        number = 1 / (fits**2).sum()
        difference = np.subtract.outer(latents[:, latent], latents[:, latent])
        above = (difference > 0) + 0.5 * (difference == 0)
        area = fits @ above @ (1 - number * fits) / (len(score) - number)
        assert row["zero_shot_auroc"] == pytest.approx(area, abs=1e-5)
        assert row["zero_shot_pictures"] == pytest.approx(number, rel=1e-4)
        assert row["zero_shot_auroc_low"] < row["zero_shot_auroc"] < row["zero_shot_auroc_high"]


def test_chunks_do_not_change_the_result(world, names, monkeypatch):
    monkeypatch.setattr(moments, "_CHUNK_ENTRIES", 3 * CONCEPTS)
    monkeypatch.setattr(zero_shot, "_CHUNK_ENTRIES", 3 * ROWS)
    parts = _names(world, batch_size=700)
    for column in ("name", "synonyms", "runner_up", "also"):
        assert parts[column].tolist() == names[column].tolist()
    for column in ("agreement", "zero_shot_auroc", "p_value"):
        np.testing.assert_allclose(parts[column], names[column], atol=1e-4)


def test_too_few_pictures_are_refused(world):
    with pytest.raises(ValueError, match=r"20 different pictures.* 19"):
        name_by_agreement(world[0], world[1][:19].repeat(5, 1), VOCABULARY, world[2])


def test_weak_names_are_marked_wherever_they_stand(table):
    weak = replace(table, frame=table.frame.assign(zero_shot_auroc_low=0.5))
    assert (weak.frame["q_value"] <= 0.05).any() and "unvalidated" in repr(weak)
    assert name_columns(weak, range(3))["validated"] == [False] * 3
    assert name_columns(table, range(3))["validated"] == [True] * 3
    low = replace(table, frame=table.frame.assign(agreement=0.39))
    assert table.to_pandas()["validated"].any() and not low.to_pandas()["validated"].any()


def test_tokens_of_one_picture_are_in_the_same_half(world, monkeypatch):
    msae, pictures, words = world
    rows = [pictures[first : first + 3].tolist() for first in range(0, 600, 3)]
    tokens = load_embeddings(Dataset.from_dict({"image_embeds": rows}))
    assert tokens.has_tokens and len(tokens) == 600
    halves = []
    monkeypatch.setattr(
        agreement, "MomentsCollector", lambda second: halves.append(second) or MomentsCollector(second)
    )
    name_by_agreement(msae, tokens, VOCABULARY, words, progress=False)
    assert (halves[0].reshape(200, 3).sum(axis=1) % 3 == 0).all() and halves[0].sum() == 300


def test_copies_of_a_picture_do_not_test_the_name_that_they_chose(world):
    """Names by words of noise fit the pictures that chose them; copies of these would seem to confirm them."""
    msae, pictures, _ = world
    noise = normalize(torch.randn(400, D, generator=_generator(7)), dim=-1)
    vocabulary = Vocabulary([f"noise {i}" for i in range(400)])
    found = _names((msae, pictures[:300].repeat(6, 1), noise), vocabulary=vocabulary)
    alone = _names((msae, pictures[:300], noise), vocabulary=vocabulary)
    assert found["agreement"].mean() == pytest.approx(alone["agreement"].mean(), abs=1e-4)
