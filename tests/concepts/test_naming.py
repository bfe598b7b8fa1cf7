"""Names follow directions."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import kstest

from hf_msae import MSAEConfig, MSAEModel
from hf_msae.concepts import (
    ActivationPercentiles,
    Vocabulary,
    name_by_activations,
    name_by_agreement,
    name_latents,
    naming,
)
from hf_msae.embeddings import load_embeddings

WORDS = Vocabulary(["red", "green", "blue", "star"])


@pytest.fixture
def msae():
    torch.manual_seed(0)
    model = MSAEModel(MSAEConfig(d_in=16, num_latents=40, nesting_ks=[8, 40]))
    return model.eval()


def planted(msae):
    """Word embeddings that are the directions of latents 3, 7, 11 and 15."""
    return msae.dictionary.detach()[[3, 7, 11, 15]] * 2.5


def test_planted_directions_are_found(msae):
    table = name_latents(msae, WORDS, planted(msae), center=False)
    assert len(table) == 40
    for latent, word in zip((3, 7, 11, 15), WORDS, strict=True):
        row = table[latent].iloc[0]
        assert row["name"] == word and row["similarity"] == pytest.approx(1.0, abs=1e-5)
        assert row["runner_up"] != word and row["runner_up_similarity"] < row["similarity"]


def test_similarities_equal_a_direct_computation(msae):
    words = torch.randn(4, 16)
    table = name_latents(msae, WORDS, words).to_pandas()
    centered = words - words.mean(0)
    cosine = torch.nn.functional.cosine_similarity(msae.dictionary[:, None], centered[None], dim=-1)
    order = cosine.argsort(-1, descending=True)
    assert table["name"].tolist() == [WORDS.words[i] for i in order[:, 0]]
    assert table["runner_up"].tolist() == [WORDS.words[i] for i in order[:, 1]]
    assert torch.allclose(torch.tensor(table["similarity"].to_numpy()).float(), cosine.max(-1).values, atol=1e-5)


def test_a_seed_of_numpy_is_a_seed(msae, tmp_path):
    table = name_latents(msae, WORDS, planted(msae), null_samples=50, seed=np.int64(3))
    assert table.frame.equals(name_latents(msae, WORDS, planted(msae), null_samples=50, seed=3).frame)
    table.save(tmp_path / "concepts.parquet")
    with pytest.raises(ValueError, match=r"seed.*-1"):
        name_latents(msae, WORDS, planted(msae), seed=-1)
    with pytest.raises(ValueError, match=r"null_samples must be an integer of at least 1, got 10000.0"):
        name_latents(msae, WORDS, planted(msae), null_samples=1e4)
    with pytest.raises(ValueError, match=r"seed.*None"):
        name_latents(msae, WORDS, planted(msae), seed=None)


def test_bad_embeddings_are_refused(msae):
    broken = torch.randn(4, 16)
    broken[2, 3] = torch.nan
    for embeds, named in ((torch.randn(3, 16), r"\(3, 16\).*4"), (torch.randn(4, 12), "12.*16"), (broken, "'blue'")):
        with pytest.raises(ValueError, match=named):
            name_latents(msae, WORDS, embeds)
    with pytest.raises(TypeError, match=r"Vocabulary\(words\).*tuple"):
        name_latents(msae, WORDS.words, torch.randn(4, 16))
    with pytest.raises(ValueError, match=r"3 words.*2.*center=False"):
        name_latents(msae, Vocabulary(["red", "blue"]), torch.randn(2, 16))
    for options, named in (
        ({"direction": "encoder"}, r"direction.*'encoder'.*decoder\+mean"),
        ({"null": "none"}, "null.*'none'.*shuffled"),
        ({"ratio_over": "rows"}, "ratio_over.*'rows'"),
        ({"null_samples": 0}, "null_samples.*0"),
    ):
        with pytest.raises(ValueError, match=named):
            name_latents(msae, WORDS, torch.randn(4, 16), **options)
    single = name_latents(msae, Vocabulary(["red"]), torch.randn(1, 16), center=False).to_pandas()
    assert (single["name"] == "red").all() and single["runner_up"].isna().all()


def random_words(number=50, width=16, seed=1):
    """Words that do not go in all directions alike."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(number, width, generator=generator) * torch.linspace(0.2, 2, width)


@pytest.mark.parametrize("null", naming.NULLS)
def test_p_values_of_directions_like_the_null_are_uniform(null):
    """Of a dictionary that is itself drawn as the null says."""
    words, n = random_words(), 2000
    vocabulary = Vocabulary([str(i) for i in range(len(words))])
    model = MSAEModel(MSAEConfig(d_in=16, num_latents=n, nesting_ks=[n]))
    generator = torch.Generator().manual_seed(5)
    if null in ("isotropic", "shuffled"):
        rows = torch.randn(n, 16, generator=generator)
    elif null == "vocabulary":
        rows = torch.randn(n, 50, generator=generator) @ (words - words.mean(0))
    else:
        rows = torch.randn(n, 16, generator=generator) * torch.linspace(3, 0.3, 16)
    with torch.no_grad():
        model.decoder.copy_(rows)
    table = name_latents(model, vocabulary, words, null=null).to_pandas()
    assert kstest(table["p_value"], "uniform").pvalue > 1e-3
    assert (table["q_value"] <= 0.05).mean() < 0.01
    others = {"isotropic": "vocabulary", "vocabulary": "isotropic", "dictionary": "vocabulary"}
    if null in others:  # ... and of another null they are not
        wrong = name_latents(model, vocabulary, words, null=others[null]).to_pandas()
        assert kstest(wrong["p_value"], "uniform").pvalue < 1e-6


def test_true_names_are_validated_and_mixtures_of_words_are_not():
    words = torch.randn(40, 64, generator=torch.Generator().manual_seed(0))
    vocabulary = Vocabulary([f"w{i}" for i in range(40)])
    model = MSAEModel(MSAEConfig(d_in=64, num_latents=200, nesting_ks=[200]))
    generator = torch.Generator().manual_seed(1)
    mixtures = torch.randn(180, 40, generator=generator) @ words
    with torch.no_grad():
        model.decoder.copy_(torch.cat([words[:20] + 0.3 * torch.randn(20, 64, generator=generator), mixtures]))
    table = name_latents(model, vocabulary, words)
    valid = table.validated()
    assert set(valid["latent"]) >= set(range(20)) and len(valid) <= 24
    assert valid["name"].tolist()[:5] == [f"w{latent}" for latent in valid["latent"][:5]]
    assert valid["similarity"].is_monotonic_decreasing
    assert len(name_latents(model, vocabulary, words, null="isotropic").validated()) > 60
    assert len(table.validated(q=1.0)) == 200 and table.frame["p_value"].min() >= 1 / 10_001


@pytest.mark.parametrize("kind", ["tensor", "array", "opened", "path"])
def test_embeddings_add_evidence_from_activations(msae, tmp_path, kind):
    x = torch.randn(150, 16, generator=torch.Generator().manual_seed(4))
    np.save(tmp_path / "x.npy", x.numpy())
    given = {"tensor": x, "array": x.numpy(), "opened": load_embeddings(x), "path": tmp_path / "x.npy"}[kind]
    table = name_latents(msae, WORDS, planted(msae), given)
    seen = name_by_activations(msae, x, WORDS, planted(msae), progress=False)
    by_direction = name_latents(msae, WORDS, planted(msae)).frame
    by_agreement = name_by_agreement(msae, x, WORDS, planted(msae), progress=False)
    frame = table.frame
    pd.testing.assert_frame_equal(frame[list(seen)], seen)
    active = by_agreement["name"].notna()
    assert frame["name"][active].tolist() == by_agreement["name"][active].tolist()
    assert frame["name"][~active].tolist() == by_direction["name"][~active].tolist()
    figures = ["agreement", "zero_shot_auroc", "p_value", "q_value", "synonyms", "also"]
    pd.testing.assert_frame_equal(frame[figures], by_agreement[figures])
    for column in ("name", "similarity", "q_value"):
        assert frame[f"direction_{column}"].tolist() == by_direction[column].tolist()
    same = frame["name"] == frame["direction_name"]
    assert same.any() and not same.all()
    np.testing.assert_allclose(frame["similarity"][same], by_direction["similarity"][same], atol=1e-6)
    assert (frame["similarity"][~same] <= by_direction["similarity"][~same] + 1e-6).all()


def test_old_keywords_still_work(msae):
    with pytest.warns(DeprecationWarning, match=r"centre.*center"):
        old = name_latents(msae, WORDS, planted(msae), centre=False)
    pd.testing.assert_frame_equal(old.frame, name_latents(msae, WORDS, planted(msae), center=False).frame)
    with pytest.warns(DeprecationWarning, match=r"acts.*embeddings"):
        ActivationPercentiles.of(msae, acts=torch.randn(50, 16), progress=False)


def test_the_ratio_is_over_words_or_over_latents(msae):
    words = torch.randn(4, 16, generator=torch.Generator().manual_seed(3))
    unit = torch.nn.functional.normalize(words - words.mean(0), dim=-1)
    cosines = (torch.nn.functional.normalize(msae.dictionary.detach(), dim=-1) @ unit.T).numpy()
    over_words = name_latents(msae, WORDS, words).to_pandas()
    ordered = np.sort(cosines, axis=1)[:, ::-1]
    assert over_words["ratio"].to_numpy() == pytest.approx(ordered[:, 0] / np.maximum(ordered[:, 1], 1e-6), rel=1e-4)
    over_latents = name_latents(msae, WORDS, words, ratio_over="latents").to_pandas()
    for latent in range(40):
        word = cosines[latent].argmax()
        second = np.delete(cosines[:, word], latent).max()
        assert over_latents["ratio"][latent] == pytest.approx(cosines[latent, word] / max(second, 1e-6), rel=1e-4)


@pytest.mark.parametrize("direction", naming.DIRECTIONS)
def test_the_direction_is_the_one_asked_for(msae, direction):
    msae.set_input_statistics(torch.linspace(-1, 1, 16), 0.5)
    with torch.no_grad():
        msae.pre_bias.copy_(torch.linspace(2, 0, 16))
    rows = msae.dictionary.detach()
    rows = {
        "decoder": rows,
        "decoder+mean": rows / 0.5 + torch.linspace(-1, 1, 16),
        "decoder+bias": rows + torch.linspace(2, 0, 16),
    }[direction]
    words = torch.randn(4, 16, generator=torch.Generator().manual_seed(3))
    table = name_latents(msae, WORDS, words, center=False, direction=direction).to_pandas()
    cosines = torch.nn.functional.cosine_similarity(rows[:, None], words[None], dim=-1)
    assert table["similarity"].to_numpy() == pytest.approx(cosines.max(-1).values.numpy(), abs=1e-5)


def test_chunks_change_nothing(msae, monkeypatch):
    words = torch.randn(4, 16, generator=torch.Generator().manual_seed(3))
    whole = name_latents(msae, WORDS, words, ratio_over="latents").to_pandas()
    monkeypatch.setattr(naming, "_CHUNK_ENTRIES", 4 * 7)
    parts = name_latents(msae, WORDS, words, ratio_over="latents").to_pandas()
    pd.testing.assert_frame_equal(whole, parts, rtol=1e-5)
