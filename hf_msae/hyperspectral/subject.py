"""The subject of a red team: a model that is refitted in folds, and the data that it is tested on."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.base import clone, is_classifier
from sklearn.model_selection import KFold, StratifiedKFold

from .._utils.checks import refuse_masked, refuse_other_order
from .copies import digest, first_copies, keep_together, remark_on_copies
from .fixed import Fitted, FixedClassifier
from .hybrid_of_features import as_fit_arguments
from .mean_spectrum import ModelOfPatches
from .patches import Pair, size_classes
from .reading import read_features, read_groups, read_targets, refuse_not_finite

if TYPE_CHECKING:
    from .concept_space import ConceptSpace

ALL = "all"
"""Stands for the mean over targets."""
_MOST_DRAWS = 100
"""Folds are drawn this many times, at most, until all classes are among the rows learned from."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A model and the data that it is tested on.

    For a classifier the targets are the classes, 0 or 1, and the predictions their probabilities, so that the mean
    squared error is the Brier score; of two classes only the second is a target.

    Clones of `model` are fitted to X (n, p) and Y (n, t). `features` is the table of the columns of X, `classes` is
    None for a regressor, and `space` says what the columns are if they are concepts. `folds` say which fold each row
    is tested in, `limits` how much the slower audits do (`num_explained`, `num_attacked`, `num_seeds`), `remarks` what
    was done to the data, and `copies` which row is the first equal one (`first_copies`), None if all differ or no
    model is fitted.
    """

    model: Any
    X: np.ndarray
    Y: np.ndarray
    targets: tuple[str, ...]
    groups: Mapping[str, np.ndarray]
    features: pd.DataFrame
    classes: np.ndarray | None
    patches: Sequence[Pair] | None
    transformer: Any
    folds: np.ndarray
    num_resamples: int = 1000
    seed: int = 0
    limits: Mapping[str, int] = field(default_factory=dict)
    space: ConceptSpace | None = None
    remarks: tuple[str, ...] = ()
    ids: tuple[str, ...] | None = None
    model_name: str | None = None
    copies: np.ndarray | None = None

    @property
    def called(self) -> str:
        """What messages call the model."""
        return self.model_name or type(self.model).__name__

    @property
    def is_fixed(self) -> bool:
        """Whether the model is tested as it is, instead of being fitted in folds."""
        return _keeps_what_it_learned(self.model)

    @property
    def error_name(self) -> str:
        """What the mean squared error is called."""
        return "mean squared error" if self.classes is None else "Brier score"

    @cached_property
    def inputs(self) -> np.ndarray:
        """What the model is given: X, or the embeddings that X takes apart into concepts."""
        return self.X if self.space is None else self.space.inputs(self.X)

    @cached_property
    def indicators(self) -> np.ndarray:
        """Which class each row of a classifier is of, 0 or 1 (n, classes)."""
        return self.Y if len(self.classes) > 2 else np.concatenate([1 - self.Y, self.Y], axis=1)

    def fit(
        self, rows: np.ndarray, columns: np.ndarray | None = None, seed: int | None = None, **parameters: Any
    ) -> Fitted:
        """Fit a clone of the model to rows and, if they are given, columns, with these parameters set.

        A seed is the value of each `random_state` of the model, which otherwise stay as given.
        """
        model = clone(self.model)
        known = model.get_params() if hasattr(model, "get_params") else {}
        if seed is not None:
            parameters |= {name: seed for name in known if name.split("__")[-1] == "random_state"}
        if parameters:
            model.set_params(**parameters)
        X = self.inputs[rows] if columns is None else self.X[np.ix_(rows, columns)]
        space = self.space if columns is None else None
        places = as_fit_arguments(model, rows, columns)
        if self.classes is not None:
            labels = self.classes[self.indicators[rows].argmax(axis=1)]
            model.fit(X, labels, **places)  # which need not return the model
            return Fitted(model, columns, self.classes, space, rows)
        y = self.Y[rows]
        try:
            model.fit(X, y[:, 0] if y.shape[1] == 1 else y, **places)
        except ValueError as error:
            raise ValueError(self._why_it_does_not_fit(X, y, places, error)) from error
        return Fitted(model, columns, None, space, rows, self.targets, self.called)

    def _why_it_does_not_fit(self, X: np.ndarray, y: np.ndarray, places: Mapping, error: ValueError) -> str:
        """Say whether several targets are one too many for the model, or what is wrong with one."""
        try:
            if y.shape[1] > 1:
                clone(self.model).fit(X, y[:, 0], **places)
                return (
                    f"{self.called} does not fit {y.shape[1]} targets ({', '.join(self.targets)}), but one: {error} "
                    f"Choose one (--targets {shlex.quote(self.targets[0])}), or wrap the model in "
                    "MultiOutputRegressor of sklearn.multioutput"
                )
        except ValueError:
            pass  # as with all targets
        return f"{self.called} cannot be fitted to {len(X)} rows of {X.shape[1]} columns: {error}"

    @cached_property
    def fold_models(self) -> list[tuple[np.ndarray, np.ndarray, Fitted]]:
        """Rows fitted to, rows tested on, and the model, fold by fold."""
        return [(train, test, self.fit(train)) for train, test in splits(self.folds)]

    @cached_property
    def predictions(self) -> np.ndarray:
        """Predictions of every row by the model of the fold that did not see it (n, t)."""
        found = np.empty_like(self.Y)
        for _, test, model in self.fold_models:
            found[test] = model(self.X[test])
        refuse_not_finite(f"what {self.called} predicts", found, self.targets)
        return found

    def predict_changed(self, X: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Predict changed X of some rows, each by the model of the fold that did not see the row (rows, t)."""
        return self.predict_inputs(X if self.space is None else self.space.inputs(X), rows)

    def predict_inputs(self, inputs: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Predict as `predict_changed`, from what the model is given."""
        if self.is_fixed:
            return self.fold_models[0][2].predict(inputs)
        found = np.empty((len(inputs), self.Y.shape[1]))
        for _, test, model in self.fold_models:
            chosen = np.isin(rows, test)
            if chosen.any():
                found[chosen] = model.predict(inputs[chosen])
        return found

    def predict_folds(self, folds: np.ndarray, columns: np.ndarray | None = None) -> np.ndarray:
        """Predict every row by a model that is fitted to the other folds (n, t)."""
        found = np.empty_like(self.Y)
        for train, test in splits(folds):
            found[test] = self.fit(train, columns)(self.X[test])
        return found

    def drawn_folds(self, folds: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw other folds of the same sizes; copies stay together, which may change the sizes.

        All rows of a small class may be drawn into one fold, and many classifiers cannot be fitted without them: then
        folds are drawn again.
        """
        for _ in range(_MOST_DRAWS):
            drawn = keep_together(rng.permutation(folds), self.copies, rng)
            if self.classes is None or all(self.indicators[train].any(axis=0).all() for train, _ in splits(drawn)):
                break
        return drawn

    @cached_property
    def squared_errors(self) -> np.ndarray:
        """Squared errors of `predictions` (n, t)."""
        return (self.Y - self.predictions) ** 2


def _keeps_what_it_learned(model: Any) -> bool:
    model = model.model if isinstance(model, ModelOfPatches) else model
    return getattr(model, "keeps_what_it_learned", False)


def _will_predict(model: Any) -> bool:
    """Say whether a model predicts, if only once it is fitted: a stack, and what is around it, cannot before."""
    tags = getattr(model, "__sklearn_tags__", None)
    return hasattr(model, "predict") or (tags is not None and tags().estimator_type in ("classifier", "regressor"))


def splits(folds: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the rows to fit to and to test on of each fold."""
    return [(np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)) for fold in np.unique(folds)]


def make_subject(
    model: Any,
    X: Any,
    y: Any,
    groups: Any = None,
    features: pd.DataFrame | None = None,
    patches: Sequence[Pair] | None = None,
    transformer: Any = None,
    num_folds: int = 5,
    num_resamples: int = 1000,
    seed: int = 0,
    limits: Mapping[str, int] | None = None,
    space: ConceptSpace | None = None,
    remarks: Sequence[str] = (),
    ids: Sequence[str] | None = None,
    model_name: str | None = None,
) -> Subject:
    """Check the arguments of `red_team` and put them together."""
    if not (hasattr(model, "fit") and _will_predict(model)):
        from ..metrics import LinearClassifier  # here, since it imports torch

        if not (callable(model) or isinstance(model, LinearClassifier)):
            raise TypeError(
                f"{model_name or type(model).__name__} has no fit and predict: pass a scikit-learn regressor or "
                "classifier, or a classifier that as_classifier of hf_msae.bias takes"
            )
        classes = np.unique(np.asarray(y))
        if isinstance(y, pd.Series) and isinstance(y.dtype, pd.CategoricalDtype):  # which says how they are numbered
            model = FixedClassifier(model, classes, y.cat.categories.get_indexer(classes).tolist())
        else:
            model = FixedClassifier(model, classes)
    refuse_other_order(X=X, y=y, **({} if isinstance(groups, Mapping) else {"groups": groups}))
    if isinstance(groups, Mapping):
        for name, labels in groups.items():
            refuse_other_order(X=X, y=y, **{f"groups {name!r}": labels})
    refuse_masked("X", X)
    names = [str(name) for name in X.columns] if isinstance(X, pd.DataFrame) else None
    X = np.asarray(X, dtype=np.float64)
    if X.ndim != 2:
        raise ValueError(f"X must have rows and columns, got an array of shape {X.shape}")
    n = len(X)
    if n < 4 * num_folds:
        raise ValueError(f"X has {n} rows, but {num_folds} folds need at least {4 * num_folds}")
    refuse_not_finite("X", X, names)
    Y, targets, classes = read_targets(y, n, is_classifier(model))
    known, done = read_groups(groups, n)
    if patches is not None:
        if len(patches) != n:
            raise ValueError(f"there are {len(patches)} patches, but {n} rows of X")
        if groups is None:
            edges = np.array([np.mean(mask.shape) for _, mask in patches])
            known["field_size"] = np.asarray(size_classes(edges)).astype(str)
    if classes is None or getattr(model, "keeps_what_it_learned", False):
        splitter = KFold(num_folds, shuffle=True, random_state=seed).split(X)
    else:
        labels = Y.argmax(axis=1) if Y.shape[1] > 1 else Y[:, 0].astype(np.int64)
        counts = np.bincount(labels, minlength=len(classes))
        if counts.min() < 2:
            raise ValueError(
                f"class {str(classes[counts.argmin()])!r} of y has only 1 row, which cannot be both learned from and "
                "tested on: leave it out, or join it with another class"
            )
        splitter = StratifiedKFold(num_folds, shuffle=True, random_state=seed).split(X, labels)
    folds = np.empty(n, dtype=np.int64)
    for fold, (_, test) in enumerate(splitter):
        folds[test] = fold
    copies: np.ndarray | None = first_copies(map(digest, X))
    distinct, is_fixed = len(np.unique(copies)), _keeps_what_it_learned(model)
    if distinct < n:
        names_of_rows = [f"row {row}" for row in range(n)] if ids is None else ids
        done.append(remark_on_copies(copies, names_of_rows, known, is_fixed))
    if distinct == n or is_fixed:
        copies = None
    elif distinct < num_folds:
        raise ValueError(f"X has {n} rows, but only {distinct} that differ, too few for {num_folds} folds")
    folds = keep_together(folds, copies, np.random.default_rng(seed))
    if copies is not None and classes is not None:
        for train, _ in splits(folds):
            if len(lacking := np.flatnonzero(~np.isin(np.arange(len(classes)), labels[train]))):
                raise ValueError(
                    f"all rows of class {str(classes[lacking[0]])!r} of y are in one fold, where copies stay "
                    "together: leave the class out, or join it with another"
                )
    table = read_features(features, names, X.shape[1])
    return Subject(
        model,
        X,
        Y,
        targets,
        known,
        table,
        classes,
        patches,
        transformer,
        folds,
        num_resamples,
        seed,
        dict(limits or {}),
        space,
        (*remarks, *done),
        None if ids is None else tuple(ids),
        model_name,
        copies,
    )
