"""Decoder orthogonality against its definition; matchings across seeds, exact and within the error they state."""

import itertools

import numpy as np
import pytest
import torch

from hf_msae.metrics import decoder_orthogonality, seed_stability
from hf_msae.metrics.dictionary import match_candidates


def direct(rows, unit_rows, count_diagonal):
    rows = np.asarray(rows, np.float64)
    if unit_rows:
        rows = np.array([row / np.linalg.norm(row) if np.linalg.norm(row) else row for row in rows])
    n = len(rows)
    total = sum((rows[i] @ rows[j]) ** 2 for i in range(n) for j in range(n) if i != j)
    return total / (n * n if count_diagonal else n * (n - 1))


@pytest.mark.parametrize("shape", [(50, 8), (6, 20), (2, 3)])
@pytest.mark.parametrize("unit_rows", [True, False])
@pytest.mark.parametrize("count_diagonal", [True, False])
def test_orthogonality_is_that_of_the_definition(shape, unit_rows, count_diagonal):
    rows = np.random.default_rng(0).normal(size=shape)
    rows[0] *= 30
    expected = direct(rows, unit_rows, count_diagonal)
    value = decoder_orthogonality(torch.from_numpy(rows).float(), unit_rows, count_diagonal)
    assert value == pytest.approx(expected, rel=1e-5)


def test_orthogonality_of_known_dictionaries():
    assert decoder_orthogonality(torch.eye(5) * 3) == pytest.approx(0.0, abs=1e-15)
    assert decoder_orthogonality(torch.ones(5, 4)) == pytest.approx(1.0)
    with_zero_row = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    assert decoder_orthogonality(with_zero_row) == pytest.approx(2 / 6)
    random = torch.randn(4000, 64, generator=torch.Generator().manual_seed(0))
    assert decoder_orthogonality(random) == pytest.approx(1 / 64, rel=0.01)


@pytest.mark.parametrize(
    ("rows", "message"),
    [(torch.ones(1, 4), "got 1"), (torch.tensor([[1.0], [float("nan")]]), "row 1"), (torch.ones(4), r"\(4,\)")],
)
def test_orthogonality_of_what_is_no_dictionary_is_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        decoder_orthogonality(rows)


def directions(rows, width, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, width))


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_the_matching_is_the_best_of_all():
    a, b = unit(directions(6, 4)), unit(directions(6, 4, seed=1))
    best = max(np.mean([a[i] @ b[j] for i, j in enumerate(p)]) for p in itertools.permutations(range(6)))
    found = seed_stability(a, b)
    assert found.mean_cosine == pytest.approx(best) and found.exact and found.error == 0
    assert sorted(found.pairs[:, 1]) == list(range(6)) and found.pairs[:, 0].tolist() == list(range(6))
    assert found.cosines == pytest.approx([a[i] @ b[j] for i, j in found.pairs])


@pytest.mark.parametrize("exact", [True, False])
def test_a_permuted_and_rescaled_dictionary_is_the_same(exact):
    a = directions(300, 16)
    order = np.random.default_rng(2).permutation(300)
    scaled = torch.from_numpy(a[order] * np.linspace(0.1, 9, 300)[:, None])
    found = seed_stability(torch.from_numpy(a), scaled, exact=exact)
    assert found.mean_cosine == pytest.approx(1.0) and found.fraction_above == 1.0
    assert order[found.pairs[:, 1]].tolist() == list(range(300))
    assert found.error == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("exact", [True, False])
def test_dictionaries_of_unequal_size(exact):
    a = directions(300, 16)
    found = seed_stability(a[40:], a, exact=exact)
    back = seed_stability(a, a[40:], exact=exact)
    assert found.pairs.tolist() == [[i, i + 40] for i in range(260)]
    assert back.pairs.tolist() == [[i + 40, i] for i in range(260)]
    assert found.mean_cosine == back.mean_cosine == pytest.approx(1.0)


def pairs_of_dictionaries():
    a, b = directions(700, 24), directions(700, 24, seed=1)
    yield pytest.param(a, b, id="random")
    same = np.concatenate([a[:350] + 0.3 * directions(350, 24, seed=2), b[350:]])
    yield pytest.param(a, same, id="half shared")
    yield pytest.param(a[:500], b, id="unequal")
    zeros = a.copy()
    zeros[:5] = 0
    yield pytest.param(zeros, b, id="zero rows")
    yield pytest.param(a + 3 * np.eye(24)[0], b + 3 * np.eye(24)[0], id="shared mean")
    # All rows want the same few columns, so that few candidates are left for most.
    yield pytest.param(directions(400, 8) * 0.05 + np.eye(8)[0], directions(400, 8, seed=1), id="crowded")


@pytest.mark.parametrize(("a", "b"), list(pairs_of_dictionaries()))
def test_the_approximate_matching_is_within_the_error_it_states(a, b):
    exact, found = seed_stability(a, b, exact=True), seed_stability(a, b, exact=False)
    assert not found.exact and len(set(found.pairs[:, 1])) == len(a)
    assert found.mean_cosine <= exact.mean_cosine + 1e-12 <= found.mean_cosine + found.error + 2e-12
    assert found.error <= 1e-4
    assert f"{found.error:.1e}" in str(found) and "e-" not in str(exact)


def test_the_bound_holds_where_the_search_is_cut_short():
    a, b = unit(directions(400, 8) * 0.05 + np.eye(8)[0]), unit(directions(400, 8, seed=1))
    best = seed_stability(a, b, exact=True).mean_cosine * 400
    matching, bound = match_candidates(a, b, candidates=4, max_rounds=1)
    assert sorted(matching) == list(range(400))
    assert (a * b[matching]).sum() <= best - 1 and best <= bound + 1e-9
    more, tighter = match_candidates(a, b, candidates=4)
    assert (a * b[more]).sum() > (a * b[matching]).sum() and tighter < bound


def test_the_threshold_is_the_one_given():
    a = directions(50, 8)
    assert seed_stability(a, a[::-1] + 0.5 * directions(50, 8, seed=1), threshold=0.0).fraction_above == 1.0
    assert seed_stability(a, directions(50, 8, seed=1), threshold=0.99).fraction_above == 0.0


def test_large_dictionaries_are_matched_approximately(monkeypatch):
    a = directions(60, 8)
    assert seed_stability(a, a).exact
    monkeypatch.setattr("hf_msae.metrics.dictionary.EXACT_LATENTS", 50)
    assert not seed_stability(a, a).exact


def test_random_directions_match_above_zero():
    found = seed_stability(directions(500, 32), directions(500, 32, seed=1))
    assert 0.3 < found.mean_cosine < 0.7 and found.fraction_above < 0.05


def test_dictionaries_that_cannot_be_matched_are_refused():
    with pytest.raises(ValueError, match="8 and 9"):
        seed_stability(directions(5, 8), directions(5, 9))
    bad = directions(5, 8)
    bad[2, 3] = np.nan
    with pytest.raises(ValueError, match="row 2 of dictionary_b"):
        seed_stability(directions(5, 8), bad)
