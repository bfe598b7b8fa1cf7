"""Fitted models as functions, and classifiers that are tested as they are, instead of being fitted again in folds."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

from .._utils.wording import counted

if TYPE_CHECKING:
    from typing import Self

    import torch

    from .concept_space import ConceptSpace


class FixedClassifier(ClassifierMixin, BaseEstimator):
    """A classifier that is in use, as a scikit-learn classifier that keeps what it has learned.

    `red_team` fits clones of a model in folds. A clone of this one is itself, and fitting it changes nothing, so the
    data must be other data than it was trained on. What cannot be fitted, such as a `LinearClassifier` or a torch
    module, `red_team` wraps by itself.

    Args:
        model: Anything `hf_msae.bias.as_classifier` takes: a probe, zero-shot texts, a fitted scikit-learn classifier,
            a torch module, or a function to the probability of the second class.
        classes: The labels, in ascending order. Defaults to the model's own `classes_`.
        numbers: The number that each label has among the classes of a model that does not know them by name. Defaults
            to their order.

    Example:
        >>> report = red_team(FixedClassifier(probe.fit(train, labels)), embeddings, truth, msae=msae, features=table)
    """

    keeps_what_it_learned = True
    """`fit` changes nothing."""

    def __init__(self, model: Any, classes: Sequence | None = None, numbers: Sequence[int] | None = None):
        self.model = model
        self.classes = classes
        self.numbers = numbers

    @property
    def classes_(self) -> np.ndarray:
        """The labels."""
        return np.asarray(self.model.classes_ if self.classes is None else self.classes)

    def fit(self, X: Any, y: Any = None) -> Self:
        """Change nothing."""
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probabilities of the classes (n, classes)."""
        import torch

        x = torch.as_tensor(np.asarray(X), dtype=torch.float32)
        if len(self.classes_) > 2:
            return np.stack([self._ask(place, x) for place in range(len(self.classes_))], axis=1)
        second = self._ask(1, x)
        return np.stack([1 - second, second], axis=1)

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class of each row."""
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    def _ask(self, place: int, x: torch.Tensor) -> np.ndarray:
        from ..bias.probabilities import as_classifier, probabilities

        label, known = self.classes_.tolist()[place], getattr(self.model, "classes", ())
        if not hasattr(self.model, "predict_proba") and label not in known:  # scikit-learn's know theirs
            label = place if self.numbers is None else self.numbers[place]
        return probabilities(as_classifier(self.model, label), x)

    def __sklearn_clone__(self) -> Self:
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True


def as_predictions(values: Any, n: int, targets: Sequence[str], called: str) -> np.ndarray:
    """Return what a regressor predicts of n rows as float64 (n, targets); refuse any other shape.

    numpy would repeat the predictions of one target for all, and take those of (targets, n) apart in the wrong order.
    """
    found, t = np.asarray(values, dtype=np.float64), len(targets)
    if found.size != n * t or (t > 1 and found.shape != (n, t)):
        one = f". If it predicts one target, choose that (--targets {shlex.quote(targets[0])})" if t > 1 else ""
        raise ValueError(
            f"{called} was fitted to {counted(t, 'target')} ({', '.join(targets)}), but predicts an array of shape "
            f"{found.shape} for {n} rows: it must be {(n, t) if t > 1 else (n,)}{one}"
        )
    return found.reshape(n, t)


@dataclass(frozen=True)
class Fitted:
    """A model that has been fitted to some rows and columns."""

    model: Any
    columns: np.ndarray | None
    classes: np.ndarray | None  # those of all rows: a fold may lack some
    space: ConceptSpace | None = None  # of a model that was not fitted to columns of X, but to what they make up
    rows: np.ndarray | None = None  # places of the rows that it was fitted to
    targets: tuple[str, ...] = ()  # of a regressor
    called: str = "the model"

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
            return as_predictions(self.model.predict(X), len(X), self.targets, self.called)
        if not hasattr(self.model, "classes_"):
            raise ValueError(
                f"{type(self.model).__name__} has no classes_: its fit must set self.classes_ = np.unique(y)"
            )
        own = self.model.classes_
        if hasattr(self.model, "predict_proba"):
            given = np.asarray(self.model.predict_proba(X))
            if given.shape != (len(X), len(own)):
                raise ValueError(
                    f"predict_proba of {type(self.model).__name__} returns an array of shape {given.shape} for "
                    f"{len(X)} rows of {len(own)} classes: it must be {(len(X), len(own))}"
                )
        else:
            given = (np.asarray(self.model.predict(X))[:, None] == own[None]).astype(np.float64)
        found = np.zeros((len(X), len(self.classes)))
        found[:, np.searchsorted(self.classes, own)] = given
        return found[:, 1:] if len(self.classes) == 2 else found
