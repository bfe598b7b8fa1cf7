"""Explanations: parts that add up, the strongest first, and levels and percentiles by their definitions."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from hf_msae import MSAEConfig, MSAEModel, VisionTextMSAE
from hf_msae.concepts import ActivationPercentiles, ConceptTable, explain_embedding, explain_similarity
from hf_msae.embeddings import load_embeddings
from tests.test_vision_text import an_msae
from tests.tiny_backbones import pictures

D, N = 8, 30


TOPK = {"activation": "topk", "k": 9, "nesting": "none", "nesting_ks": None}


@pytest.fixture(params=[{}, {"soft_cap": 2.0}, {"tied": True}, TOPK], ids=["msae", "soft cap", "tied", "topk"])
def msae(request):
    torch.manual_seed(0)
    settings = {"d_in": D, "num_latents": N, "nesting_ks": [2, 5, N], **request.param}
    model = MSAEModel(MSAEConfig(**settings)).eval()
    model.set_input_statistics(torch.linspace(1, 2, D), 0.7)
    with torch.no_grad():
        model.pre_bias.normal_(0, 0.3)
    return model


NAMES = ConceptTable.from_columns([f"n{i}" for i in range(N)], np.ones(N), [None] * N, np.zeros(N))


def random_embeddings(number=2, seed=1):
    return torch.randn(number, D, generator=torch.Generator().manual_seed(seed)) * 2 + 1.5


@pytest.mark.parametrize("k", [None, 3])
@pytest.mark.parametrize("both", [False, True])
def test_parts_add_up_to_the_cosine(msae, both, k):
    x, y = random_embeddings()
    found = explain_similarity(msae, x, y, NAMES, both, k)
    assert found.similarity == pytest.approx(torch.cosine_similarity(x, y, dim=0).item(), abs=1e-6)
    total = found.frame["contribution"].sum() + found.bias + found.not_reconstructed
    assert total == pytest.approx(found.similarity, abs=1e-9)
    sizes = found.frame["contribution"].abs()
    assert sizes.is_monotonic_decreasing and sizes.iloc[0] > 1e-3
    assert (found.frame["name"] == "n" + found.frame["latent"].astype(str)).all()


def test_arrays_are_explained(msae):
    x, y = random_embeddings()
    assert explain_embedding(msae, x.numpy()).frame.equals(explain_embedding(msae, x).frame)
    assert explain_similarity(msae, x.numpy(), y.tolist()).frame.equals(explain_similarity(msae, x, y).frame)


def test_each_part_is_what_it_is_called(msae):
    x, y = random_embeddings()
    lengths = (x.norm() * y.norm()).double()
    found = explain_similarity(msae, x, y)
    with torch.no_grad():
        code, other = msae.encode(x[None])[0].double(), msae.encode(y[None])[0].double()
        error = (x - msae.decode(msae.encode(x[None]))[0]).double()
        parts = code[:, None] * msae.dictionary.double() / 0.7
        bias = msae.decode(torch.zeros(1, N))[0].double()
    by_latent = found.frame.set_index("latent")["contribution"]
    assert set(by_latent.index) == set(code.nonzero().flatten().tolist())
    for latent, value in by_latent.items():
        assert value == pytest.approx(float(parts[latent] @ y.double() / lengths), abs=1e-6)
    assert found.not_reconstructed == pytest.approx(float(error @ y.double() / lengths), abs=1e-6)
    assert found.bias == pytest.approx(float(bias @ y.double() / lengths), abs=1e-6)
    pairs = explain_similarity(msae, x, y, both=True).frame.set_index(["latent", "other_latent"])["contribution"]
    others = other[:, None] * msae.dictionary.detach().double() / 0.7
    for (one, two), value in list(pairs.items())[:20]:
        assert value == pytest.approx(float(parts[one] @ others[two] / lengths), abs=1e-6)


def test_concepts_of_an_embedding(msae):
    (x,) = random_embeddings(1)
    found = explain_embedding(msae, x, NAMES, top=4)
    with torch.no_grad():
        code = msae.encode(x[None])[0]
        reconstruction = msae.decode(code[None])[0]
    order = code.argsort(descending=True)[:4]
    assert found.frame["latent"].tolist() == order.tolist() and found.num_active == int((code > 0).sum())
    assert found.frame["activation"].to_numpy() == pytest.approx(code[order].numpy(), rel=1e-5)
    error = (x - reconstruction).square().sum() / (x - msae.input_mean).square().sum()
    assert found.explained == pytest.approx(1 - float(error), abs=1e-5)
    whole = explain_embedding(msae, x, top=N).frame
    assert len(whole) == found.num_active and whole["name"].isna().all()
    with torch.no_grad():
        assert found.k == msae.family.default_k(msae.config) >= (msae.encode(x[None]) > 0).sum()
    assert explain_embedding(msae, x, k=3).k == 3


@pytest.mark.parametrize("k", [None, 3])
def test_shares_add_up_and_do_not_depend_on_k(msae, k):
    (x,) = random_embeddings(1)
    found = explain_embedding(msae, x, top=N, k=k)
    assert found.frame["share"].sum() + found.bias + found.not_reconstructed == pytest.approx(1, abs=1e-9)
    centered = (x - msae.input_mean).double()
    row = found.frame.iloc[0]
    direction = msae.dictionary.detach()[int(row["latent"])].double() / 0.7
    assert row["share"] == pytest.approx(float(row["activation"] * direction @ centered / centered.square().sum()))
    whole = explain_embedding(msae, x, top=N).frame.set_index("latent")["share"]
    assert found.frame["share"].tolist() == pytest.approx(whole[found.frame["latent"]].tolist())


def test_what_lies_outside_the_training_is_not_given_a_negative_share_without_a_word(msae):
    found = explain_embedding(msae, random_embeddings()[0])
    far = replace(found, explained=-6.67)
    assert "outside" in str(far) and "explains -" not in str(far)
    assert "outside" not in str(replace(found, explained=0.4))


def test_where_nothing_is_active_all_say_so_and_keep_their_columns(tmp_path):
    config = MSAEConfig(d_in=D, num_latents=N, activation="jump_relu", jump_relu_threshold=99.0)
    silent, (x, y) = MSAEModel(config).eval(), random_embeddings()
    found, match = explain_embedding(silent, x, NAMES), explain_similarity(silent, x, y, NAMES)
    assert found.num_active == 0 and "no latent" in found.plot(pictures()[0]).axes[1].texts[0].get_text()
    for result in (found, match):
        result.save(tmp_path / "result.json")
        loaded = type(result).load(tmp_path / "result.json")
        assert loaded.frame.columns.tolist() == result.frame.columns.tolist() and loaded.verdict() == result.verdict()
        assert loaded.plot() is not None


def test_levels_of_a_prefix_model_are_widths():
    torch.manual_seed(0)
    model = MSAEModel(MSAEConfig(d_in=D, num_latents=N, nesting="prefix", nesting_widths=[4, 12, N])).eval()
    frame = explain_embedding(model, random_embeddings()[0], top=N).frame
    expected = [next(width for width in (4, 12, N) if latent < width) for latent in frame["latent"]]
    assert frame["level"].tolist() == expected and len(set(expected)) == 3


def test_levels_are_where_a_latent_enters():
    torch.manual_seed(0)
    model = MSAEModel(MSAEConfig(d_in=D, num_latents=N, nesting_ks=[2, 5, N])).eval()
    (x,) = random_embeddings(1)
    frame = explain_embedding(model, x, top=N).frame
    for k in (2, 5, N):
        with torch.no_grad():
            there = set(model.encode(x[None], k=k)[0].nonzero().flatten().tolist())
        assert set(frame["latent"][frame["level"] <= k]) == there
    assert len(explain_embedding(model, x, top=N, k=3).frame) == 3


def test_concepts_that_the_cap_makes_equal_keep_their_order():
    torch.manual_seed(0)
    model = MSAEModel(MSAEConfig(d_in=D, num_latents=N, nesting_ks=[2, N], soft_cap=1e-3)).eval()
    x = 20 * random_embeddings(1)
    found = explain_embedding(model, x[0], top=N)
    with torch.no_grad():
        values, expected = model.encode_topk(x, N)
    assert len(values[0].unique()) < len(found.frame), "some are equal"
    assert found.frame["latent"].tolist() == expected[0][: len(found.frame)].tolist()
    assert found.frame["activation"].tolist() == values[0][: len(found.frame)].tolist()
    assert explain_embedding(model, x[0], top=2, k=2).frame["latent"].tolist() == expected[0][:2].tolist()


def test_percentiles_are_shares_of_the_data():
    torch.manual_seed(0)
    model = MSAEModel(MSAEConfig(d_in=D, num_latents=N, nesting_ks=[N])).eval()
    embeddings = load_embeddings(random_embeddings(3000, 2))
    percentiles = ActivationPercentiles.of(model, embeddings, progress=False)
    with torch.no_grad():
        codes = model.encode(embeddings[:])
    expected = np.quantile(codes.numpy(), np.linspace(0, 1, 101), axis=0).T
    np.testing.assert_allclose(percentiles.values, expected, rtol=1e-5, atol=1e-6)
    latents = torch.arange(N)
    for row in (0, 7, 99):
        share = (codes < codes[row]).float().mean(dim=0) * 100
        fires = codes[row] > 0
        assert percentiles(latents, codes[row])[fires].numpy() == pytest.approx(share[fires].numpy(), abs=1.1)
    assert percentiles(latents, torch.full((N,), 1e6)).tolist() == [100.0] * N
    few = ActivationPercentiles.of(model, embeddings, max_samples=500, seed=3, progress=False)
    assert few.num_samples == 500 and not torch.equal(few.values, percentiles.values)
    assert explain_embedding(model, embeddings[0], percentiles=few).frame["percentile"].between(0, 100).all()


def test_percentiles_save_and_load(tmp_path):
    percentiles = ActivationPercentiles(torch.rand(4, 101).sort(dim=1).values, 12)
    percentiles.save(tmp_path / "concepts" / "percentiles.safetensors")
    loaded = ActivationPercentiles.load(tmp_path / "concepts" / "percentiles.safetensors")
    assert torch.equal(loaded.values, percentiles.values) and loaded.num_samples == 12
    assert [path.name for path in (tmp_path / "concepts").iterdir()] == ["percentiles.safetensors"]


def test_images_and_texts_are_explained_and_drawn(backbones):
    clip = backbones["CLIPModel"]
    msae = an_msae(clip)
    names = ConceptTable.from_columns(["red"] * 64, np.ones(64), [None] * 64, np.zeros(64))
    model = VisionTextMSAE(clip, msae, names)
    picture = pictures()[0]
    expected = explain_embedding(msae, clip.image_embeds([picture])[0], names, 5)
    pd.testing.assert_frame_equal(model.explain(picture, 5).to_pandas(), expected.to_pandas(), rtol=1e-4)
    figure = model.explain(picture, 5).plot(picture, "a title")
    bars = figure.axes[1]
    assert len(bars.patches) == 5 and bars.get_yticklabels()[0].get_text().startswith("red (unvalidated) · ")
    assert len(figure.axes[0].images) == 1 and figure.get_suptitle() == "a title"
    with pytest.raises(TypeError, match="'a red circle'"):
        model.center_texts("a red circle")
    model.center_texts(["a red circle", "blue", "a photo"])
    shifted = explain_embedding(msae, clip.text_embeds(["blue"])[0] + model.text_shift, names)
    pd.testing.assert_frame_equal(model.explain("blue").to_pandas(), shifted.to_pandas(), rtol=1e-3, atol=1e-5)

    match = model.explain_similarity(picture, "blue")
    embeds = clip.image_embeds([picture])[0], clip.text_embeds(["blue"])[0]
    assert match.similarity == pytest.approx(torch.cosine_similarity(*embeds, dim=0).item(), abs=1e-5)
    lengths = [patch.get_width() for patch in match.plot(picture, n=3).axes[1].patches]
    assert len(lengths) == 6 and sum(lengths) == pytest.approx(match.similarity, abs=1e-6)
    assert (
        "red (unvalidated) · "
        in model.explain_similarity(picture, "blue", both=True).plot(n=2).axes[0].get_yticklabels()[0].get_text()
    )


def test_what_is_refused(backbones):
    msae = an_msae(backbones["CLIPModel"])
    width = msae.config.d_in
    with pytest.raises(ValueError, match=rf"\({width},\).*\(3,\)"):
        explain_embedding(msae, torch.zeros(3))
    with pytest.raises(ValueError, match=r"top.*0"):
        explain_embedding(msae, torch.zeros(width), top=0)
    with pytest.raises(ValueError, match="zero"):
        explain_similarity(msae, torch.zeros(width), torch.ones(width))
    of_tokens = VisionTextMSAE(backbones["CLIPModel"], an_msae(backbones["CLIPModel"], "vision.layers.1"))
    with pytest.raises(ValueError, match="pooled"):
        of_tokens.explain(pictures()[0])
