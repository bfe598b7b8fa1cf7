"""Figures of concepts, against the closed forms of the Gaussian task and against edits whose effect is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import norm

from hf_msae.statistics import auroc
from hf_msae.steering.cross_validation import few_rows
from hf_msae.steering.direction import levels
from hf_msae.steering.metrics import (
    CrossConcepts,
    concept_figures,
    cross_concept_figures,
    orthogonality_figures,
    robustness_figures,
)
from tests.steering.measuring.known_edits import STRENGTH, Known, Oracle, fit


def test_detection_and_separability_have_their_closed_forms(task, known):
    figures = concept_figures(known["concept 1"], task, "concept 1", seed=0)
    _, low, high = figures["detection_auroc"]
    assert low < norm.cdf(STRENGTH / np.sqrt(2)) < high and high - low < 0.02
    score, truth = known["concept 1"].score(task.features[task.test]), task.concepts["concept 1"][task.test]
    rng, groups = np.random.default_rng(0), [np.flatnonzero(truth), np.flatnonzero(~truth)]
    drawn = [np.concatenate([rng.choice(group, len(group)) for group in groups]) for _ in range(200)]
    error = np.std([auroc(truth[rows], score[rows]) for rows in drawn])
    assert figures["detection_auroc_se"][0] == pytest.approx(error, rel=0.25)
    assert np.isnan(figures["detection_auroc_se"][1:]).all()
    _, low, high = figures["separability"]
    assert low < STRENGTH / np.sqrt(2) < high


def test_a_removed_direction_leaves_nothing(task, known):
    figures = concept_figures(known["concept 1"], task, "concept 1", seed=0)
    assert figures["removal_auroc"][0] == 0.5
    for probe in ("leakage_linear", "leakage_nonlinear"):
        assert 0.46 < figures[probe][0] < 0.54


@pytest.mark.parametrize("kept", [0.0, 1e-6, 1e-3])
def test_probes_do_not_see_rounding_errors(task, kept):
    """A concept along one coordinate: what float32 leaves of it is no leakage, a thousandth of it is."""

    class Nearly(Known):
        def _remove(self, x):
            return kept * x + (1 - kept) * super()._remove(x)

    axis = np.eye(24)[0]
    mirror = task.provenance["directions"][1] - axis
    turned = task.features - 2 * np.outer(task.features @ mirror, mirror) / (mirror @ mirror)
    turned = replace(task, features=turned.astype(np.float32))
    figures = concept_figures(fit(Nearly(axis), turned, "concept 1"), turned, "concept 1", seed=0)
    for probe in ("leakage_linear", "leakage_nonlinear"):
        assert figures[probe][0] > 0.85 if kept == 1e-3 else 0.46 < figures[probe][0] < 0.54


def test_half_a_removal_leaks(task):
    class Half(Known):
        def _remove(self, x):
            return 0.5 * (x + super()._remove(x))

    direction = task.provenance["directions"][1]
    figures = concept_figures(fit(Half(direction), task, "concept 1"), task, "concept 1", seed=0)
    assert min(figures[name][0] for name in ("removal_auroc", "leakage_linear", "leakage_nonlinear")) > 0.85


def test_orthogonal_concepts_stay_when_others_go(task, known):
    cross = cross_concept_figures(known, task)
    for concept in known:
        detection = concept_figures(known[concept], task, concept, seed=0)["detection_auroc"][0]
        assert cross.areas[concept, concept] == 0.5 and cross.areas[concept, None] == pytest.approx(
            detection, abs=0.02
        )
        figures = robustness_figures(concept, cross)
        assert figures["robustness"][0] == pytest.approx(1, abs=0.01)
        assert figures["robustness_worst"][0] <= figures["robustness"][0]
        assert figures["robustness_change"][0] == pytest.approx(1, abs=0.01)
        for value, low, high in figures.values():
            assert low <= value <= high and 0 < high - low < 0.02


def test_robustness_has_the_interval_of_resampled_rows(task, known):
    """Against drawing rows and ranking them anew, for concepts that are found less well after each other's removal."""
    axes = np.array(task.provenance["directions"])
    mixed = {
        name: fit(Known(axes[place] + 0.9 * axes[3 - place]), task, name)
        for place, name in ((1, "concept 1"), (2, "concept 2"))
    }
    cross = cross_concept_figures(mixed, task)
    value, low, high = robustness_figures("concept 1", cross)["robustness"]
    assert value < 0.985
    X = task.features[task.test]
    truth = task.concepts["concept 1"][task.test]
    before, after = mixed["concept 1"].score(X), mixed["concept 1"].score(mixed["concept 2"].remove(X))
    rng, ratios = np.random.default_rng(0), []
    rows = rng.permutation(len(X))[: sum(map(len, cross.shares["concept 1"]))]
    groups = [rows[truth[rows]], rows[~truth[rows]]]
    for _ in range(200):
        drawn = np.concatenate([rng.choice(group, len(group)) for group in groups])
        ratios.append(auroc(truth[drawn], after[drawn]) / auroc(truth[drawn], before[drawn]))
    assert high - low == pytest.approx(2 * 1.96 * np.std(ratios), rel=0.2)
    one = CrossConcepts(cross.areas, {"concept 1": (cross.shares["concept 1"][0][:1], cross.shares["concept 1"][1])})
    assert np.isfinite(robustness_figures("concept 1", one)["robustness"]).tolist() == [True, False, False]


def test_orthogonality_has_both_denominators(task, known):
    figures = orthogonality_figures(known, task)["concept 1"]
    assert figures["orthogonality"][0] == pytest.approx(1, abs=1e-5)
    assert figures["orthogonality"][2] - figures["orthogonality"][1] < 1e-6  # all rows are changed by the same
    nothing = {**known, "bias": Oracle(task)}  # its `add` changes nothing
    assert np.isnan(orthogonality_figures(nothing, task)["bias"]["orthogonality"][0])
    same = dict.fromkeys(known, known["bias"])
    figures = orthogonality_figures(same, task)["bias"]
    assert figures["orthogonality_mean"][0] == pytest.approx(0, abs=1e-6)
    assert figures["orthogonality"][0] == pytest.approx(1 / 4, abs=1e-6)


def test_orthogonality_has_the_interval_of_resampled_rows(task, known):
    """For an edit that moves half of the rows by each of two directions, its direction depends on the rows."""
    first, second = (torch.tensor(np.float32(task.provenance["directions"][place])) for place in (0, 1))

    class Varied(Known):
        def _add(self, x, amount):
            return x + amount * torch.where(x[:, :1] > 0.5, first, 0.5 * second).to(x.dtype)

    edits = {"bias": known["bias"], "varied": fit(Varied(np.ones(24)), task)}
    figures = orthogonality_figures(edits, task)
    X = task.features[task.test].astype(np.float64)
    change, unit = edits["varied"].add(X) - X, known["bias"].direction.double().numpy()
    rng, drawn = np.random.default_rng(0), []
    for _ in range(300):
        mean = change[rng.integers(len(X), size=len(X))].mean(axis=0)
        drawn.append(1 - abs(mean @ unit) / np.linalg.norm(mean))
    for concept in edits:
        value, low, high = figures[concept]["orthogonality_mean"]
        assert low < value < high and high - low == pytest.approx(2 * 1.96 * np.std(drawn), rel=0.15)


def test_few_rows_keep_the_rare_class():
    concept = np.zeros(10_000, dtype=bool)
    concept[:30] = True
    rows = few_rows(concept, 500, seed=0)
    assert len(rows) == 500 == len(set(rows)) and concept[rows].sum() == 30
    assert few_rows(~concept, 40, seed=0).shape == (40,) and (~concept)[few_rows(~concept, 40, seed=0)].sum() == 20
    assert few_rows(concept[:100], 500, seed=0).tolist() == list(range(100))


def test_levels_turn_a_direction_towards_the_concept():
    X = np.array([[0.0, 0.0], [0.0, 2.0], [4.0, 0.0], [4.0, 2.0]])
    found = levels(X, np.array([True, True, False, False]), np.array([1.0, 0.0]))
    assert found["direction"].tolist() == [-1, 0] and found["levels"].tolist() == [-4, 0] and found["center"] == -2
