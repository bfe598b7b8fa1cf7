"""Pruning: how few columns do as well as all of them, against rankings that know less."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import TransformedTargetRegressor
from sklearn.pipeline import Pipeline

from ..._utils.wording import counted
from ...statistics import candidate, percentiles, resampled_means
from ..fixed import Fitted
from ..mean_spectrum import PATCHES_ONLY, ModelOfPatches
from ..subject import Subject
from .explainers import explain, trees_of
from .outcome import Outcome

AS_GOOD = 1.05
"""A smaller model is as good if its mean squared error is at most this many times that of the whole one."""
SIZES = (1, 2, 5, 10, 24, 48, 120, 240, 600, 1200)
"""Numbers of columns; 24 are 1% of the 2,400 of the HYPERVIEW challenge's winner."""
_FEW = 0.01
_ROWS = 100
_MOST_CELLS = 2**24  # of permuted copies of the rows, at a time
COLUMNS = ["ranking", "features", "error", "low", "high", "loss", "loss_low", "loss_high"]


def pruning(subject: Subject) -> Outcome:
    """Refit the model to its strongest columns, and see how many are needed.

    Columns are ranked inside each fold, by what the rows of the other folds tell, so that the rows that are tested on
    have no part in the choice: by attributions (mean absolute SHAP value, over targets in their standard deviations),
    by what permuting a column costs, by impurity (of forests), and at random. In the table `pruning`, error is the
    mean squared error over that of predicting the mean, averaged over targets, and loss is that error over the whole
    model's. A model that is not fitted again has the other columns set to their means instead. Table `smallest`: the
    smallest number of columns with a loss of at most 1.05, and its interval, unless the model is not shown to predict.
    """
    if isinstance(subject.model, ModelOfPatches):
        return Outcome({}, [], [PATCHES_ONLY.format("pruning is")])
    p, total = subject.X.shape[1], subject.Y.var(axis=0)
    sizes = [size for size in SIZES if size < p]
    errors: dict[tuple[str, int], np.ndarray] = {}
    for fold, (train, test, fitted) in enumerate(subject.fold_models):
        for name, order in _rankings(subject, train, fitted, fold).items():
            for size in sizes:
                model = _smaller(subject, train, fitted, order[:size])
                error = (subject.Y[test] - model(subject.X[test])) ** 2 / total
                errors.setdefault((name, size), np.empty(len(subject.X)))[test] = error.mean(axis=1)
    whole = (subject.squared_errors / total).mean(axis=1)
    columns = np.stack([*errors.values(), whole], axis=1)
    means = np.concatenate([columns.mean(axis=0)[None], resampled_means(columns, subject.num_resamples, subject.seed)])
    with np.errstate(divide="ignore", invalid="ignore"):
        loss = means / means[:, -1:]
    records, smallest = [], []
    for i, (name, size) in enumerate(errors):
        records.append((name, size, means[0, i], *percentiles(means[1:, i]), loss[0, i], *percentiles(loss[1:, i])))
    records.append(("all columns", p, means[0, -1], *percentiles(means[1:, -1]), 1.0, 1.0, 1.0))
    for name in dict.fromkeys(name for name, _ in errors):
        places = [i for i, key in enumerate(errors) if key[0] == name]
        numbers = np.array([*(size for each, size in errors if each == name), p])
        as_good = means[:, places] <= AS_GOOD * means[:, -1:]  # also where both are 0, and the loss is not defined
        good = np.concatenate([as_good, np.ones((len(loss), 1), dtype=bool)], axis=1)
        first = numbers[good.argmax(axis=1)]
        smallest.append((name, int(first[0]), *percentiles(first[1:].astype(float))))
    tests = []
    # Of a model that is no better than the mean, any few columns do as well.
    is_useful = percentiles(means[1:, -1])[1] < 1
    if not is_useful:
        smallest = []
    if is_useful and p >= _FEWEST_COLUMNS and (small := [size for size in sizes if size <= max(1, round(_FEW * p))]):
        few = max(small)
        place, control = (list(errors).index((name, few)) for name in ("attribution", "random"))
        evidence = (
            f"{'Left with' if subject.is_fixed else 'Refitted to'} the {counted(few, 'column')} with the largest "
            f"attributions, ranked inside the folds, the model has {loss[0, place]:.3f} times the "
            f"{subject.error_name} of the whole one; with {counted(few, 'random column')} it has "
            f"{loss[0, control]:.3f} times."
        )
        title = f"{few} of {p} columns {'does' if few == 1 else 'do'} as well as all of them"
        arguments = ("pruning", "few suffice", f"{few} columns", title, "loss", loss[0, place], loss[1:, place])
        tests.append(candidate(*arguments, (AS_GOOD,), evidence, _ADVICE, log=True, below=True))
    tables = {
        "pruning": pd.DataFrame(records, columns=COLUMNS),
        "smallest": pd.DataFrame(smallest, columns=["ranking", "features", "low", "high"]),
    }
    remarks = [] if is_useful else [_USELESS]
    return Outcome(tables, [each for each in tests if each is not None], remarks)


_USELESS = "The model is not shown to predict better than the mean, so it was not tested whether few columns suffice."
_ADVICE = "Use the smaller model: it is easier to check, and what it does not read cannot mislead it."
_FEWEST_COLUMNS = 100


def _smaller(
    subject: Subject, train: np.ndarray, fitted: Fitted, columns: np.ndarray
) -> Callable[[np.ndarray], np.ndarray]:
    if not subject.is_fixed:
        return subject.fit(train, columns, **_fewer_components(subject.model, len(columns)))
    means, kept = subject.X[train].mean(axis=0), np.zeros(subject.X.shape[1], dtype=bool)
    kept[columns] = True
    return lambda X: fitted(np.where(kept, X, means))


def _rankings(subject: Subject, train: np.ndarray, fitted: Fitted, fold: int) -> dict[str, np.ndarray]:
    """Rank columns, the most important first, by what the rows that were learned from tell."""
    rng = np.random.default_rng((subject.seed, fold))
    rows = np.sort(rng.permutation(train)[:_ROWS])
    values = explain(subject, fitted, rows, rows).values[:, :, : len(subject.targets)]
    spread = subject.Y[train].std(axis=0)  # 0 for a class that these rows lack, which ranks nothing
    scores = {
        "attribution": (np.abs(values).mean(axis=0)[:, spread > 0] / spread[spread > 0]).mean(axis=1),
        "permutation": _permutation(subject, fitted, rows, rng),
        "impurity": _impurity(fitted.model),
        "random": rng.random(subject.X.shape[1]),
    }
    return {name: np.argsort(-each, kind="stable") for name, each in scores.items() if each is not None}


def _permutation(subject: Subject, fitted: Fitted, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return how much the error grows when a column is permuted; many columns are predicted for in one call."""
    X, Y = subject.X[rows], subject.Y[rows]
    n, p = X.shape
    found, at_once = np.empty(p), max(1, _MOST_CELLS // (n * p))
    weight = 1 / subject.Y.var(axis=0)
    for start in range(0, p, at_once):
        chosen = np.arange(start, min(p, start + at_once))
        copies = np.repeat(X[None], len(chosen), axis=0)
        copies[np.arange(len(chosen)), :, chosen] = X[rng.permutation(n)][:, chosen].T
        predicted = fitted(copies.reshape(-1, p)).reshape(len(chosen), n, -1)
        found[chosen] = (((predicted - Y) ** 2) * weight).mean(axis=(1, 2))
    return found


def _impurity(model: Any) -> np.ndarray | None:
    model = model.regressor_ if isinstance(model, TransformedTargetRegressor) else model
    model = model[-1] if isinstance(model, Pipeline) and trees_of(model) is not None else model
    if hasattr(model, "feature_importances_"):
        return model.feature_importances_
    if getattr(model, "bootstrap_features", False) or getattr(model, "max_features", 1.0) != 1.0:
        return None  # each member of a bag has columns of its own
    members = getattr(model, "estimators_", [])
    members = (
        members.ravel() if isinstance(members, np.ndarray) else members
    )  # numpy would take a forest for its trees
    parts = [getattr(each, "feature_importances_", None) for each in members]
    return np.mean(parts, axis=0) if parts and all(each is not None for each in parts) else None


def _fewer_components(model: Any, size: int) -> dict[str, int]:
    """Return the parameters that must be smaller for a model of few columns: numbers of components."""
    known = model.get_params() if hasattr(model, "get_params") else {}
    named = {name: value for name, value in known.items() if name.split("__")[-1] == "n_components"}
    return {name: size for name, value in named.items() if isinstance(value, Integral) and value > size}
