"""The winners' hybrid on features that are computed once: red teaming fits it a hundred times to the same fields."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, RegressorMixin, TransformerMixin, clone

from .eagle_eyes import KNN_TRANSFORMATIONS, EagleEyesFeatures
from .hybrid import SMALL_EDGE, HybridRegressor, mean_edges
from .patches import Pair, Patches

if TYPE_CHECKING:
    from typing import Self

EDGE = "mean_edge"
"""Name of the last feature: the mean edge of the field in pixels, which decides between forest and neighbors."""


class FeaturesAndEdge(TransformerMixin, BaseEstimator):
    """Turn patches into the features of a hybrid, and the mean edge of the field as the last column."""

    def __init__(self, features: BaseEstimator):
        self.features = features

    def fit(self, X: Patches | Sequence[Pair], y: object = None) -> Self:
        """Fit the transformer."""
        self.features_ = clone(self.features).fit(X)
        return self

    def transform(self, X: Patches | Sequence[Pair]) -> np.ndarray:
        """Return (n, p + 1)."""
        return np.column_stack([np.asarray(self.features_.transform(X)), mean_edges(X)])

    @property
    def feature_table(self) -> pd.DataFrame:
        """What each column is."""
        edge = pd.DataFrame([{"feature": EDGE, "transformation": "size"}])
        return pd.concat([self.features_.feature_table, edge], ignore_index=True)


class Fields:
    """The fields that a hybrid learns from: what the neighbors see of them, and features of their crops."""

    def __init__(self, hybrid: HybridRegressor, patches: Patches, transformer: FeaturesAndEdge):
        self.hybrid, self.patches, self.transformer = hybrid, patches, transformer
        kept = transformer.feature_table["transformation"].isin(KNN_TRANSFORMATIONS).to_numpy()
        self.of_neighbors, self.edge = kept, len(kept) - 1

    @cached_property
    def crops(self) -> tuple[np.ndarray, np.ndarray]:
        """Features of crops (m, p + 1) and the field that each is from; empty if no field is small."""
        edges = mean_edges(self.patches)
        larger = np.flatnonzero(edges > SMALL_EDGE)
        cropped, owners = self.hybrid.crops_of(self.patches, larger) if len(larger) < len(edges) else ([], [])
        if not cropped:
            return np.empty((0, self.edge + 1)), np.empty(0, dtype=np.int64)
        return self.transformer.transform(cropped), np.array(owners)

    def __deepcopy__(self, memo: dict) -> Fields:
        return self  # clones of a model share it: nothing in it changes

    def __repr__(self) -> str:
        return f"Fields({len(self.patches)})"


class HybridOfFeatures(RegressorMixin, BaseEstimator):
    """`HybridRegressor`, fitted to rows of features instead of patches.

    It also works on some of the columns: neighbors see those of their columns that are there, and the forest is told
    apart from them by the mean edge; without that column the forest predicts all fields.
    """

    learns_from_places = True
    """`fit` is told which rows and columns of the table it is given."""

    def __init__(self, hybrid: HybridRegressor, fields: Fields):
        self.hybrid = hybrid
        self.fields = fields

    def fit(self, X: np.ndarray, y: np.ndarray, rows: np.ndarray, columns: np.ndarray | None = None) -> Self:
        """Learn from `rows` of the fields, some of which may be there more than once, and `columns`, or all."""
        fields = self.fields
        columns = np.arange(fields.edge + 1) if columns is None else np.asarray(columns)
        (self.edge_,) = np.flatnonzero(columns == fields.edge)[:1] if fields.edge in columns else (None,)
        crops, owners = fields.crops
        first = {int(row): place for place, row in reversed(list(enumerate(rows)))}
        chosen = np.array([place for place, owner in enumerate(owners) if int(owner) in first], dtype=np.int64)
        self.model_ = clone(self.hybrid).fit_features(
            self.without_edge(X),
            np.asarray(y, dtype=float).reshape(len(X), -1),
            self.small(X),
            fields.of_neighbors[columns],
            self.without_edge(crops[chosen][:, columns]),
            [first[int(owner)] for owner in owners[chosen]],
        )
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return predictions (n, t); (n,) for one target."""
        return self.model_.predict_features(self.without_edge(X), self.small(X))

    def small(self, X: np.ndarray) -> np.ndarray:
        """Say which rows are small fields, which neighbors predict; none if the edge is not among the columns."""
        return np.zeros(len(X), dtype=bool) if self.edge_ is None else X[:, self.edge_] <= SMALL_EDGE

    @property
    def feature_importances_(self) -> np.ndarray:
        """Impurity of the forest."""
        return self.model_.forest_.feature_importances_

    def without_edge(self, X: np.ndarray) -> np.ndarray:
        """Make the edge 0: neither forest nor neighbors see it."""
        if self.edge_ is None:
            return X
        X = X.copy()
        X[:, self.edge_] = 0
        return X


def of_features(hybrid: HybridRegressor, patches: Patches) -> tuple[HybridOfFeatures, FeaturesAndEdge]:
    """Return the hybrid as a model of features, and the transformer that makes them."""
    transformer = FeaturesAndEdge(EagleEyesFeatures() if hybrid.features is None else hybrid.features).fit(patches)
    return HybridOfFeatures(clone(hybrid), Fields(hybrid, patches, transformer)), transformer


def as_fit_arguments(model: Any, rows: np.ndarray, columns: np.ndarray | None) -> dict[str, Any]:
    """Return further arguments of `fit` for a model that learns from places."""
    return {"rows": rows, "columns": columns} if getattr(model, "learns_from_places", False) else {}
