"""LEACE, its quadratic form and INLP: no probe of the training rows finds the concept."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from hf_msae.steering import METHODS, NotDefinedError

FOREIGN = Path(__file__).parents[1] / "foreign"


@pytest.fixture(scope="module")
def foreign():
    """Embeddings and a concept, and what concept-erasure makes of them."""
    return dict(np.load(FOREIGN / "concept_erasure.npz"))


@pytest.mark.parametrize("shrinkage", [False, True])
def test_leace_is_that_of_its_authors(foreign, relative_error, shrinkage):
    X, concept = foreign["X"], foreign["concept"]
    found = METHODS["leace"](shrinkage=shrinkage).fit(X, concept).remove(X)
    assert relative_error(found, foreign["leace_shrunk" if shrinkage else "leace_plain"]) < 1e-5


@pytest.mark.parametrize("shrinkage", [False, True])
def test_quadratic_erasure_is_that_of_its_authors(foreign, relative_error, shrinkage):
    X, concept = foreign["X"], foreign["concept"]
    edit = METHODS["quadratic"](shrinkage=shrinkage, pooling=0).fit(X, concept)
    predicted = (edit.score(X) > 0).astype(int)
    assert 0.7 < (predicted == concept).mean()
    expected = foreign["quadratic_shrunk" if shrinkage else "quadratic_plain"][predicted, np.arange(len(X))]
    # Their center is the mean of both class means; ours is the mean of all rows.
    means = np.stack([X[~concept].mean(axis=0), X[concept].mean(axis=0)])
    assert relative_error(edit.remove(X), expected - means.mean(axis=0) + X.mean(axis=0)) < 1e-5


@pytest.mark.parametrize("shrinkage", [False, True])
def test_leace_leaves_linear_probes_of_training_rows_at_chance(train, shrinkage):
    X, concept, _ = train
    X = X.astype(np.float64)
    removed = METHODS["leace"](shrinkage=shrinkage).fit(X, concept).remove(X)
    apart = removed[concept].mean(axis=0) - removed[~concept].mean(axis=0)
    assert np.linalg.norm(apart) < 1e-5
    probe = LogisticRegression(class_weight="balanced").fit(removed, concept)
    assert np.abs(probe.coef_).max() < 1e-4


def test_quadratic_erasure_stops_quadratic_probes_that_leace_does_not():
    rng = np.random.default_rng(0)
    concept = np.arange(4000) % 2 == 0
    X = rng.standard_normal((4000, 3))
    X[concept] *= [6, 1, 1]  # the mean is the same, and the spread is not
    X[concept] += [0, 3, 0]
    areas = {}
    for method in ("leace", "quadratic"):
        removed = METHODS[method]().fit(X, concept).remove(X)
        areas[method] = roc_auc_score(concept, np.abs(removed[:, 0]))
    assert areas["leace"] > 0.8 and areas["quadratic"] < 0.62


def test_quadratic_erasure_pools_covariances_that_few_rows_do_not_tell():
    right, moved = {0: [], None: []}, {0: [], None: []}
    for seed in range(4):
        rng = np.random.default_rng(seed)
        concept = np.arange(2200) % 2 == 0
        X = rng.standard_normal((2200, 60)) * np.geomspace(10, 0.3, 60)
        X[:, 20] += 3 * X[:, 20].std() * concept
        X[concept] *= 1.3
        for pooling in right:
            edit = METHODS["quadratic"](pooling=pooling).fit(X[:200], concept[:200])
            right[pooling].append(((edit.score(X[200:]) > 0) == concept[200:]).mean())
            moved[pooling].append(np.linalg.norm(edit.remove(X[200:]) - X[200:]))
    assert np.mean(right[None]) > np.mean(right[0]) + 0.015
    assert np.mean(moved[None]) < 0.75 * np.mean(moved[0])


def test_few_rows_need_shrinkage_or_pooling(train):
    X, concept, _ = train
    with pytest.raises(ValueError, match=r"pooling.*1\.5"):
        METHODS["quadratic"](pooling=1.5)
    for number, refused, said in ((5, {"shrinkage": False, "pooling": 0}, "shrinkage"), (3, {}, "pooling")):
        few = np.r_[np.flatnonzero(concept)[:number], np.flatnonzero(~concept)[:50]]
        with pytest.raises(NotDefinedError, match=rf"{number} rows.*{said}"):
            METHODS["quadratic"](**refused).fit(X[few], concept[few])
        for options in ({"pooling": 1}, *([{}, {"shrinkage": False}] if number == 5 else [])):
            assert np.isfinite(METHODS["quadratic"](**options).fit(X[few], concept[few]).remove(X)).all()


def test_inlp_projects_out_as_many_directions_as_probes_find(train):
    X, concept, _ = train
    edit = METHODS["inlp"]().fit(X, concept)
    basis = edit.parameters["basis"].double().numpy()
    assert 1 <= len(basis) < X.shape[1] / 2
    np.testing.assert_allclose(basis @ basis.T, np.eye(len(basis)), atol=1e-6)
    removed = edit.remove(X)
    np.testing.assert_allclose(removed.mean(axis=0), X.mean(axis=0), atol=1e-4)
    assert roc_auc_score(concept, LogisticRegression().fit(removed, concept).decision_function(removed)) < 0.7
    assert len(METHODS["inlp"](rounds=1).fit(X, concept).parameters["basis"]) == 1


def test_inlp_finds_all_directions_of_a_concept():
    rng = np.random.default_rng(0)
    concept = np.arange(3000) % 2 == 0
    X = rng.standard_normal((3000, 8))
    X[:, :2] += 2 * concept[:, None]
    X[:, 1] *= 30  # a second direction that the first probe does not exhaust
    edit = METHODS["inlp"](ridge=1e-6).fit(X, concept)
    leftover = edit.remove(X)
    assert abs(roc_auc_score(concept, leftover[:, 0]) - 0.5) < 0.1


def _few_rows(seed, strength):
    rng = np.random.default_rng(seed)
    concept = np.arange(4400) % 2 == 0
    X = rng.standard_normal((4400, 64))
    X[:, 0] += strength * concept
    return X[:400], concept[:400], X[400:], concept[400:]


def test_inlp_goes_on_while_new_rows_show_the_concept():
    left, rounds = [], []
    for seed in range(5):
        X, concept, new, truth = _few_rows(seed, strength=2.0)
        edit = METHODS["inlp"]().fit(X, concept, seed=seed)
        left.append(roc_auc_score(truth, edit.remove(new)[:, 0]))
        rounds.append(len(edit.parameters["basis"]))
    # One direction leaves 0.75 of it, since a probe of 400 rows is not quite the axis. Rows that earlier probes were
    # fitted to look worse than chance after that.
    assert np.mean(rounds) > 2 and np.mean(left) < 0.72


def test_inlp_stops_where_there_is_no_concept():
    rounds = [len(METHODS["inlp"]().fit(*_few_rows(seed, strength=0.0)[:2]).parameters["basis"]) for seed in range(10)]
    assert np.mean(rounds) < 2
