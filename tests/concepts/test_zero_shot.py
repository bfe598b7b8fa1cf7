"""How well activations detect the pictures of a word: the usual AUROC as a special case, weights, and what is read."""

import numpy as np
import pytest
import torch
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score
from torch.nn.functional import normalize

from hf_msae import MSAEConfig, MSAEModel
from hf_msae.concepts import zero_shot
from hf_msae.concepts.zero_shot import RankedPictures, spread
from hf_msae.embeddings import load_embeddings


def _pictures(number=200, latents=5, width=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    msae = MSAEModel(MSAEConfig(d_in=width, num_latents=latents, nesting_ks=[latents])).eval()
    embeddings = torch.randn(number, width, generator=generator)
    return (
        msae,
        embeddings,
        RankedPictures.read(msae, load_embeddings(embeddings), np.arange(latents), np.arange(number), 64, False),
    )


@pytest.mark.parametrize("number", [4, 9, 30])
def test_pictures_that_fit_all_alike_and_no_others_give_the_usual_area(number, monkeypatch):
    msae, embeddings, pictures = _pictures()
    # Two values of the cosine, and weights so sharp that all pictures but those of the higher one have none.
    monkeypatch.setattr(zero_shot, "SHARPNESS", 100.0)
    chosen = torch.randperm(200, generator=torch.Generator().manual_seed(1))[:number]
    units = torch.full((200, 2), 0.1)
    units[chosen] = 0.9
    areas, fitting = RankedPictures(pictures.ranks, units).areas(torch.tensor([[1.0, 0.0]]), torch.zeros(5, 1).long())
    truth = np.isin(np.arange(200), chosen)
    with torch.no_grad():
        activations = msae.encode(embeddings).numpy()
    for latent in range(5):
        assert areas[latent, 0].item() == pytest.approx(roc_auc_score(truth, activations[:, latent]), abs=1e-5)
    assert fitting.flatten().tolist() == pytest.approx([number] * 5, rel=1e-4)


def test_weights_do_not_depend_on_the_scale_or_the_mean_of_the_cosines():
    pictures = _pictures()[2]
    words = normalize(torch.randn(3, 8, generator=torch.Generator().manual_seed(2)), dim=-1)
    weights = pictures.weights(words)
    assert weights.sum(dim=1).tolist() == pytest.approx([1, 1, 1], abs=1e-5)
    gap = torch.zeros(200, 1) + 3.0
    shifted = RankedPictures(pictures.ranks, torch.cat([0.1 * pictures.units, gap], dim=1))
    of_shifted = shifted.weights(torch.cat([words, torch.ones(3, 1)], dim=1))
    torch.testing.assert_close(of_shifted, weights, atol=1e-5, rtol=1e-3)


def test_a_picture_that_alone_stands_out_is_the_only_one_of_its_word():
    pictures = _pictures()[2]
    units = torch.full((200, 2), 0.1)
    units[17] = 0.9
    areas, fitting = RankedPictures(pictures.ranks, units).areas(torch.tensor([[1.0, 0.0]]), torch.zeros(5, 1).long())
    assert fitting.flatten().tolist() == pytest.approx([1] * 5, rel=1e-6) and (fitting >= 1).all()
    torch.testing.assert_close(areas[:, 0], (pictures.ranks[:, 17] - 0.5) / 199)


@pytest.mark.parametrize("chunk", [2**24, 450])
def test_every_candidate_is_measured_by_its_own_word_and_latent(chunk, monkeypatch):
    monkeypatch.setattr(zero_shot, "_CHUNK_ENTRIES", chunk)
    pictures = _pictures()[2]
    words = normalize(torch.randn(7, 8, generator=torch.Generator().manual_seed(3)), dim=-1)
    whole, fitting = pictures.areas(words, torch.arange(7).expand(5, 7))
    candidates = torch.tensor([[6, 0], [0, 1], [3, 3], [6, 5], [2, 0]])
    areas, of_candidates = pictures.areas(words, candidates)
    torch.testing.assert_close(areas, whole.gather(1, candidates))
    torch.testing.assert_close(of_candidates, fitting.gather(1, candidates))


def test_ranks_are_those_of_scipy_whatever_the_signs_and_ties():
    generator = np.random.default_rng(0)
    values = generator.normal(size=(5, 60)).astype(np.float32)
    values[:2] = values[:2].clip(0)
    values[1] = values[1].round(1)  # many ties
    values[2] = 0.0
    values[3, ::2] = -0.0
    np.testing.assert_array_equal(zero_shot.mean_ranks(values).numpy(), rankdata(values, axis=1) - 0.5)


def test_a_large_model_reads_fewer_rows():
    rows = np.arange(100_000)
    assert len(spread(rows, 1024)) == 20_000
    assert 3_000 < len(spread(rows, 65_536)) <= 4_096
    assert len(spread(np.arange(50), 10**9)) == 1
