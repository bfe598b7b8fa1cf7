"""The MSAE authors' own figures: relative errors below 1e-4."""

import pytest

from hf_msae import MSAEConfig, MSAEModel
from hf_msae.metrics import (
    cknna,
    cosine_similarity,
    decoder_orthogonality,
    evaluate_msae,
    fvu_per_sample,
    normalized_mae,
    sparsity,
)


@pytest.fixture(scope="module")
def to_raw(golden_tensors, golden_figures):
    return lambda normalized: normalized / golden_figures["scaling_factor"] + golden_tensors["mean"]


@pytest.mark.parametrize(
    ("metric", "level", "name"),
    [
        *((each, "full", each.__name__) for each in (fvu_per_sample, cosine_similarity, normalized_mae)),
        (fvu_per_sample, "k16", "fvu_per_sample_k16"),
    ],
)
def test_reconstruction_metrics(metric, level, name, golden_tensors, golden_figures, to_raw):
    found = metric(golden_tensors["x_raw"], to_raw(golden_tensors[f"reconstruction_{level}"]))
    assert found == pytest.approx(golden_figures["raw_space"][name], rel=1e-4, abs=0)


@pytest.mark.parametrize("level", ["full", "k16"])
def test_sparsity(level, golden_tensors, golden_figures):
    expected = golden_figures[f"sparsity_{level}"]
    assert sparsity(golden_tensors[f"latents_{level}"]) == pytest.approx(expected, rel=1e-4, abs=0)


def test_cknna_of_embeddings_with_latents_and_with_reconstruction(golden_tensors, golden_figures, to_raw):
    x = golden_tensors["x_raw"]
    expected = golden_figures["cknna_x_latents"]
    assert cknna(x, golden_tensors["latents_full"], k=10) == pytest.approx(expected, rel=1e-4, abs=0)
    expected = golden_figures["cknna_x_reconstruction"]
    assert cknna(x, to_raw(golden_tensors["reconstruction_full"]), k=10) == pytest.approx(expected, rel=1e-4, abs=0)


def test_decoder_orthogonality_by_the_authors_definition(golden_tensors, golden_figures):
    expected = golden_figures["decoder_orthogonality_raw_rows_incl_diagonal"]
    value = decoder_orthogonality(golden_tensors["weights.decoder"], unit_rows=False, count_diagonal=True)
    assert value == pytest.approx(expected, rel=1e-4, abs=0)


def test_an_evaluation_of_the_authors_model_gives_the_authors_figures(golden_tensors, golden_figures):
    names = ("d_in", "num_latents", "nesting_ks")
    model = MSAEModel(MSAEConfig(**{name: golden_figures[name] for name in names}))
    model.load_state_dict(
        {name: golden_tensors[f"weights.{name}"] for name in ("pre_bias", "encoder", "latent_bias", "decoder")},
        strict=False,
    )
    model.set_input_statistics(golden_tensors["mean"], golden_figures["scaling_factor"])
    result = evaluate_msae(model, golden_tensors["x_raw"], progress=False)
    found = {
        **{name: getattr(result, name) for name in ("fvu_per_sample", "cosine_similarity", "normalized_mae")},
        "fvu_per_sample_k16": result.by_k["16"]["fvu_per_sample"],
    }
    assert found == pytest.approx(golden_figures["raw_space"], rel=1e-4, abs=0)
    assert result.sparsity == pytest.approx(golden_figures["sparsity_full"], rel=1e-4, abs=0)
    assert result.by_k["16"]["sparsity"] == golden_figures["sparsity_k16"]
    assert result.cknna == pytest.approx(golden_figures["cknna_x_latents"], rel=1e-4, abs=0)
    assert result.cknna_batch_size == result.num_samples == 96
