"""MSAEModel: encoding, decoding and losses."""

import pytest
import torch
from transformers.utils import ModelOutput

from hf_msae import MSAEConfig, MSAEModel, MSAEOutput
from hf_msae.model import modeling_msae
from hf_msae.model.nested_topk import l1_penalty
from tests.model.small_models import KS, D, N, by_hand, embeddings, make_model


def test_a_new_model():
    torch.manual_seed(0)
    model = MSAEModel(MSAEConfig(d_in=D, num_latents=N, nesting_ks=KS))
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    assert shapes == {"pre_bias": (D,), "encoder": (D, N), "latent_bias": (N,), "decoder": (N, D)}
    assert {name: tuple(buffer.shape) for name, buffer in model.named_buffers()} == {
        "input_mean": (D,),
        "input_scale": (),
    }
    assert torch.allclose(model.decoder.norm(dim=1), torch.ones(N), rtol=1e-6)
    d, n = model.encoder.shape
    assert torch.allclose(model.encoder, model.decoder.T * min(1.0, 2 * d / n))
    assert model.encoder.data_ptr() != model.decoder.data_ptr()
    assert not model.pre_bias.any() and not model.latent_bias.any() and not model.input_mean.any()
    assert model.input_scale == 1
    assert (model.decoder @ model.decoder.T - torch.eye(N)).abs().max() < 0.99, "rows differ"
    torch.manual_seed(1)
    assert not torch.equal(MSAEModel(model.config).decoder, model.decoder)


def test_a_new_tied_model():
    model = MSAEModel(MSAEConfig(d_in=D, num_latents=N, nesting_ks=KS, tied=True))
    assert [name for name, _ in model.named_parameters()] == ["pre_bias", "encoder", "latent_bias"]
    assert model.decoder is None
    assert torch.allclose(model.encoder.norm(dim=0), torch.ones(N), rtol=1e-6)
    assert torch.equal(model.dictionary, model.encoder.T)


def test_repr_names_sizes_and_source():
    text = repr(make_model(base_model_name_or_path="some/backbone"))
    assert "d_in=12, num_latents=40, 4 levels: k=[2, 5, 20, 40], some/backbone, image_embeds" in text


@pytest.mark.parametrize("settings", [{}, {"tied": True}, {"soft_cap": 1.5}, {"nesting": "none", "nesting_ks": None}])
@pytest.mark.parametrize("k", [1, 7, 40])
def test_encode_and_decode_follow_the_equations(settings, k, relative_error):
    model, x = make_model(**settings), embeddings(9)
    code, reconstruction = by_hand(model, x, k)
    latents = model.encode(x, k=k)
    assert latents.shape == (9, N)
    assert (latents >= 0).all() and ((latents > 0).sum(-1) <= k).all()
    assert relative_error(latents, code) < 1e-5
    assert relative_error(model.decode(latents), reconstruction) < 1e-5
    output = model(x, k=k)
    assert torch.equal(output.latents, latents)
    assert relative_error(output.reconstruction, reconstruction) < 1e-5


def test_which_k_counts():
    """A call's k beats config.k, which beats the k of the largest level; N of N is the full code."""
    x = embeddings(9)

    def most_active(model, **kwargs):
        return int((model.encode(x, **kwargs) > 0).sum(-1).max())

    assert most_active(make_model()) > 20
    assert torch.equal(make_model().encode(x), make_model().encode(x, k=N))
    assert most_active(make_model(nesting_ks=[2, 5])) == 5
    assert most_active(make_model(nesting_ks=[2, 5], k=3)) == 3
    assert most_active(make_model(nesting_ks=[2, 5], k=3), k=8) == 8
    assert most_active(make_model(nesting="none", nesting_ks=None, k=4)) == 4


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3,), (2, 3), (2, 0, 4), (2, 1, 3, 2)])
def test_any_leading_shape(model, shape):
    x = embeddings(*shape)
    latents = model.encode(x)
    values, indices = model.encode_topk(x, 3)
    output = model(x, output_nested=True)
    assert latents.shape == output.latents.shape == (*shape, N)
    assert values.shape == indices.shape == (*shape, 3)
    assert model.decode(latents).shape == output.reconstruction.shape == (*shape, D)
    assert [tuple(level.shape) for level in output.nested_reconstructions] == [(*shape, D)] * len(KS)
    rows = model.encode(x.reshape(-1, D))
    assert torch.allclose(latents.reshape(-1, N), rows, rtol=1e-5, atol=1e-6)


def test_rows_do_not_depend_on_their_batch(model, relative_error):
    x = embeddings(8)
    alone = torch.stack([model.encode(row, k=5) for row in x])
    assert relative_error(alone, model.encode(x, k=5)) < 1e-6


@pytest.mark.parametrize("settings", [{}, {"soft_cap": 1.5}])
@pytest.mark.parametrize("k", [1, 5, 20, 40])
def test_encode_topk_is_the_sparse_encode(settings, k):
    model, x = make_model(**settings), embeddings(4, 7)
    values, indices = model.encode_topk(x, k)
    dense = model.encode(x, k=k)
    assert indices.dtype == torch.int64
    assert (values.diff(dim=-1) <= 0).all()
    assert torch.equal(torch.zeros_like(dense).scatter(-1, indices, values), dense)
    assert all(len(set(row)) == k for row in indices.flatten(0, 1).tolist()), "indices are distinct, zeros included"


@pytest.mark.parametrize("settings", [{}, {"tied": True}, {"soft_cap": 1.5}])
@pytest.mark.parametrize("k", [1, 3, 24])  # 1 and 3 are looked up, 24 are multiplied
def test_decode_topk_is_the_sparse_decode(settings, k, relative_error):
    model, x = make_model(**settings), embeddings(2, 5)
    decoded = model.decode_topk(*model.encode_topk(x, k))
    assert decoded.shape == x.shape
    assert relative_error(decoded, model.decode(model.encode(x, k))) < 1e-5


def test_decode_topk_adds_up_activations_of_one_latent(model):
    twice = model.decode_topk(torch.tensor([[1.0, 2.0]]), torch.tensor([[4, 4]]))
    torch.testing.assert_close(twice, model.decode_topk(torch.tensor([[3.0]]), torch.tensor([[4]])))


@pytest.mark.parametrize(
    ("values", "indices", "error", "named"),
    [
        ([1], [0], TypeError, "values .*int64"),
        ([1.0], [0.0], TypeError, "indices .*float32"),
        ([1.0, 2.0], [0], ValueError, r"\(2,\) and \(1,\)"),
        ([1.0, 2.0], [0, -3], ValueError, "-3"),
        ([1.0, float("nan")], [0, 1], ValueError, "values .*NaN"),
    ],
)
def test_entries_that_no_code_has_are_refused(model, values, indices, error, named):
    with pytest.raises(error, match=named):
        model.decode_topk(torch.tensor(values), torch.tensor(indices))


def test_encode_topk_orders_ties_by_index_and_fills_with_zeros():
    model = MSAEModel(MSAEConfig(d_in=2, num_latents=6, nesting_ks=[6]))
    with torch.no_grad():
        model.encoder.copy_(torch.tensor([[1.0, -1.0, 1.0, 2.0, 1.0, 2.0], [0.0] * 6]))
    values, indices = model.encode_topk(torch.tensor([[1.0, 0.0], [-1.0, 5.0]]), 6)
    assert values.tolist() == [[2, 2, 1, 1, 1, 0], [1, 0, 0, 0, 0, 0]]
    assert indices.tolist() == [[3, 5, 0, 2, 4, 1], [1, 0, 2, 3, 4, 5]]


def test_encode_topk_is_dense_in_one_chunk_only(model, monkeypatch):
    x = embeddings(3, 11)
    expected = model.encode_topk(x, 5)
    chunks = []
    full_code = model.full_code
    monkeypatch.setattr(model, "full_code", lambda x: chunks.append(len(x)) or full_code(x))
    monkeypatch.setattr(modeling_msae, "_CHUNK_ELEMENTS", 4 * N + 3)
    values, indices = model.encode_topk(x, 5)
    assert chunks == [4] * 8 + [1]
    assert torch.allclose(values, expected[0], rtol=1e-6)
    assert torch.equal(indices, expected[1])


@pytest.mark.parametrize("kind", ["mse", "nmse"])
@pytest.mark.parametrize("weights", ["uniform", "reverse", [1.0, 5.0, 2.0, 0.5]])
def test_loss_follows_the_equations(kind, weights, relative_error):
    model, x = (
        make_model(reconstruction_loss=kind, nesting_weights=weights, sparsity_coefficient=0.3),
        embeddings(3, 5),
    )
    scale, mean = model.input_scale.double(), model.input_mean.double()
    u = (x.double() - mean) * scale
    losses = []
    for k in KS:
        residual = u - (by_hand(model, x, k)[1] - mean) * scale
        ratio = residual.square().sum(-1) / u.square().sum(-1)
        losses.append(residual.square().mean() if kind == "mse" else ratio.mean())
    losses = torch.stack(losses)
    w = torch.tensor(model.config.level_weights, dtype=torch.float64)
    l1 = by_hand(model, x, N)[0].abs().sum(-1) / u.norm(dim=-1)
    expected = (w * losses).sum() / w.sum() + 0.3 * l1.mean()

    output = model(x, return_loss=True)
    assert output.loss.shape == ()
    assert relative_error(output.nested_losses, losses) < 1e-5
    assert relative_error(output.loss, expected) < 1e-5


def test_soft_cap_leaves_the_l1_term_alone():
    x = embeddings(5)
    capped, plain = (
        make_model(sparsity_coefficient=coefficient, soft_cap=0.5)(x, return_loss=True).loss for coefficient in (1, 0)
    )
    model = make_model()
    u = model.normalize(x)
    assert (capped - plain).item() == pytest.approx(l1_penalty(model._pre_activations(u).relu(), u).item(), rel=1e-5)


def test_k_changes_the_code_but_never_the_loss(relative_error):
    model, x = make_model(k=5), embeddings(9)
    default, small, odd = (model(x, k=k, return_loss=True, output_nested=True) for k in (None, 2, 11))
    assert (small.latents > 0).sum(-1).max() == 2 and (default.latents > 0).sum(-1).max() == 5
    assert not torch.equal(small.reconstruction, odd.reconstruction)
    assert torch.equal(default.loss, small.loss) and torch.equal(default.loss, odd.loss)
    assert torch.equal(default.nested_losses, odd.nested_losses)
    for output in (default, small, odd):
        for k, level in zip(KS, output.nested_reconstructions, strict=True):
            assert relative_error(level, by_hand(model, x, k)[1]) < 1e-5
    assert torch.equal(default.reconstruction, default.nested_reconstructions[1])


def test_what_forward_returns(model):
    x = embeddings(4)
    plain = model(x)
    assert isinstance(plain, MSAEOutput) and isinstance(plain, ModelOutput)
    assert list(plain) == ["reconstruction", "latents"]
    assert list(model(x, return_loss=True)) == ["loss", "reconstruction", "latents", "nested_losses"]
    nested = model(embeddings=x, output_nested=True)
    assert list(nested) == ["reconstruction", "latents", "nested_reconstructions", "nested_losses"]
    assert nested.nested_losses.shape == (4,)

    everything = model(x, None, True, True, return_dict=False)
    assert isinstance(everything, tuple) and len(everything) == 5
    assert everything[0].shape == () and everything[1].shape == (4, D) and everything[2].shape == (4, N)
    model.config.return_dict = False
    try:
        assert isinstance(model(x), tuple)
    finally:
        model.config.return_dict = True


def test_no_level_is_decoded_twice(model, monkeypatch):
    """One decode for each level that drops something, one for all that do not; k=None adds none."""
    x = embeddings(9)
    decoded = []
    reconstruct = model._reconstruct
    monkeypatch.setattr(model, "_reconstruct", lambda code, wide: decoded.append(code) or reconstruct(code, wide))
    most_active = int((model.encode(x) > 0).sum(-1).max())
    assert 20 < most_active < 40
    model(x, output_nested=True)
    assert len(decoded) == 4
    decoded.clear()
    model(x - 100 * model.encoder.detach().sum(1), output_nested=True)  # hardly anything is active
    assert len(decoded) < 4
