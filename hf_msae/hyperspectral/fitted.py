"""A fitted model as a function: from columns of X to values, or to probabilities of classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .fixed import FixedClassifier

if TYPE_CHECKING:
    from .concept_space import ConceptSpace


@dataclass(frozen=True)
class Fitted:
    """A model that has been fitted to some rows and columns."""

    model: Any
    columns: np.ndarray | None
    classes: np.ndarray | None  # those of all rows: a fold may lack some
    space: ConceptSpace | None = None  # of a model that was not fitted to columns of X, but to what they make up
    rows: np.ndarray | None = None  # places of the rows that it was fitted to

    def __call__(self, X: np.ndarray) -> np.ndarray:
        """Predict (n, targets): values, or probabilities of classes."""
        X = X if self.columns is None else X[:, self.columns]
        return self.predict(X if self.space is None else self.space.inputs(X))

    def log_odds(self, X: np.ndarray) -> np.ndarray | None:
        """Return what a classifier makes probabilities of (n, targets), None if it does not say."""
        model = self.model.model if isinstance(self.model, FixedClassifier) else self.model
        if self.classes is None or not hasattr(model, "decision_function") or len(model.classes_) != len(self.classes):
            return None
        X = X if self.columns is None else X[:, self.columns]
        return model.decision_function(X if self.space is None else self.space.inputs(X)).reshape(len(X), -1)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Predict from what the model is given."""
        if self.classes is None:
            return np.asarray(self.model.predict(X), dtype=np.float64).reshape(len(X), -1)
        own = self.model.classes_
        if hasattr(self.model, "predict_proba"):
            given = self.model.predict_proba(X)
        else:
            given = (np.asarray(self.model.predict(X))[:, None] == own[None]).astype(np.float64)
        found = np.zeros((len(X), len(self.classes)))
        found[:, np.searchsorted(self.classes, own)] = given
        return found[:, 1:] if len(self.classes) == 2 else found
