"""The winners' hybrid of the HYPERVIEW challenge: a random forest for larger fields, neighbors for the smallest."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.ensemble import RandomForestRegressor
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GroupKFold, KFold, PredefinedSplit
from sklearn.neighbors import KNeighborsRegressor
from sklearn.preprocessing import RobustScaler
from sklearn.utils.validation import check_is_fitted

from .copies import digest, first_copies, keep_together
from .eagle_eyes import KNN_TRANSFORMATIONS, EagleEyesFeatures
from .fixed import as_predictions
from .patches import Pair, Patches, TakesPatches, size_classes

if TYPE_CHECKING:
    from typing import Self

SMALL_EDGE = 11
"""Mean edge in pixels up to which a field is small."""


class HybridRegressor(TakesPatches, RegressorMixin, BaseEstimator):
    """Predict from patches: a random forest for larger fields, distance-weighted nearest neighbors for small ones.

    The forest learns from all fields. The neighbors learn from small fields and from crops of 11x11 pixels of larger
    ones, on the winners' 11 transformations, each scaled by the median and quartiles of the small fields. Targets are
    divided by their largest value. Differences from the submission: its crops were accepted where nearly all pixels
    lie outside the field, here nearly all have to be inside, and targets of crops are not jittered.

    Args:
        features: A transformer of patches; None for `EagleEyesFeatures()`.
        n_estimators: Trees of the forest; 1000 in the submission.
        max_depth: Of the trees; None for no limit.
        n_neighbors: Neighbors; fewer if there are not as many fields and crops. 170 in the submission.
        crops: Crops of each larger field; 6 in the submission.
        crop_noise: Largest uniform noise of a crop, as a share of the patch's largest value.
        n_jobs: Threads of the forest and the neighbors.
        random_state: Seed of the forest and the crops.

    Attributes:
        features_: The fitted transformer.
        forest_: The forest.
        neighbors_: The neighbors; None if there were no small fields.
    """

    def __init__(
        self,
        features: BaseEstimator | None = None,
        *,
        n_estimators: int = 1000,
        max_depth: int | None = None,
        n_neighbors: int = 170,
        crops: int = 6,
        crop_noise: float = 0.01,
        n_jobs: int | None = None,
        random_state: int | None = None,
    ):
        self.features = features
        self.n_estimators = n_estimators
        self.max_depth = max_depth
        self.n_neighbors = n_neighbors
        self.crops = crops
        self.crop_noise = crop_noise
        self.n_jobs = n_jobs
        self.random_state = random_state

    def fit(self, X: Patches | Sequence[Pair], y: np.ndarray | pd.DataFrame) -> Self:
        """Learn from patches and targets (n, t)."""
        values = np.asarray(y, dtype=float).reshape(len(X), -1)
        self.columns_ = list(y.columns) if isinstance(y, pd.DataFrame) else None
        features = EagleEyesFeatures() if self.features is None else clone(self.features)
        table = np.asarray(features.fit_transform(X))
        self.features_ = features
        small = mean_edges(X) <= SMALL_EDGE
        cropped, owners = self.crops_of(X, np.flatnonzero(~small)) if small.any() else ([], [])
        of_crops = np.asarray(features.transform(cropped)) if cropped else table[:0]
        kept = features.feature_table["transformation"].isin(KNN_TRANSFORMATIONS).to_numpy()
        return self.fit_features(table, values, small, kept, of_crops, owners)

    def fit_features(
        self,
        table: np.ndarray,
        values: np.ndarray,
        small: np.ndarray,
        of_neighbors: np.ndarray,
        of_crops: np.ndarray,
        owners: Sequence[int],
    ) -> Self:
        """Learn from features (n, p) and targets (n, t) that were computed before.

        `small` says which fields are small, and `of_neighbors` which features the neighbors see; `of_crops` are
        features of crops, and `owners` the row that each is from.
        """
        self.scale_ = np.abs(values).max(axis=0)
        self.scale_[self.scale_ == 0] = 1
        scaled = values / self.scale_
        self.forest_ = RandomForestRegressor(
            self.n_estimators, max_depth=self.max_depth, n_jobs=self.n_jobs, random_state=self._seed()
        ).fit(table, scaled if scaled.shape[1] > 1 else scaled[:, 0])
        self.neighbors_ = None
        self.columns_of_neighbors_ = np.flatnonzero(of_neighbors)
        if small.any() and of_neighbors.any():
            known = np.concatenate([table[small], of_crops])[:, of_neighbors]
            targets = np.concatenate([scaled[small], scaled[np.asarray(owners, dtype=np.int64)]])
            self.scaler_ = RobustScaler().fit(table[small][:, of_neighbors])
            self.neighbors_ = KNeighborsRegressor(
                min(self.n_neighbors, len(known)), weights="distance", n_jobs=self.n_jobs
            ).fit(self.scaler_.transform(known), targets)
        return self

    def predict(self, X: Patches | Sequence[Pair]) -> np.ndarray:
        """Return predictions (n, t); (n,) for one target."""
        check_is_fitted(self)
        return self.predict_features(np.asarray(self.features_.transform(X)), mean_edges(X) <= SMALL_EDGE)

    def predict_features(self, table: np.ndarray, small: np.ndarray) -> np.ndarray:
        """Return predictions from features (n, p) and which fields are small (n,)."""
        found = self.forest_.predict(table).reshape(len(table), -1)
        if self.neighbors_ is not None and small.any():
            known = self.scaler_.transform(table[small][:, self.columns_of_neighbors_])
            found[small] = self.neighbors_.predict(known).reshape(small.sum(), -1)
        found = found * self.scale_
        return found[:, 0] if found.shape[1] == 1 else found

    def _seed(self) -> int:
        return np.random.RandomState(self.random_state).randint(2**31)

    def crops_of(self, X: Patches | Sequence[Pair], rows: np.ndarray) -> tuple[list[Pair], list[int]]:
        """Return crops of larger fields that have at most one pixel outside, and the rows that they are from."""
        rng = np.random.default_rng(self._seed())
        found, owners = [], []
        for row in rows if self.crops else ():
            data, mask = X[int(row)]
            if min(mask.shape) < SMALL_EDGE:
                continue
            outside = sliding_window_view(mask, (SMALL_EDGE, SMALL_EDGE)).sum(axis=(2, 3))
            places = np.argwhere(outside <= 1)
            for top, left in places[rng.integers(len(places), size=self.crops)] if len(places) else ():
                box = (slice(top, top + SMALL_EDGE), slice(left, left + SMALL_EDGE))
                cube = data[(slice(None), *box)]
                noise = rng.uniform(-self.crop_noise, self.crop_noise, cube.shape)
                found.append((cube + noise * data[:, ~mask].max(), mask[box]))
                owners.append(int(row))
        return found, owners


def mean_edges(X: Patches | Sequence[Pair]) -> np.ndarray:
    """Return the mean of height and width of each patch in pixels."""
    if isinstance(X, Patches):
        return X.edges
    return np.array([np.mean(np.shape(X[row][0])[1:]) for row in range(len(X))])


def hyperview_score(
    y_true: np.ndarray | pd.DataFrame, y_pred: np.ndarray | pd.DataFrame, y_train: np.ndarray | pd.DataFrame
) -> float:
    """Return the score of the HYPERVIEW challenge: the mean over targets of MSE / MSE of the training mean.

    Lower is better, 1 is as good as predicting the mean.

    Args:
        y_true: Measured targets (n, t).
        y_pred: Predicted ones (n, t).
        y_train: Targets of the training data (m, t), whose mean is the baseline.

    Raises:
        ValueError: Shapes differ, or a target equals the training mean everywhere.
    """
    return float(np.mean(_ratios(y_true, y_pred, y_train)))


def score_by_size(y_true: pd.DataFrame, y_pred: np.ndarray, baseline: np.ndarray, edges: np.ndarray) -> pd.DataFrame:
    """Return the challenge's score by target and class of field sizes, as in the winners' report.

    Args:
        y_true: Measured targets (n, t).
        y_pred: Predicted ones (n, t).
        baseline: What the training mean predicts (n, t).
        edges: Mean edge of each field in pixels.

    Returns:
        One row per class that has fields, and "all": fields, each target, and score, the mean over targets.
    """
    values, errors = y_true.to_numpy(dtype=float), np.asarray(y_pred, dtype=float).reshape(y_true.shape)
    model, mean = (values - errors) ** 2, (values - np.asarray(baseline).reshape(y_true.shape)) ** 2
    classes = size_classes(edges)
    rows = []
    for name in [*classes.categories, "all"]:
        chosen = np.ones(len(edges), dtype=bool) if name == "all" else np.asarray(classes == name)
        if chosen.any():
            ratios = model[chosen].mean(axis=0) / mean[chosen].mean(axis=0)
            of_targets = dict(zip(y_true.columns, ratios, strict=True))
            rows.append({"edge": name, "fields": int(chosen.sum()), **of_targets, "score": float(ratios.mean())})
    return pd.DataFrame(rows)


def predict_out_of_fold(
    model: BaseEstimator,
    patches: Patches,
    *,
    folds: int = 5,
    groups: np.ndarray | None = None,
    random_state: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Predict every field by a model that did not see it, nor its group.

    Args:
        model: A regressor of patches, such as `HybridRegressor`; it is cloned.
        patches: Patches with targets.
        folds: Number of folds.
        groups: One label per patch (n,), such as `patches.groups["farm"]`: a group is never split. None for random
            folds, which keep patches of the same mean spectrum together: they are copies.
        random_state: Seed of the folds.

    Returns:
        Predictions (n, t), and what the mean of each training fold predicts (n, t): pass both to `score_by_size`.

    Raises:
        ValueError: The patches have no targets, there are fewer groups than folds, or the model is trained already and
            keeps what it learned, such as a `VisionRegressor`.
    """
    with suppress(NotFittedError):
        check_is_fitted(clone(model))
        raise ValueError(
            f"{type(model).__name__} is not fitted again, so it may have seen every field: predict fields that it was "
            "not trained on, and pass these to score_by_size"
        )
    if patches.targets is None:
        raise ValueError("the patches have no targets")
    values = patches.targets.to_numpy(dtype=float)
    if groups is None:
        numbers = np.empty(len(values), dtype=np.int64)
        for fold, (_, test) in enumerate(KFold(folds, shuffle=True, random_state=random_state).split(values)):
            numbers[test] = fold
        first = first_copies(map(digest, patches.mean_spectra))
        splits = PredefinedSplit(keep_together(numbers, first, np.random.default_rng(random_state))).split()
    else:
        splits = GroupKFold(folds).split(values, groups=groups)
    predictions, baseline = np.empty_like(values), np.empty_like(values)
    for train, test in splits:
        fitted = clone(model)
        fitted.fit(patches[train], patches.targets.iloc[train])  # which need not return the model
        found = fitted.predict(patches[test])
        predictions[test] = as_predictions(found, len(test), list(patches.targets), type(model).__name__)
        baseline[test] = values[train].mean(axis=0)
    return predictions, baseline


def _ratios(y_true: object, y_pred: object, y_train: object) -> np.ndarray:
    true, predicted, train = (np.asarray(each, dtype=float) for each in (y_true, y_pred, y_train))
    true, predicted, train = (each[:, None] if each.ndim == 1 else each for each in (true, predicted, train))
    if true.shape != predicted.shape or train.shape[1:] != true.shape[1:]:
        raise ValueError(f"shapes differ: y_true {true.shape}, y_pred {predicted.shape}, y_train {train.shape}")
    baseline = ((true - train.mean(axis=0)) ** 2).mean(axis=0)
    if not baseline.all():
        place = int(np.flatnonzero(baseline == 0)[0])
        name = next((each.columns[place] for each in (y_true, y_train) if hasattr(each, "columns")), place)
        raise ValueError(f"target {name} equals the training mean everywhere")
    return ((true - predicted) ** 2).mean(axis=0) / baseline
