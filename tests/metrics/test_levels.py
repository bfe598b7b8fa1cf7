"""Every family is measured at the levels it was trained at, and tables call them what they are."""

import json

import numpy as np
import pytest
import torch

from hf_msae import MSAEConfig, MSAEModel, metrics
from hf_msae._utils.levels import read_levels
from hf_msae.embeddings import load_embeddings
from hf_msae.metrics import (
    EvaluationResult,
    evaluate_msae,
    seed_stability,
    seed_stability_by_level,
    sparse_probing,
    sparse_probing_by_level,
)
from hf_msae.metrics.levels import decoded_levels, describe_levels, level_codes
from hf_msae.model.fused import nested_pass

D, N = 6, 32
WIDTHS = [4, 12, N]
FAMILIES = {
    "relu": {"nesting": "none"},
    "msae": {"nesting_ks": [2, 8, N]},
    "topk": {"activation": "topk", "nesting": "none", "k": 5},
    "nested topk": {"activation": "topk", "nesting_ks": [2, 5], "k": 5},
    "batch_topk": {"activation": "batch_topk", "nesting": "none", "k": 3},
    "jump_relu": {"activation": "jump_relu", "nesting": "none"},
    "prefix": {"nesting": "prefix", "nesting_widths": WIDTHS},
    "prefix topk": {"activation": "topk", "nesting": "prefix", "nesting_widths": WIDTHS, "k": 5},
    "prefix batch_topk": {"activation": "batch_topk", "nesting": "prefix", "nesting_widths": WIDTHS, "k": 3},
}
LABELS = {  # heading, labels, and a part of the description
    "relu": ("k", ["32 (all)"], "all active"),
    "msae": ("k", ["2", "8", "32 (all)"], "k = 2, 8, 32"),
    "topk": ("k", ["5"], "5 largest"),
    "nested topk": ("k", ["2", "5"], "k = 2, 5"),
    "batch_topk": ("code", ["threshold"], "k=3"),
    "jump_relu": ("code", ["thresholds"], "threshold of each latent"),
    **dict.fromkeys(
        ("prefix", "prefix topk", "prefix batch_topk"), ("first latents", ["4", "12", "32 (all)"], "first 4, 12, 32")
    ),
}


def make_model(name, seed=0):
    torch.manual_seed(seed)
    model = MSAEModel(MSAEConfig(d_in=D, num_latents=N, **FAMILIES[name]))
    if "batch" in name:
        model.activation_threshold.fill_(0.2)
    return model


@pytest.fixture(params=["compiled", "torch"])
def entries(request, monkeypatch):
    """Decode with the C functions, if there is a compiler, and without them."""
    if request.param == "torch":
        monkeypatch.setattr(nested_pass, "compiled_library", lambda: None)


def make_data(rows=40, seed=1):
    return np.random.default_rng(seed).normal(size=(rows, D)).astype(np.float32)


def measure(model, x, **settings):
    return evaluate_msae(model, x, cknna_batch_size=32, progress=False, **settings)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_is_measured_at_its_own_levels_by_their_names(name):
    model = make_model(name)
    result = measure(model, make_data())
    heading, labels, described = LABELS[name]
    lines = str(result).splitlines()
    assert lines[0].split("  FVU")[0].strip() == heading
    rows = lines[2 : 2 + len(labels)]
    assert [row.strip().split("  ")[0] for row in rows] == labels
    assert described in describe_levels(model.config)
    assert EvaluationResult.from_dict(json.loads(json.dumps(result.to_dict()))) == result


@pytest.mark.parametrize("name", ["prefix", "prefix topk", "prefix batch_topk"])
def test_prefixes_use_only_the_first_latents(name):
    model, x = make_model(name), torch.from_numpy(make_data())
    result = measure(model, x.numpy())
    assert list(result.by_width) == ["4", "12", "32"] and result.sizes == WIDTHS
    with torch.no_grad():
        full = model.encode(x)
        levels = model(x, output_nested=True).nested_reconstructions
    figures = []
    for width, reconstruction in zip(WIDTHS, levels, strict=True):
        found, code = result.by_width[str(width)], full[:, :width]
        assert found["fvu"] == pytest.approx(metrics.fvu(x, reconstruction), rel=1e-5)
        assert found["l0"] == pytest.approx(metrics.l0(code)) and found["sparsity"] == metrics.sparsity(code)
        assert found["dead_latents"] == metrics.dead_latents(code) <= width
        assert found["cknna"] == pytest.approx(metrics.cknna(x[:32], code[:32]), rel=1e-5)
        assert found["decoder_orthogonality"] == metrics.decoder_orthogonality(model.dictionary[:width])
        figures.append(found["fvu"])
    assert len(set(figures)) == 3 and result.fvu == figures[-1]
    # What earlier versions read: the full code, at the k that it has.
    assert result.by_k == {str(5 if name == "prefix topk" else N): result.by_width["32"]}
    frame = result.to_pandas()
    assert frame["width"].tolist() == WIDTHS and frame["fvu"].tolist() == figures


def test_widths_and_ks_are_chosen_for_a_prefix_model():
    model, x = make_model("prefix"), make_data()
    assert measure(model, x, widths=[7]).sizes == [7, N]  # the headline is that of the whole dictionary
    by_k = measure(model, x, ks=[2, 4])
    assert (by_k.by_width, list(by_k.by_k)) == ({}, ["2", "4"]) and by_k.by_k["2"]["l0"] == 2


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("topk", {"widths": [4]}, r"widths is \[4\].*prefix.*5 largest activations.*ks"),
        ("msae", {"widths": [4]}, r"widths.*k = 2, 8, 32"),
        ("prefix", {"widths": [0]}, "num_latents=32, got 0 in widths"),
        ("prefix", {"widths": [33]}, "num_latents=32, got 33 in widths"),
        ("prefix", {"widths": []}, "widths is empty"),
        ("prefix", {"widths": [4], "ks": [4]}, r"ks is \[4\] and widths is \[4\]"),
    ],
)
def test_levels_that_a_model_does_not_have_are_refused(name, settings, message):
    with pytest.raises(ValueError, match=message):
        measure(make_model(name), make_data(), **settings)


def test_levels_with_the_same_codes_share_a_row_that_says_so():
    result = measure(make_model("topk"), make_data(), ks=[2, 5, 16, N])
    assert list(result.by_k) == ["2", "5", "16", "32"]
    levels = read_levels(result.to_dict())
    assert [level.label for level in levels.distinct] == ["2", "5 to 32"]
    assert "k=5 to 32" in levels.notes[-1] and "5 active" in levels.notes[-1]
    assert levels.notes[-1] in str(result)
    thresholds = read_levels(measure(make_model("jump_relu"), make_data(), ks=[2, 31, N]).to_dict())
    assert (thresholds.heading, [level.label for level in thresholds.distinct]) == ("k", ["2", "31 to thresholds"])


def test_metrics_of_earlier_versions_know_only_k():
    content = measure(make_model("batch_topk"), make_data()).to_dict()
    del content["full_code"], content["by_width"]
    levels = read_levels(content)
    assert (levels.heading, [level.label for level in levels.each]) == ("k", ["32"])
    assert [level.phrase for level in levels.each] == ["at k=32"]


def test_probes_and_seeds_are_measured_on_prefixes_too():
    x, kind = make_data(200), np.arange(200) % 2
    x[kind == 1, 0] += 4
    model, other = make_model("prefix"), make_model("prefix", seed=1)
    data, again = load_embeddings(x), load_embeddings(x.copy())
    labels = {"kind": (kind, kind, ["a", "b"])}
    found = sparse_probing_by_level(model, data, again, labels, WIDTHS, (1,), progress=False, of_dictionary=True)
    with torch.no_grad():
        codes = [each.encode(torch.from_numpy(x)) for each in (model, other)]
    stable = seed_stability_by_level(model, [other], data, WIDTHS, progress=False, of_dictionary=True)
    for width in WIDTHS:
        code, truth = codes[0][:, :width], kind[:, None] == 1
        expected = sparse_probing(code, truth, code.clone(), truth.copy(), (1,), progress=False).summary()
        assert found[width]["kind"]["auroc_1"] == pytest.approx(expected.loc[1, "auroc"])
        alive = [
            each.dictionary[:width][code[:, :width].gt(0).any(dim=0)].detach()
            for each, code in zip((model, other), codes, strict=True)
        ]
        assert stable[width]["mean_cosine"] == pytest.approx(seed_stability(*alive).mean_cosine)
    result = measure(model, x).with_levels(found, stable)
    assert result.by_width["4"]["sparse_probing"] == found[4] and result.by_k["32"]["seed_stability"] == stable[N]
    assert "first latents" in str(result).split("stability across seeds")[1]


@pytest.mark.parametrize(
    "settings", [{}, {"tied": True}, {"soft_cap": 0.5}, {"activation": "topk", "k": 20, "nesting_ks": [2, 20]}]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_levels_are_decoded_from_the_level_before(entries, settings, dtype):
    torch.manual_seed(0)
    model = MSAEModel(MSAEConfig(d_in=D, num_latents=N, **{"nesting_ks": [2, N], **settings})).to(dtype)
    torch.nn.init.normal_(model.pre_bias)
    with torch.no_grad():
        code = model.full_code(torch.randn(7, D).to(dtype))
    code[0], code[1, 3:9] = 0, 0.25  # a row without entries, and ties
    sizes = [1, 2, 3, 5, 7, 11, 14, 15, N]  # few more than before, many more, and up to more than there are
    expected = list(level_codes(code, sizes, model.config.soft_cap))
    assert len(expected) > 4
    for (same, latents, reconstruction), (levels, kept, _) in zip(
        decoded_levels(model, code, sizes), expected, strict=True
    ):
        assert same == levels and torch.equal(latents, kept) and reconstruction.dtype == dtype
        torch.testing.assert_close(reconstruction, model.decode(kept), rtol=1e-5, atol=1e-6)
    turned = list(decoded_levels(model, code.T.contiguous().T, sizes))  # the same values in another order of memory
    torch.testing.assert_close(turned[2][2], model.decode(expected[2][1]), rtol=1e-5, atol=1e-6)


def test_a_code_of_zeros_has_one_level(entries):
    model = make_model("msae")
    ((same, latents, reconstruction),) = decoded_levels(model, torch.zeros(3, N), [2, 8, N])
    assert same == [2, 8, N] and not latents.any()
    torch.testing.assert_close(reconstruction, model.denormalize(model.pre_bias).expand(3, D))


def test_a_code_that_is_not_finite_is_refused(entries):
    code = torch.ones(3, N)
    code[1, 2] = torch.nan
    with pytest.raises(ValueError, match="latents"):
        next(decoded_levels(make_model("msae"), code, [2, N]))
