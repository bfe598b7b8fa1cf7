"""Names by activations: soft-WPMI by its formula, and the words that planted samples are about."""

import numpy as np
import pandas as pd
import pytest
import torch

from hf_msae import MSAEConfig, MSAEModel
from hf_msae.concepts import Vocabulary, activation_naming, name_by_activations
from hf_msae.concepts.activation_naming import _SumsOfLogs
from hf_msae.embeddings import load_embeddings

WORDS = Vocabulary(["red", "green", "blue"])
D, N, ROWS = 8, 6, 300


@pytest.fixture
def world():
    """Samples about one word each, and a model whose latents 0, 1, 2 each fire for one; 5 never does."""
    rng = np.random.default_rng(0)
    words = np.eye(3, D)
    about = rng.integers(0, 3, ROWS)
    x = words[about] * rng.uniform(1, 2, (ROWS, 1)) + 0.05 * rng.normal(size=(ROWS, D))
    torch.manual_seed(0)  # 3 and 4 are of random directions, and have to fire at all
    model = MSAEModel(MSAEConfig(d_in=D, num_latents=N, nesting_ks=[N])).eval()
    with torch.no_grad():
        model.encoder[:, :3] = torch.eye(D)[:, :3]
        model.latent_bias.zero_()
        model.latent_bias[:3], model.latent_bias[5] = -0.5, -100.0
    model.set_input_statistics(torch.zeros(D), 1.0)
    return model, load_embeddings(x.astype(np.float32)), torch.from_numpy(words).float()


@pytest.mark.parametrize("batch_size", [2048, 37])
@pytest.mark.parametrize("center", [False, True])
def test_latents_are_named_after_what_activates_them(world, batch_size, center):
    model, embeddings, words = world
    found = name_by_activations(
        model, embeddings, WORDS, words, 50, center=center, batch_size=batch_size, progress=False
    )
    assert found["activation_name"].tolist()[:3] == ["red", "green", "blue"]
    assert found["activation_name"].isna().tolist() == [False] * 5 + [True] and found["num_active"][5] == 0
    assert np.isnan(found["activation_score"][5])
    with torch.no_grad():
        assert found["num_active"].tolist() == model.encode(embeddings[:]).count_nonzero(dim=0).tolist()


def test_of_many_samples_some_are_taken(world, monkeypatch):
    model, embeddings, words = world
    monkeypatch.setattr(activation_naming, "_MOST_SAMPLES", 120)
    found = name_by_activations(model, embeddings, WORDS, words, 30, progress=False)
    some = load_embeddings(embeddings[np.arange(120) * ROWS // 120])
    pd.testing.assert_frame_equal(found, name_by_activations(model, some, WORDS, words, 30, progress=False))
    assert found["activation_name"].tolist()[:3] == ["red", "green", "blue"]
    every = name_by_activations(model, embeddings, WORDS, words, 200, progress=False)
    assert (every["num_active"] > found["num_active"])[:5].all(), "all that are asked for"


def test_scores_are_those_of_the_formula(world):
    model, embeddings, words = world
    found = name_by_activations(model, embeddings, WORDS, words, 40, temperature=7.0, progress=False)
    x = embeddings[:]
    with torch.no_grad():
        codes = model.encode(x)
    likely = (7 * torch.nn.functional.cosine_similarity(x[:, None], words[None], dim=-1)).softmax(-1).double()
    sums = []
    for latent in range(5):  # the sixth is dead
        order = codes[:, latent].argsort(descending=True)[:40]
        total = torch.zeros(3, dtype=torch.float64)
        for weight, sample in zip(np.linspace(0.998, 0.97, 40), order, strict=True):
            if codes[sample, latent] > 0:
                total += torch.log(1 + weight * (likely[sample] - 1))
        sums.append(total)
    sums = torch.stack(sums)
    scores = sums - sums.exp().mean(dim=0).log()
    assert found["activation_score"][:5].to_numpy() == pytest.approx(scores.max(dim=1).values.numpy(), rel=1e-4)
    assert found["activation_name"].tolist()[:5] == [WORDS.words[i] for i in scores.argmax(dim=1)]


@pytest.mark.parametrize("highest", [1.0, 0.05, 1e-4])
@pytest.mark.parametrize("number", [2, 20, 100])
def test_few_logarithms_stand_for_those_at_all_weights(number, highest):
    place = torch.arange(number)[None].repeat(3, 1)
    active = torch.ones(3, number, dtype=torch.bool)
    active[1, number // 2 :], active[2] = False, False
    likely = highest * torch.rand(number, 50, generator=torch.Generator().manual_seed(0)).pow(4)
    likely[0, 0] = highest
    sums = _SumsOfLogs(place, active, highest)(likely)
    weights = torch.linspace(0.998, 0.97, number, dtype=torch.float64)[:, None]
    terms = torch.log1p(weights * (likely.double() - 1))
    expected = torch.stack([terms.sum(0), terms[: number // 2].sum(0), torch.zeros(50)])
    torch.testing.assert_close(sums.double(), expected, rtol=0, atol=2e-4)


def test_what_is_refused(world):
    model, embeddings, words = world
    with pytest.raises(ValueError, match=r"num_samples.*300.*301"):
        name_by_activations(model, embeddings, WORDS, words, 301)
    with pytest.raises(ValueError, match=r"temperature.*0"):
        name_by_activations(model, embeddings, WORDS, words, 10, temperature=0)
    with pytest.raises(ValueError, match=r"\(2, 8\).*3 words"):
        name_by_activations(model, embeddings, WORDS, words[:2], 10)
