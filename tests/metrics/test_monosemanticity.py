"""The monosemanticity score: the linear form against the sum over all pairs."""

import numpy as np
import pytest
import torch

from hf_msae.metrics import MonosemanticityAccumulator, monosemanticity

ROWS, N, WIDTH = 60, 12, 5


def data(offset=0.0):
    rng = np.random.default_rng(0)
    codes = np.maximum(rng.normal(size=(ROWS, N)) - 0.5, 0) + offset
    codes[:, 3] = offset  # dead, or always the same
    codes[:, 4] = offset
    codes[7, 4] = offset + 2.0  # active once: there is no pair
    codes[:, 5] = np.where(np.arange(ROWS) < 10, 1.0, 0.0) + offset
    embeds = rng.normal(size=(ROWS, WIDTH))
    embeds[:10] = embeds[0] * np.linspace(1, 3, 10)[:, None]  # what latent 5 is active for looks all the same
    return torch.from_numpy(codes), torch.from_numpy(embeds)


def over_pairs(codes, embeds):
    """The definition (arXiv 2504.02821), over all pairs, with weights between 0 and 1."""
    a, e = codes.numpy(), embeds.numpy()
    unit = e / np.linalg.norm(e, axis=1, keepdims=True)
    pairs = np.tril_indices(ROWS, -1)
    cosines, scores = (unit @ unit.T)[pairs], np.full(N, np.nan)
    for j in range(N):
        spread = a[:, j].max() - a[:, j].min()
        w = (a[:, j] - a[:, j].min()) / (spread or 1)
        weights = np.outer(w, w)[pairs]
        if weights.sum():
            scores[j] = (weights * cosines).sum() / weights.sum()
    return scores


@pytest.mark.parametrize("offset", [0.0, 1.5])
def test_against_the_sum_over_pairs(offset):
    codes, embeds = data(offset)
    found = monosemanticity(codes, embeds, "other")
    expected = over_pairs(codes, embeds)
    assert np.isnan(found.scores).nonzero()[0].tolist() == [3, 4] == np.isnan(expected).nonzero()[0].tolist()
    assert found.scores == pytest.approx(expected, rel=1e-9, nan_ok=True)
    assert found.scores[5] == pytest.approx(1.0)
    assert found.mean == pytest.approx(np.nanmean(expected)) and found.std == pytest.approx(np.nanstd(expected))
    unit = embeds.numpy() / np.linalg.norm(embeds.numpy(), axis=1, keepdims=True)
    assert found.baseline == pytest.approx((unit @ unit.T)[np.triu_indices(ROWS, 1)].mean())


@pytest.mark.parametrize("sizes", [[60], [1] * 60, [37, 23]])
def test_streamed_and_merged(sizes):
    codes, embeds = data(0.5)
    expected = monosemanticity(codes, embeds, "other")
    streamed, merged = (MonosemanticityAccumulator(N, "other") for _ in range(2))
    merged.merge(MonosemanticityAccumulator(N, "other"))  # one that has seen nothing
    for a, b in zip(codes.split(sizes), embeds.split(sizes), strict=True):
        streamed.update(a, b)
        single = MonosemanticityAccumulator(N, "other")
        single.update(a, b)
        merged.merge(single)
    for found in (streamed.compute(), merged.compute(), merged.reduce(None).compute()):
        assert found.scores == pytest.approx(expected.scores, rel=1e-9, nan_ok=True)
        assert (found.encoder, found.num_samples) == ("other", ROWS)


def test_a_latent_that_two_samples_activate_unequally_has_a_score():
    codes, embeds = torch.zeros(ROWS, 1), data()[1]
    codes[3, 0], codes[8, 0] = 1.0, 1e-6
    unit = embeds / embeds.norm(dim=1, keepdim=True)
    assert monosemanticity(codes, embeds, "other").scores[0] == pytest.approx(float(unit[3] @ unit[8]), rel=1e-6)


def test_neither_scale_counts():
    codes, embeds = data()
    expected = monosemanticity(codes, embeds, "other").scores
    scaled = monosemanticity(codes * torch.linspace(1e-3, 1e3, N), embeds * 17, "other").scores
    assert scaled == pytest.approx(expected, rel=1e-9, nan_ok=True)


def test_print_and_table():
    found = monosemanticity(*data(), "dinov2")
    assert "10 of 12" in str(found) and "dinov2" in str(found)
    frame = found.to_pandas()
    assert frame["latent"][0] == 5 and frame["monosemanticity"].isna().sum() == 2
    dead = monosemanticity(torch.zeros(4, 2), torch.ones(4, 3), "dinov2")
    assert dead.mean is None and dead.std is None and "4 samples" in str(dead)


def test_what_is_refused():
    codes, embeds = data()
    with pytest.raises(ValueError, match="encoder"):
        MonosemanticityAccumulator(N, " ")
    accumulator = MonosemanticityAccumulator(N, "other")
    with pytest.raises(ValueError, match=r"12.*\(60, 5\)"):
        accumulator.update(codes[:, :5], embeds)
    with pytest.raises(ValueError, match=r"row 104 of encoder_embeds.*other"):
        accumulator.update(codes, embeds * (torch.arange(ROWS) != 4)[:, None], first_row=100)
    accumulator.update(codes, embeds)
    with pytest.raises(ValueError, match=r"3.*5"):
        accumulator.update(codes, embeds[:, :3])
    with pytest.raises(ValueError, match=r"other.*else"):
        accumulator.merge(MonosemanticityAccumulator(N, "else"))
    with pytest.raises(ValueError, match="no samples"):
        MonosemanticityAccumulator(N, "other").compute()
