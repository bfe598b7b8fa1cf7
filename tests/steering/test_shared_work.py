"""What is computed once for many settings, edits or calls is what each would have computed."""

from copy import copy

import numpy as np
import pytest
from sklearn.linear_model import Lasso, Ridge
from sklearn.model_selection import GridSearchCV, StratifiedKFold

from hf_msae.steering import METHODS
from hf_msae.steering.cross_validation import _best_setting, balanced_weights, fit_best
from hf_msae.steering.direction import Direction, scores_of


class Squared(Direction):
    """A direction with a score that is not linear."""

    method = "squared"

    def _direction(self, X, concept, seed, others):
        return X[concept].mean(axis=0) - X[~concept].mean(axis=0)

    def _score(self, x):
        return super()._score(x) ** 2


def test_scores_of_many_edits_are_those_of_each(task, fitted, train):
    edits = [*fitted.values(), Squared().fit(*train[:2])]
    X = task.features[task.test]
    found = scores_of(edits, X)
    assert found.dtype == np.float32 and found.shape == (len(edits), len(X))
    for edit, scores in zip(edits, found, strict=True):
        np.testing.assert_allclose(scores, edit.score(X), rtol=1e-4, atol=1e-4, err_msg=edit.method)
    assert (found[-1] >= 0).all()


@pytest.mark.parametrize(("estimator", "exponents"), [(Ridge, (-5, 0, 2, 4)), (Lasso, (-5, -2, -1, 0))])
def test_all_settings_at_once_are_compared_as_one_by_one(estimator, exponents):
    """Both estimators choose what a search over the grid chooses, for signals that need more of a penalty or less."""
    chosen = set()
    for seed, strength in enumerate((0.2, 2.0)):
        rng = np.random.default_rng(seed)
        y = np.where(rng.random(120) < 0.3, 1.0, -1.0)
        X = 3 * rng.standard_normal((120, 30)) + strength * y[:, None] * (np.arange(30) < 6) + 1
        grid = {"alpha": [10.0**i for i in exponents]}
        folds, weights = list(StratifiedKFold(2).split(X, y)), balanced_weights(y > 0)
        found = _best_setting(estimator(), grid, X, y, weights, folds)
        search = GridSearchCV(estimator(), grid, cv=folds, refit=False).fit(X, y, sample_weight=weights)
        assert found == search.best_params_
        chosen.add(found["alpha"])
    assert len(chosen) > 1


def test_codes_that_are_kept_change_nothing(task, make, train):
    X, concept, others = train
    edit, test = make("msae"), task.features[task.test]
    alone = copy(edit).fit(X, concept, others=others)
    expected = alone.remove(test), alone.add(test)
    calls, encode = [], edit.model.encode
    with edit.reading(task.features):
        fitted = copy(edit).fit(X, concept, others=others)
        edit.model.encode = lambda *given: calls.append(len(given[0])) or encode(*given)
        try:
            found = fitted.remove(test), fitted.add(test)
            assert not calls
            fitted.remove(test + 1)
            assert calls
        finally:
            del edit.model.encode
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    assert not edit._known_codes and METHODS["msae"] is type(edit)


@pytest.mark.parametrize("estimator", [Ridge, Lasso])
def test_rows_that_are_sorted_by_class_have_the_same_settings(estimator):
    rng = np.random.default_rng(0)
    y = rng.permutation(np.where(np.arange(90) < 36, 1.0, -1.0))  # sorted, each fifth has one class
    X = rng.standard_normal((90, 40)) + 0.5 * y[:, None] * (np.arange(40) < 4)
    order = np.argsort(y, kind="stable")
    grid = {"alpha": [1e-5, 1e-3, 0.1, 10.0, 1000.0]}
    found = [fit_best(estimator(), grid, X[rows], y[rows], 5, 0) for rows in (slice(None), order)]
    assert found[1].alpha == found[0].alpha > 1e-3
    np.testing.assert_allclose(found[1].coef_, found[0].coef_, atol=1e-4)
