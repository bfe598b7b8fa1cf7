"""Baselines on planted neurons, and ours against what names latents of an MSAE."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch.nn.functional import normalize

from hf_msae import MSAEConfig, MSAEModel
from hf_msae.concepts import Vocabulary, name_by_activations
from hf_msae.neuron_labels.evaluation.baselines import Agreement, Baseline, ClipDissect, Invert, VocabularyCosine

D, CONCEPTS, ROWS = 24, 8, 1500
VOCABULARY = Vocabulary([f"concept {i}" for i in range(CONCEPTS)])


@pytest.fixture(scope="module")
def world():
    """Images and words behind a modality gap, and an MSAE whose latent j is active where concept j is."""
    generator = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(D, D, generator=generator))[0]
    there = torch.rand(ROWS, CONCEPTS, generator=generator) < 0.08
    noise = 0.05 * torch.randn(ROWS, D, generator=generator)
    images = 2 * axes[-1] + there.float() @ axes[:CONCEPTS] + noise
    words = 2 * axes[-2] + axes[:CONCEPTS]
    msae = MSAEModel(MSAEConfig(d_in=D, num_latents=CONCEPTS, nesting_ks=[CONCEPTS])).eval()
    with torch.no_grad():
        msae.encoder.copy_(axes[:CONCEPTS].T)
        msae.decoder.copy_(axes[:CONCEPTS])
        msae.pre_bias.zero_()
        msae.latent_bias.fill_(-0.5)
    return msae, images, words, there.numpy()


def _activations(world):
    with torch.no_grad():
        return world[0].encode(world[1]).numpy()


def _baselines(world):
    msae, images, words, there = world
    return [
        ClipDissect(VOCABULARY, words, images),
        Invert(VOCABULARY.words, there, max_length=2),
        VocabularyCosine(VOCABULARY, words, msae.decoder),
        Agreement(VOCABULARY, words, images),
    ]


def test_every_baseline_finds_planted_concepts_behind_one_interface(world):
    activations, names = _activations(world), set()
    for baseline in _baselines(world):
        assert isinstance(baseline, Baseline)
        frame = baseline(activations)
        assert frame.columns.tolist() == ["neuron", "label", "score"]
        assert frame["neuron"].tolist() == list(range(CONCEPTS))
        assert frame["label"].tolist() == list(VOCABULARY.words), baseline.name
        assert frame["score"].notna().all()
        names.add(baseline.name)
    assert names == {"clip_dissect", "invert", "vocabulary_cosine", "agreement"}


def test_they_take_any_neurons_and_leave_out_those_that_never_vary(world):
    _, images, words, there = world
    rng = np.random.default_rng(0)
    logits = np.stack([4.0 * there[:, 2] - 7, np.full(ROWS, -1.0), -3.0 * there[:, 5] + 3 * there[:, 1]], axis=1)
    logits[:, [0, 2]] += rng.normal(size=(ROWS, 2))  # negative nearly everywhere
    for baseline in (ClipDissect(VOCABULARY, words, images), Invert(VOCABULARY.words, there, 1), _baselines(world)[3]):
        frame = baseline(logits)
        assert frame["label"][0] == "concept 2" and frame["label"][2] == "concept 1", baseline.name
        assert pd.isna(frame["label"][1]) and np.isnan(frame["score"][1])


@pytest.mark.parametrize("stored", [lambda array: array[::-1].copy()[::-1], lambda array: array.astype(">f4")])
def test_takes_reversed_and_big_endian_embeddings(world, stored):
    """torch takes no such arrays."""
    msae, images, words, _ = world
    images, words, decoder = (stored(each.detach().numpy()) for each in (images, words, msae.decoder))
    for baseline in (ClipDissect(VOCABULARY, words, images), VocabularyCosine(VOCABULARY, words, decoder)):
        assert baseline(_activations(world))["label"].tolist() == list(VOCABULARY.words)


def test_clip_dissect_gives_latents_the_names_and_scores_of_name_by_activations(world):
    msae, images, words, _ = world
    frame = ClipDissect(VOCABULARY, words, images, num_images=60)(_activations(world))
    wanted = name_by_activations(msae, images, VOCABULARY, words, num_samples=60, progress=False)
    assert frame["label"].tolist() == wanted["activation_name"].tolist()
    np.testing.assert_allclose(frame["score"], wanted["activation_score"], rtol=1e-3, atol=1e-4)


def test_agreement_scores_images_that_did_not_choose(world):
    frame = Agreement(VOCABULARY, world[2], world[1], seed=3)(np.random.default_rng(0).random((ROWS, 40)))
    assert frame["score"].mean() == pytest.approx(0.5, abs=0.03)  # chosen on the same images, it would be higher


def test_cosine_centers_words_because_directions_are_differences(world):
    msae, _, words, _ = world
    common = 5 * normalize(words.mean(dim=0), dim=0)
    directions = msae.decoder.detach() + common
    centered = VocabularyCosine(VOCABULARY, words, msae.decoder)(np.zeros((2, CONCEPTS)))
    plain = VocabularyCosine(VOCABULARY, words, msae.decoder, center=False)(np.zeros((2, CONCEPTS)))
    assert (centered["score"] > plain["score"]).all()
    assert VocabularyCosine(VOCABULARY, words, directions)(np.zeros((2, CONCEPTS)))["label"].notna().all()


@pytest.mark.parametrize(
    ("formula", "images"),
    [
        ("a AND b", lambda a, b, c: a & b),
        ("a AND NOT b", lambda a, b, c: a & ~b),
        ("a OR b", lambda a, b, c: a | b),
        ("(a OR b) AND c", lambda a, b, c: (a | b) & c),
        ("NOT c", lambda a, b, c: ~c),
    ],
)
def test_invert_finds_planted_formulas(formula, images):
    rng = np.random.default_rng(0)
    presence = rng.random((3000, 5)) < [0.2, 0.25, 0.55, 0.3, 0.1]
    true = images(*presence[:, :3].T)
    (found, area), *_ = Invert(list("abcde"), presence).formulas((true + 0.2 * rng.random(3000))[:, None])
    assert area == pytest.approx(1)
    columns = dict(zip("abcde", presence.T, strict=True))
    np.testing.assert_array_equal(found.evaluate(columns.__getitem__), true)
    assert len(found.concepts) == len([letter for letter in formula if letter in "abc"])


def test_inverts_score_is_the_auroc_of_its_formula():
    rng = np.random.default_rng(1)
    presence, activations = rng.random((500, 6)) < 0.3, rng.integers(0, 4, size=(500, 3)).astype(float)
    names = [f"word {i}" for i in range(6)]
    columns = dict(zip(names, presence.T, strict=True))
    for (formula, area), column in zip(Invert(names, presence).formulas(activations), activations.T, strict=True):
        images = formula.evaluate(columns.__getitem__)
        assert area == pytest.approx(roc_auc_score(images, column))
        assert images.mean() <= 0.5


def test_a_longer_formula_has_to_be_better():
    presence = np.random.default_rng(2).random((400, 3)) < 0.3
    frame = Invert(list("abc"), presence)(presence[:, [1]].astype(float))
    assert frame["label"].tolist() == ["b"]


def test_a_wider_beam_and_longer_formulas_never_hurt():
    rng = np.random.default_rng(3)
    presence = rng.random((600, 6)) < 0.25
    activations = presence @ rng.normal(size=(6, 8)) + 0.5 * rng.normal(size=(600, 8))
    areas = [
        Invert(list("abcdef"), presence, max_length=length, beam=50)(activations)["score"] for length in (1, 2, 3)
    ]
    assert (areas[0] <= areas[1]).all() and (areas[1] <= areas[2]).all() and (areas[2] > areas[0]).any()


def test_what_does_not_fit_is_refused(world):
    _, images, words, there = world
    with pytest.raises(ValueError, match=r"\(8, d\)"):
        ClipDissect(VOCABULARY, words[:-1], images)
    with pytest.raises(ValueError, match=r"20.*24"):
        Agreement(VOCABULARY, words, images[:, :20])
    with pytest.raises(ValueError, match=r"num_images.*1500"):
        ClipDissect(VOCABULARY, words, images, num_images=1501)
    with pytest.raises(ValueError, match="int64"):
        Invert(VOCABULARY.words, there.astype(int))
    with pytest.raises(ValueError, match="fractions"):
        Invert(VOCABULARY.words, there, fractions=(0.5, 0.2))
    for baseline in _baselines(world):
        with pytest.raises(ValueError, match="3"):
            baseline(np.zeros((3, 3)))
