"""Models of trees inside of other models, and their SHAP values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.compose import TransformedTargetRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from ..hybrid_of_features import HybridOfFeatures


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
