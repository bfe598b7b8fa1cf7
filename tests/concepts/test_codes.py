"""The one pass over a data set: what every collector keeps is what dense codes say, and each batch is encoded once."""

import numpy as np
import pytest
import torch
from transformers.utils import logging as transformers_logging

from hf_msae import MSAEConfig, MSAEModel
from hf_msae.concepts.codes import collect_codes, open_embeddings
from hf_msae.concepts.collectors import ColumnCollector, FiringCollector, SparseCollector, TopRowsCollector
from hf_msae.embeddings import EmbeddingWriter, load_embeddings

D, N, ROWS, K = 6, 24, 101, 4


KINDS = [{}, {"activation": "topk", "k": 5, "nesting_ks": [2, 5]}, {"soft_cap": 2.0}, {"nesting_ks": [2, 3]}, {"k": 3}]


@pytest.fixture(scope="module", params=KINDS)
def model(request):
    torch.manual_seed(0)
    model = MSAEModel(MSAEConfig(**{"d_in": D, "num_latents": N, "nesting_ks": [4, N]} | request.param))
    model.set_input_statistics(torch.zeros(D), 1.0)
    return model


@pytest.fixture(scope="module")
def x():
    return torch.from_numpy(np.random.default_rng(0).normal(size=(ROWS, D)).astype(np.float32))


@pytest.mark.parametrize("batch_size", [4096, 10])
@torch.no_grad()
def test_collectors_keep_what_the_codes_say(model, x, batch_size):
    latents = model.encode(x).numpy()
    values, indices = (each.numpy() for each in model.encode_topk(x, K))
    collectors = [FiringCollector(2), ColumnCollector([3, 1], K), SparseCollector(K), TopRowsCollector(7)]
    firing, columns, codes, top = collect_codes(model, x, collectors, batch_size=batch_size, progress=False)

    np.testing.assert_array_equal(firing.counts, (latents > 0).sum(0))
    np.testing.assert_array_equal(firing.strong, np.bincount(indices[:, :2][values[:, :2] > 0], minlength=N))
    np.testing.assert_allclose(firing.mean, latents.mean(0, dtype=np.float64), rtol=1e-5)
    np.testing.assert_allclose(firing.maximum, latents.max(0), rtol=1e-5)
    assert (firing.num_samples, firing.k) == (ROWS, 2)

    np.testing.assert_allclose(columns.values, latents[:, [3, 1]], rtol=1e-5)
    strong = [[((row == latent) & (v > 0)).any() for latent in (3, 1)] for row, v in zip(indices, values, strict=True)]
    assert columns.strong.tolist() == strong

    np.testing.assert_array_equal(codes.indices, indices)
    np.testing.assert_allclose(codes.values, values, rtol=1e-5)

    np.testing.assert_allclose(top.values, -np.sort(-latents, axis=0)[:7].T, rtol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(latents.T, top.rows, axis=1), top.values, rtol=1e-5)
    np.testing.assert_array_equal(top.num_active, firing.counts)


@pytest.mark.parametrize("rows", [range(20, 50), np.array([5, 2, 77])])
def test_chosen_rows_are_read_in_their_order(model, x, rows):
    (codes,) = collect_codes(model, x, [SparseCollector(K)], rows=rows, batch_size=8, progress=False)
    with torch.no_grad():
        assert torch.allclose(codes.values, model.encode_topk(x[np.asarray(rows)], K)[0])


@pytest.mark.parametrize("collector", [SparseCollector(K), FiringCollector()], ids=["k", "all"])
@pytest.mark.parametrize("rows", [None, range(20, 100), np.array([5, 2, 77, 70]), range(90, 10, -1)], ids=str)
def test_the_row_of_the_data_that_is_not_finite_is_named(x, collector, rows):
    bad, model = x.clone(), MSAEModel(MSAEConfig(d_in=D, num_latents=N))
    bad[70, 1] = np.inf
    bad[77, 2] = np.nan
    with pytest.raises(ValueError, match=r"row (70|77) of the given array") as refused:
        collect_codes(model, bad, [collector], rows=rows, batch_size=8, progress=False)
    first = next(row for row in (range(ROWS) if rows is None else rows) if row in (70, 77))
    assert f"row {first} " in str(refused.value)


def test_a_batch_has_a_row(model, x):
    for batch_size in (0, -1):
        with pytest.raises(ValueError, match=f"batch_size.*{batch_size}"):
            collect_codes(model, x, [FiringCollector()], batch_size=batch_size, progress=False)


def test_each_batch_is_encoded_once_and_the_mode_comes_back(monkeypatch, x):
    model = MSAEModel(MSAEConfig(d_in=D, num_latents=N))
    model.set_input_statistics(torch.zeros(D), 1.0)
    calls, full_code = [], MSAEModel.full_code

    def counted(self, embeddings):
        assert not self.training
        calls.append(len(embeddings))
        return full_code(self, embeddings)

    monkeypatch.setattr(MSAEModel, "full_code", counted)
    collectors = [FiringCollector(), ColumnCollector([0], 3), SparseCollector(4)]
    collect_codes(model.train(), x, collectors, batch_size=60, progress=False)
    assert calls == [60, 41] and model.training

    class Broken(FiringCollector):
        def update(self, batch):
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        collect_codes(model, x, [Broken()], progress=False)
    assert model.training


def test_what_load_embeddings_accepts_is_accepted(model, x, tmp_path):
    np.save(tmp_path / "x.npy", x.numpy())
    found = [
        collect_codes(model, each, [SparseCollector(K)], progress=False)[0].values
        for each in (x, x.numpy(), load_embeddings(x), tmp_path / "x.npy")
    ]
    assert all(torch.equal(each, found[0]) for each in found)
    with pytest.raises(ValueError, match=rf"5 columns.*{D}"):
        collect_codes(model, x[:, :5], [SparseCollector(K)], progress=False)
    with pytest.raises(ValueError, match=f"{N}.*{N + 1}"):
        collect_codes(model, x, [SparseCollector(N + 1)], progress=False)


def test_encode_keeps_at_most_default_k(model, x):
    with torch.no_grad():
        assert (model.encode(x) > 0).sum(1).max() <= model.family.default_k(model.config) <= N


def test_a_pass_that_takes_no_second_shows_no_bar(model, x, capsys):
    collect_codes(model, x, [FiringCollector(2)], batch_size=10)
    assert capsys.readouterr().err == ""


OTHER = {"base_model_name_or_path": "other/siglip"}
ORIGIN = {"base_model_name_or_path": "one/clip", "base_model_weights_sha256": "1" * 64}


@pytest.mark.parametrize(
    ("theirs", "column", "differs"),
    [
        (ORIGIN, "image_embeds", ""),
        ({}, "image_embeds", ""),
        (ORIGIN | {"base_model_weights_sha256": "2" * 64, "base_model_dtype": "float16"}, "image_embeds", ""),
        (OTHER | {"base_model_weights_sha256": "2" * 64}, "image_embeds", "weights"),
        (OTHER, "image_embeds", "backbone"),
        (ORIGIN, "text_embeds", "hook point"),
    ],
)
def test_embeddings_of_another_origin_are_warned_of(x, tmp_path, monkeypatch, caplog, theirs, column, differs):
    """They have the width of the MSAE's, so nothing else tells."""
    with EmbeddingWriter(tmp_path / "x", {column: D}, metadata=theirs) as writer:
        writer.write({column: x.numpy()})
    model = MSAEModel(MSAEConfig(d_in=D, num_latents=N, **ORIGIN))
    monkeypatch.setattr(transformers_logging.get_logger("hf_msae"), "propagate", True)
    found = open_embeddings(model, tmp_path / "x")
    assert len(found) == ROWS
    words = [differs, column, "one/clip", theirs.get("base_model_name_or_path", "")] if differs else []
    assert bool(caplog.records) == bool(differs) and all(word in caplog.text for word in words)


def test_another_width_is_refused_without_naming_a_backbone_that_is_not_known():
    model = MSAEModel(MSAEConfig(d_in=8, num_latents=16))
    with pytest.raises(ValueError, match=r"6 columns .*trained on 8 \(image_embeds\)$"):
        open_embeddings(model, np.zeros((5, 6), np.float32))
