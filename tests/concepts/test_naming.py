"""Names follow directions."""

import pandas as pd
import pytest
import torch

from hf_msae import MSAEConfig, MSAEModel
from hf_msae.concepts import ConceptTable, Vocabulary, name_latents

WORDS = Vocabulary(["red", "green", "blue", "star"])


@pytest.fixture
def msae():
    torch.manual_seed(0)
    model = MSAEModel(MSAEConfig(d_in=16, num_latents=40, nesting_ks=[8, 40]))
    return model.eval()


def planted(msae, gap=0.0):
    """Word embeddings that are the directions of latents 3, 7, 11 and 15, plus a part common to all."""
    return msae.dictionary.detach()[[3, 7, 11, 15]] * 2.5 + gap


def test_planted_directions_are_found(msae):
    table = name_latents(msae, WORDS, planted(msae), centre=False)
    assert len(table) == 40
    for latent, word in zip((3, 7, 11, 15), WORDS, strict=True):
        row = table[latent].iloc[0]
        assert row["name"] == word and row["similarity"] == pytest.approx(1.0, abs=1e-5)
        assert row["runner_up"] != word and row["runner_up_similarity"] < row["similarity"]


def test_similarities_equal_a_direct_computation(msae):
    words = torch.randn(4, 16)
    table = name_latents(msae, WORDS, words).to_pandas()
    centred = words - words.mean(0)
    cosine = torch.nn.functional.cosine_similarity(msae.dictionary[:, None], centred[None], dim=-1)
    order = cosine.argsort(-1, descending=True)
    assert table["name"].tolist() == [WORDS.words[i] for i in order[:, 0]]
    assert table["runner_up"].tolist() == [WORDS.words[i] for i in order[:, 1]]
    assert torch.allclose(torch.tensor(table["similarity"].to_numpy()).float(), cosine.max(-1).values, atol=1e-5)


def test_centring_removes_a_common_part(msae):
    centred = name_latents(msae, WORDS, planted(msae, gap=50.0)).to_pandas()
    same = name_latents(msae, WORDS, planted(msae, gap=0.0)).to_pandas()
    assert centred["name"].equals(same["name"])
    assert abs(centred["similarity"] - same["similarity"]).max() < 1e-3


def test_a_table_looks_up_saves_and_loads(msae, tmp_path):
    table = name_latents(msae, WORDS, planted(msae), centre=False)
    assert table["red"].iloc[0]["latent"] == 3
    best = table.best()
    assert best["name"].is_unique and best["similarity"].is_monotonic_decreasing
    table.save(tmp_path / "concepts" / "words.parquet")
    pd.testing.assert_frame_equal(
        ConceptTable.load(tmp_path / "concepts" / "words.parquet").to_pandas(), table.to_pandas()
    )
    assert [p.name for p in (tmp_path / "concepts").iterdir()] == ["words.parquet"]
    with pytest.raises(KeyError, match="no latent has the name 'moon'"):
        table["moon"]


def test_a_file_that_is_no_table_is_refused(tmp_path):
    pd.DataFrame({"latent": [1]}).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(ValueError, match="no concept table: it has no column name"):
        ConceptTable.load(tmp_path / "x.parquet")


def test_bad_embeddings_are_refused(msae):
    with pytest.raises(ValueError, match="one row for each of"):
        name_latents(msae, WORDS, torch.randn(3, 16))
    with pytest.raises(ValueError, match="has 12 columns, but this MSAE was trained on 16"):
        name_latents(msae, WORDS, torch.randn(4, 12))
    broken = torch.randn(4, 16)
    broken[2, 3] = torch.nan
    with pytest.raises(ValueError, match="embedding of 'blue' is not finite"):
        name_latents(msae, WORDS, broken)
    with pytest.raises(ValueError, match="centring needs at least 3 words"):
        name_latents(msae, Vocabulary(["red", "blue"]), torch.randn(2, 16))
    single = name_latents(msae, Vocabulary(["red"]), torch.randn(1, 16), centre=False).to_pandas()
    assert (single["name"] == "red").all() and single["runner_up"].isna().all()
