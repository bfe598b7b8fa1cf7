"""The multi-concept pattern where the concept is, against the closed forms of the Gaussian task."""

import numpy as np
import pytest

from hf_msae.steering import METHODS, NotDefinedError, gaussian_task

STRENGTH = 3.0


@pytest.fixture(scope="module")
def task():
    """Label and bias are correlated, and their directions overlap."""
    return gaussian_task(num_rows=20000, width=16, num_concepts=3, strength=STRENGTH, correlation=0.8, overlap=0.5)


@pytest.fixture(scope="module")
def edit(task):
    train = task.train
    return METHODS["reactive_pattern"]().fit(
        task.features[train], task.concepts["bias"][train], others=(task.target[train] == 1)[:, None]
    )


def test_effect_and_detector_are_the_true_ones(task, edit):
    """With the label held fixed, the noise is white: effect and detector both point along the true direction."""
    direction = np.array(task.provenance["directions"][0])
    np.testing.assert_allclose(edit.parameters["effect"], STRENGTH * direction, atol=0.12)
    detector = edit.parameters["detector"].numpy()
    assert detector @ direction / np.linalg.norm(detector) > 0.995


def test_removal_leads_to_the_counterfactual_where_the_concept_is_found(task, edit):
    X, found = task.features, edit.score(task.features) > 0
    left = edit.remove(X)
    assert (left[~found] == X[~found]).all()
    assert ((left - task.counterfactuals)[task.concepts["bias"] & found] ** 2).sum(axis=1).max() < 0.05
    assert (found == task.concepts["bias"]).mean() > 0.9


def test_addition_goes_the_other_way(task, edit):
    X, found = task.features, edit.score(task.features) > 0
    more = edit.add(X, 0.5)
    assert (more[found] == X[found]).all()
    effect = np.broadcast_to(edit.parameters["effect"].numpy(), X.shape)
    np.testing.assert_allclose((more - X)[~found], 0.5 * effect[~found], atol=1e-4)


def test_rare_concepts_need_more_evidence(task):
    """The score is the log-odds, so it knows how rare the concept is."""
    train = task.train
    X, concept = task.features[train], task.concepts["bias"][train]
    fewer = np.flatnonzero(~concept | (np.random.default_rng(0).random(len(concept)) < 0.1))
    usual = METHODS["reactive_pattern"]().fit(X, concept)
    rare = METHODS["reactive_pattern"]().fit(X[fewer], concept[fewer])
    assert (rare.score(X) - usual.score(X)).mean() == pytest.approx(np.log(0.1), abs=0.5)
    assert ((rare.score(X) > 0)[~concept].mean()) < 0.5 * (usual.score(X) > 0)[~concept].mean()


def test_a_concept_without_an_effect_of_its_own_is_not_defined(task):
    """The embeddings depend on another concept alone."""
    other = task.concepts["concept 1"]
    X = np.where(other, 1.0, 0.0)[:, None] * [1.0, 0.5]
    with pytest.raises(NotDefinedError, match="held fixed"):
        METHODS["reactive_pattern"]().fit(X, task.concepts["bias"], others=other[:, None])
