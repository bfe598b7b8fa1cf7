"""Seed stability: the best matching, and the approximate one within the error it states."""

import itertools

import numpy as np
import pytest
import torch

from hf_msae.metrics import seed_stability, stability
from hf_msae.metrics.assignment import assign_approximately


def directions(rows, width, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, width))


def test_the_matching_is_the_best_of_all():
    a, b = directions(6, 4), directions(6, 4, seed=1)
    unit_a, unit_b = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (a, b))
    best = max(np.mean([unit_a[i] @ unit_b[j] for i, j in enumerate(p)]) for p in itertools.permutations(range(6)))
    found = seed_stability(a, b)
    assert found.mean_cosine == pytest.approx(best) and found.exact and found.error == 0
    assert sorted(found.pairs[:, 1]) == list(range(6)) and found.pairs[:, 0].tolist() == list(range(6))
    assert found.cosines == pytest.approx([unit_a[i] @ unit_b[j] for i, j in found.pairs])


@pytest.mark.parametrize("exact", [True, False])
def test_a_permuted_and_rescaled_dictionary_is_the_same(exact):
    a = directions(300, 16)
    order = np.random.default_rng(2).permutation(300)
    found = seed_stability(
        torch.from_numpy(a), torch.from_numpy(a[order] * np.linspace(0.1, 9, 300)[:, None]), exact=exact
    )
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


@pytest.mark.parametrize("shared", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("rows", "columns"), [(700, 700), (500, 800)])
def test_the_approximate_matching_is_within_the_error_it_states(shared, rows, columns):
    a, b = directions(rows, 24), directions(columns, 24, seed=1)
    same = int(shared * rows)
    b[:same] = a[:same] + 0.3 * directions(same, 24, seed=2)
    exact, found = seed_stability(a, b, exact=True), seed_stability(a, b, exact=False)
    assert not found.exact and len(set(found.pairs[:, 1])) == rows
    assert found.mean_cosine <= exact.mean_cosine + 1e-12
    assert exact.mean_cosine <= found.mean_cosine + found.error + 1e-12
    assert found.error < 2e-3
    assert "approximate matching" in str(found) and "exact matching" in str(exact)


def test_the_bound_holds_where_candidates_are_too_few():
    # All rows want the same few columns, which their candidates are: most get what is left over.
    a = directions(400, 8) * 0.05 + np.eye(8)[0]
    b = directions(400, 8, seed=1)
    a, b = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (a, b))
    matching, bound = assign_approximately(a, b, candidates=4)
    assert sorted(matching) == list(range(400))
    best = seed_stability(a, b, exact=True).mean_cosine * 400
    assert (a * b[matching]).sum() <= best + 1e-9 <= bound + 2e-9
    assert bound <= 400 + 1e-9  # no sum of cosines is larger


@pytest.mark.parametrize("odd", ["zero rows", "a shared mean"])
def test_the_stated_error_stays_small_where_rows_cannot_be_told_apart(odd):
    a, b = directions(800, 24), directions(800, 24, seed=1)
    if odd == "zero rows":
        a[:5], b[3:8] = 0, 0
    else:
        a[:, 0] += 3
        b[:, 0] += 3
    exact, found = seed_stability(a, b, exact=True), seed_stability(a, b, exact=False)
    assert found.mean_cosine <= exact.mean_cosine + 1e-12 <= found.mean_cosine + found.error + 2e-12
    assert found.error < 0.05


def test_the_threshold_is_the_one_given():
    a = directions(50, 8)
    assert seed_stability(a, a[::-1] + 0.5 * directions(50, 8, seed=1), threshold=0.0).fraction_above == 1.0
    assert seed_stability(a, directions(50, 8, seed=1), threshold=0.99).fraction_above == 0.0


def test_large_dictionaries_are_matched_approximately(monkeypatch):
    a = directions(60, 8)
    assert seed_stability(a, a).exact
    monkeypatch.setattr(stability, "EXACT_LATENTS", 50)
    assert not seed_stability(a, a).exact


def test_random_directions_match_above_zero():
    found = seed_stability(directions(500, 32), directions(500, 32, seed=1))
    assert 0.3 < found.mean_cosine < 0.7 and found.fraction_above < 0.05


def test_what_is_refused():
    with pytest.raises(ValueError, match="have 8 and 9 columns"):
        seed_stability(directions(5, 8), directions(5, 9))
    with pytest.raises(ValueError, match="row 2 of dictionary_b holds NaN"):
        bad = directions(5, 8)
        bad[2, 3] = np.nan
        seed_stability(directions(5, 8), bad)
