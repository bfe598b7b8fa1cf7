"""SHAP values of any model, of trees inside of others too; the values of a row have to sum to its prediction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from sklearn.compose import TransformedTargetRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from ..fixed import Fitted
from ..hybrid_of_features import HybridOfFeatures
from ..subject import Subject

TOLERANCE = 1e-3
"""The largest gap that is called additive, in standard deviations of the predictions."""
CORRELATED = 0.95
"""Absolute correlation from which columns share credit."""
_MEND_DEPTH = 24
_DEEPEST = 64
"""Along the paths of deeper trees, the products of many shares lose their digits: with shap 0.51, forests of depth 32,
56 and 83 had gaps of 1e-12, 8e-7 and more than shap's own check admits; interventional mode had 9e-8 at depth 213."""
SAMPLED = "sampled permutations"
"""The method of values that are not exact."""
_BACKGROUND, _SMALL_BACKGROUND = 100, 10
_MOST_PLAYERS, _MOST_SAMPLED = 100, 50


@dataclass(frozen=True)
class Explanation:
    """SHAP values (n, p, t) of some rows, and how far they are from summing to the predictions.

    The gaps are |base + sum of values - prediction|, in standard deviations of the predictions, of the model that is
    explained; `remarks` say what had to be mended, and if it is another model than was asked for.
    """

    values: np.ndarray
    rows: np.ndarray
    method: str
    largest_gap: float
    median_gap: float
    remarks: tuple[str, ...] = ()


def explain(subject: Subject, fitted: Fitted, rows: np.ndarray, background: np.ndarray) -> Explanation:
    """Compute SHAP values of a fitted model.

    Affine models, such as ridge regression and partial least squares, also behind a scaler, have exact values in
    closed form: phi_j = c_j (x_j - mean x_j). So have classifiers with affine log-odds, such as logistic regression,
    whose log-odds are then explained. Trees are explained by TreeSHAP along their paths. Where that is not
    additive, because the trees are deep, it is done in interventional mode, and failing that for another model, fitted
    to the same rows, whose trees are no deeper than 24. All other models are explained by sampling permutations of
    columns; of many columns, those that are most correlated are moved together, or those of a concept where columns
    have concepts, and no more than 50 rows are explained.
    """
    X, others = subject.X[rows], subject.X[background]
    if fitted.columns is not None:
        X, others = X[:, fitted.columns], others[:, fitted.columns]
    predict = replace(fitted, columns=None)
    is_regressor = fitted.classes is None
    function = predict if is_regressor else predict.log_odds
    coefficients = _affine(function, others)
    if coefficients is not None:
        values = coefficients[None] * (X - others.mean(axis=0))[:, :, None]
        what = "an affine model" if is_regressor else "affine log-odds"
        return _checked(values, function(others).mean(axis=0), function(X), rows, f"closed form of {what}")
    parts = trees_of(fitted.model) if fitted.space is None else None
    remarks = ()
    if isinstance(fitted.model, HybridOfFeatures):
        larger = ~fitted.model.small(X)
        if larger.any():
            X, rows = X[larger], rows[larger]
            remarks = (f"Only the forest is explained: {(~larger).sum()} small fields are predicted by neighbors.",)
        else:
            parts = None
    if parts is not None:
        try:
            return _tree_values(subject, fitted, parts, X, others, rows, remarks)
        except Exception as error:  # shap's own, which must not be imported before it is needed
            if type(error).__name__ != "InvalidModelError":
                raise
            remarks += (f"TreeSHAP does not support this model ({error}), so permutations were sampled.",)
    few = slice(None, _MOST_SAMPLED)
    return _sampled(predict, X[few], others, rows[few], subject.seed, remarks, _players(subject, fitted, others))


def _checked(
    values: np.ndarray, base: np.ndarray, predicted: np.ndarray, rows: np.ndarray, method: str, remarks: tuple = ()
) -> Explanation:
    spread = np.maximum(predicted.std(axis=0), 1e-12)
    gaps = np.abs(base + values.sum(axis=1) - predicted) / spread
    return Explanation(values, rows, method, float(gaps.max()), float(np.median(gaps)), remarks)


def _affine(predict: Callable[[np.ndarray], np.ndarray | None], X: np.ndarray) -> np.ndarray | None:
    """Return the coefficients (p, t) of a function that is affine in the columns, otherwise None."""
    if predict(X[:1]) is None:
        return None
    scale = X.std(axis=0) + 1e-12
    rng = np.random.default_rng(0)
    middle = X.mean(axis=0)
    steps = scale * rng.normal(size=(8, X.shape[1]))
    ends = np.concatenate([middle + steps, middle - steps, middle[None] + 3 * steps, middle[None]])
    found = predict(ends)
    up, down, far, center = found[:8], found[8:16], found[16:24], found[24]
    size = np.abs(up - center).max() + 1e-12
    if (
        np.abs(up + down - 2 * center).max() > 1e-6 * size
        or np.abs(far - center - 3 * (up - center)).max() > 1e-6 * size
    ):
        return None
    if size <= 1e-9 * (1 + np.abs(center).max()):  # a constant, or a step function that was not met
        return None
    moved = predict(middle[None] + np.diag(scale))
    return (moved - center) / scale[:, None]


def _tree_values(
    subject: Subject,
    fitted: Fitted,
    parts: list[Trees],
    X: np.ndarray,
    others: np.ndarray,
    rows: np.ndarray,
    known: tuple[str, ...],
) -> Explanation:
    remarks = list(known)
    deepest = max(depth(part.model) for part in parts)
    modes = ["tree_path_dependent", "interventional"]
    if deepest > _DEEPEST:
        remarks.append(f"Trees are up to {deepest} levels deep: values along their paths would not be additive.")
        modes = modes[1:]
    for mode in modes:
        try:
            values, base, predicted = tree_shap(parts, X, others if mode == "interventional" else None)
        except Exception as error:  # shap's own, which must not be imported before it is needed
            if type(error).__name__ != "ExplainerError":
                raise
            remarks.append(f"TreeSHAP ({mode}) was not additive: {str(error).splitlines()[0][:160]}")
            continue
        found = _checked(values, base, predicted, rows, f"TreeSHAP, {mode}", tuple(remarks))
        if found.largest_gap <= TOLERANCE:
            return found
        remarks.append(f"TreeSHAP ({mode}) was off by up to {found.largest_gap:.2g} standard deviations.")
    depths = [name for name in fitted.model.get_params() if name.split("__")[-1] == "max_depth"]
    if not depths:
        raise ValueError(f"{subject.called} cannot be explained additively: {' '.join(remarks)}")
    parameters = {n: v for n, v in fitted.model.get_params().items() if n.split("__")[-1] == "random_state"}
    parameters |= dict.fromkeys(depths, _MEND_DEPTH)
    shallow = subject.fit(fitted.rows, fitted.columns, **parameters)  # to what it knew: not to the rows explained
    values, base, predicted = tree_shap(trees_of(shallow.model), X, None)
    asked = replace(fitted, columns=None)
    full = asked.log_odds(X) if asked.log_odds(X) is not None else asked.predict(X)
    with np.errstate(all="ignore"):
        same = min(np.corrcoef(*each)[0, 1] for each in zip(full.T, predicted.T, strict=False))
    remarks.append(
        f"Another model is explained, to whose predictions the values sum: with max_depth={_MEND_DEPTH}, fitted to "
        f"the same rows (correlation of predictions {same:.3f})."
    )
    return _checked(values, base, predicted, rows, f"TreeSHAP, max_depth={_MEND_DEPTH}", tuple(remarks))


def _players(subject: Subject, fitted: Fitted, others: np.ndarray) -> np.ndarray:
    """Return which columns are moved together: those of a concept, or correlated ones where there are many."""
    if "concept" in subject.features:
        concepts = subject.features["concept"].to_numpy()
        return np.unique(concepts if fitted.columns is None else concepts[fitted.columns], return_inverse=True)[1]
    p = others.shape[1]
    return clusters(others, most=_MOST_PLAYERS) if p > _MOST_PLAYERS else np.arange(p)


def _sampled(
    predict: Fitted,
    X: np.ndarray,
    others: np.ndarray,
    rows: np.ndarray,
    seed: int,
    remarks: tuple[str, ...],
    players: np.ndarray,
) -> Explanation:
    """Sample Shapley values of groups of columns, whose value is shared equally."""
    count = players.max() + 1
    size = np.bincount(players)
    rng = np.random.default_rng(seed)
    base_rows = others[rng.permutation(len(others))[:_SMALL_BACKGROUND]]
    base = predict(base_rows).mean(axis=0)
    values = np.zeros((len(X), count, len(base)))
    for i, x in enumerate(X):
        order = rng.permutation(count)
        for sequence in (order, order[::-1]):  # antithetic
            place = np.empty(count, dtype=np.int64)
            place[sequence] = np.arange(count)
            present = place[players][None] < np.arange(count + 1)[:, None]  # (count + 1, p)
            inputs = np.where(present[:, None], x[None, None], base_rows[None])
            answers = predict(inputs.reshape(-1, X.shape[1])).reshape(count + 1, len(base_rows), -1).mean(axis=1)
            values[i, sequence] += np.diff(answers, axis=0) / 2
    spread = (values / size[None, :, None])[:, players]
    if count < X.shape[1]:
        remarks += (f"{X.shape[1]} columns were explained as {count} groups, whose value is shared in equal parts.",)
    return _checked(spread, base, predict(X), rows, SAMPLED, remarks)


def clusters(X: np.ndarray, least: float = CORRELATED, most: int | None = None) -> np.ndarray:
    """Return the cluster of each column of X, counted from 0, by their absolute correlation (complete linkage).

    Columns of a cluster are correlated by at least `least`; with `most`, there are so many clusters at most, whatever
    the correlation.
    """
    if X.shape[1] == 1:
        return np.zeros(1, dtype=np.int64)
    with np.errstate(all="ignore"):
        correlation = np.nan_to_num(np.corrcoef(X, rowvar=False))
    np.fill_diagonal(correlation, 1)
    tree = linkage(squareform(np.clip(1 - np.abs(correlation), 0, 1), checks=False), "complete")
    if most is None:
        found = fcluster(tree, 1 - least, "distance")
    else:
        found = fcluster(tree, most, "maxclust")
    return np.unique(found, return_inverse=True)[1]


@dataclass(frozen=True)
class Trees:
    """A model of trees, for all targets or for one; predictions are its outputs times `scale` plus `offset`."""

    model: Any
    steps: Any = None  # what the columns go through before
    scale: np.ndarray | float = 1.0
    offset: np.ndarray | float = 0.0


def trees_of(model: Any) -> list[Trees] | None:
    """Return the models of trees that a fitted model consists of, one for all targets or one for each; or None."""
    steps = None
    if isinstance(model, HybridOfFeatures):
        return [Trees(model.model_.forest_, FunctionTransformer(model.without_edge), model.model_.scale_)]
    if isinstance(model, TransformedTargetRegressor):
        parts, scaler = trees_of(model.regressor_), model.transformer_
        if not isinstance(scaler, StandardScaler) or parts is None or len(parts) > 1:
            return None
        return [replace(parts[0], scale=scaler.scale_, offset=scaler.mean_)]
    if isinstance(model, Pipeline):
        steps, model = model[:-1], model[-1]
        if any(step != "passthrough" and not type(step).__name__.endswith("Scaler") for _, step in steps.steps):
            return None
    name = type(model).__name__
    if hasattr(model, "estimators_") and name.startswith("MultiOutput"):
        pairs = [trees_of(each) for each in model.estimators_]
        return None if steps is not None or None in pairs else [part for each in pairs for part in each]
    known = ("DecisionTree", "ExtraTree", "RandomForest", "GradientBoosting", "HistGradientBoosting")
    return [Trees(model, steps)] if name.startswith(known) else None


def tree_shap(
    parts: list[Trees], X: np.ndarray, background: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return values (n, p, t), base (t,) and predictions (n, t); shap's own check of additivity stays on."""
    import shap

    values, bases, predicted = [], [], []
    for part in parts:
        steps, model = part.steps, part.model
        x, others = (each if steps is None or each is None else steps.transform(each) for each in (X, background))
        mode = "tree_path_dependent" if others is None else "interventional"
        explainer = shap.TreeExplainer(model, others, feature_perturbation=mode)
        found = np.asarray(explainer.shap_values(x, check_additivity=True))
        found = found[:, :, None] if found.ndim == 2 else found
        base = np.atleast_1d(np.asarray(explainer.expected_value, dtype=np.float64))
        if hasattr(model, "classes_"):
            own = model.predict_proba(x)
            if found.shape[2] == 1:  # boosting: log-odds of the second class
                own = model.decision_function(x)[:, None]
            elif found.shape[2] == 2:
                found, base, own = found[:, :, 1:], base[1:], own[:, 1:]
        else:
            own = model.predict(x).reshape(len(x), -1)
        values.append(found * part.scale)
        bases.append(base[: found.shape[2]] * part.scale + part.offset)
        predicted.append(own * part.scale + part.offset)
    return np.concatenate(values, axis=2), np.concatenate(bases), np.concatenate(predicted, axis=1)


def depth(model: Any) -> int:
    """Return how deep the deepest of a model's trees is."""
    trees = [each for each in np.ravel(getattr(model, "estimators_", [model])) if hasattr(each, "tree_")]
    return max((each.tree_.max_depth for each in trees), default=0)
