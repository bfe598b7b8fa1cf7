"""Does a linear classifier of embeddings see the same in their reconstructions? Probes and zero-shot labels."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from .._utils.checks import refuse_masked, refuse_other_order
from .._utils.tensors import as_tensor
from .accumulator import SumAccumulator, as_matrix, as_pair, normalized_rows

# Cross-validation: candidates, number of folds, and largest number of rows.
_GRID = (1.0, 10.0, 100.0, 1000.0, 10_000.0)
_FOLDS, _MAX_CV_ROWS = 5, 20_000


@dataclass(frozen=True)
class LinearClassifier:
    """A probe or zero-shot classifier with logits (x / ||x||) @ weight.T + bias for embeddings x.

    It is always made from *original* embeddings; reconstructions are then classified by the same one.

    Attributes:
        weight: float64 (C, d).
        bias: float64 (C,).
        classes: Names of the C classes.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    classes: tuple[str, ...]

    @classmethod
    def fit(
        cls,
        embeddings: torch.Tensor | np.ndarray,
        labels: Sequence | np.ndarray | torch.Tensor,
        classes: Sequence[str] | None = None,
        regularization: float | str = 1.0,
        max_iter: int = 1000,
    ) -> LinearClassifier:
        """Train a linear probe: scikit-learn's multinomial logistic regression on standardized unit embeddings.

        The L2 penalty makes the solution unique. If classes are almost separable, a weakly regularized probe uses
        every direction a little, most of all those in which embeddings hardly vary, which obscures what it relies on;
        "cv" chooses the regularization that predicts best.

        Args:
            embeddings: Original embeddings of data that nothing is measured on, (N, d).
            labels: N class numbers or names. Rows with the number -1 are left out.
            classes: Names by number. Defaults to the sorted distinct labels.
            regularization: Inverse of scikit-learn's C, above 0; or "cv" for the one of 1, 10, ..., 10,000 with the
                lowest log-loss in five-fold cross-validation (on at most 20,000 rows).
            max_iter: Maximum number of steps of the solver, which warns if it does not converge.

        Raises:
            ValueError: The numbers of rows and labels differ, pandas objects have the same rows in another order, a
                label is not among `classes`, or there are fewer than two classes.
        """
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler

        if regularization != "cv" and (isinstance(regularization, str) or not regularization > 0):
            raise ValueError(f'regularization must be above 0, or "cv"; got {regularization!r}')
        refuse_other_order(embeddings=embeddings, labels=labels)
        x = normalized_rows(as_matrix("embeddings", embeddings)).cpu().numpy()
        numbers, classes = number_labels(labels, classes)
        if len(numbers) != len(x):
            raise ValueError(f"there are {len(x)} embeddings, but {len(numbers)} labels")
        x, numbers = x[numbers >= 0], numbers[numbers >= 0]
        present = np.unique(numbers)
        if len(present) < 2:
            raise ValueError(f"a probe needs embeddings of at least two classes, got {len(present)}")
        scaler = StandardScaler(copy=False)  # of a million rows, each copy takes gigabytes
        x = scaler.fit_transform(x)
        if regularization == "cv":
            regularization = _best_regularization(x, numbers, classes, max_iter)
        regression = LogisticRegression(C=1 / regularization, max_iter=max_iter).fit(x, numbers)
        weight, bias = regression.coef_, regression.intercept_
        if len(present) == 2:  # scikit-learn stores only the second class
            weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        weight = weight / scaler.scale_
        bias = bias - weight @ scaler.mean_
        if len(present) < len(classes):
            absent = [classes[number] for number in range(len(classes)) if number not in present]
            warnings.warn(f"the probe has no training embeddings of {', '.join(absent)}", stacklevel=2)
        full_weight, full_bias = np.zeros((len(classes), x.shape[1])), np.full(len(classes), -np.inf)
        full_weight[present], full_bias[present] = weight, bias
        return cls(torch.from_numpy(full_weight), torch.from_numpy(full_bias), classes)

    @classmethod
    def zero_shot(
        cls,
        text_embeds: torch.Tensor | np.ndarray,
        classes: Sequence[str],
        logit_scale: float = 100.0,
        logit_bias: float = 0.0,
    ) -> LinearClassifier:
        """Make CLIP's zero-shot classifier: logits are scaled cosines of an embedding and a text of each class.

        Args:
            text_embeds: One text embedding per class, of any length, (C, d).
            classes: Names of the C classes.
            logit_scale: Factor of the cosines, exp(model.logit_scale). It affects only the KL divergence.
            logit_bias: Constant that SigLIP models add, without effect where classes exclude each other.

        Raises:
            ValueError: The numbers of texts and classes differ, or a text embedding is zero.
        """
        check_classes(classes)
        texts = as_matrix("text_embeds", text_embeds)
        norms = texts.norm(dim=1)
        if len(texts) != len(classes):
            raise ValueError(f"there are {len(texts)} text embeddings, but {len(classes)} classes")
        if not norms.all():
            raise ValueError(f"the text embedding of {classes[int(norms.argmin())]!r} is zero")
        bias = torch.full((len(texts),), float(logit_bias), dtype=torch.float64, device=texts.device)
        return cls(logit_scale * normalized_rows(texts), bias, tuple(map(str, classes)))

    def logits(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Return the logits (N, C) in float64 of embeddings (N, d); a zero vector gets the bias.

        Raises:
            ValueError: The width differs from the classifier's, or a value is not finite.
        """
        x = as_matrix("embeddings", embeddings)
        if x.shape[1] != self.weight.shape[1]:
            raise ValueError(f"embeddings have {x.shape[1]} columns, but the classifier takes {self.weight.shape[1]}")
        return normalized_rows(x) @ self.weight.to(x).T + self.bias.to(x)


class ClassificationAccumulator(SumAccumulator):
    """Agreement of a classifier on embeddings and their reconstructions, for data that arrives batch by batch.

    Args:
        classifier: A classifier of original embeddings.
    """

    def __init__(self, classifier: LinearClassifier) -> None:
        names = ("samples", "kl", "agreement", "labelled", "correct", "correct_reconstruction")
        super().__init__(**{name: () for name in names})
        self.classifier = classifier

    def update(
        self, embeddings: torch.Tensor, reconstruction: torch.Tensor, labels: torch.Tensor | None = None
    ) -> None:
        """Add a batch of x (B, d), x' (B, d) and true class numbers (B,), -1 or None where unknown.

        Raises:
            ValueError: The shapes differ, a value is not finite, or a label is not a class number.
        """
        x, y = as_pair("embeddings", embeddings, "reconstruction", reconstruction)
        before, after = (self.classifier.logits(each).log_softmax(dim=1) for each in (x, y))
        guess, guess_after = before.argmax(dim=1), after.argmax(dim=1)
        probability = before.exp()
        # 0 log 0 = 0, also for classes the probe has never seen, whose logits are -inf on both sides
        divergence = torch.where(probability > 0, probability * (before - after), 0.0).sum()
        self.add(samples=len(x), kl=divergence, agreement=(guess == guess_after).sum())
        if labels is not None:
            labels = as_tensor(labels).to(x.device)
            classes = len(self.classifier.classes)
            if labels.shape != (len(x),) or labels.is_floating_point():
                raise ValueError(f"labels must be {len(x)} class numbers, got {labels.dtype} {tuple(labels.shape)}")
            if ((labels < -1) | (labels >= classes)).any():
                raise ValueError(f"labels must be class numbers from 0 to {classes - 1}, or -1 where unknown")
            self.add(
                labelled=(labels >= 0).sum(),
                correct=(guess == labels).sum(),
                correct_reconstruction=(guess_after == labels).sum(),
            )

    def compute(self) -> dict[str, float | int | None]:
        """Return the metrics of all batches so far.

        Returns:
            kl: Mean KL(p || p') in nats of the class probabilities given x and x'.
            agreement: Fraction of samples whose most likely class is the same.
            accuracy, accuracy_reconstruction, accuracy_drop: Accuracy on x, on x', and their difference, over the
                num_labelled samples with a label; None without labels.
        """
        self.require_samples()
        samples, labelled = self.value("samples"), self.value("labelled")
        accuracy = self.value("correct") / labelled if labelled else None
        after = self.value("correct_reconstruction") / labelled if labelled else None
        return {
            "kl": max(0.0, self.value("kl") / samples),
            "agreement": self.value("agreement") / samples,
            "accuracy": accuracy,
            "accuracy_reconstruction": after,
            "accuracy_drop": accuracy - after if labelled else None,
            "num_labelled": int(labelled),
        }


def probe_kl(embeddings: torch.Tensor, reconstruction: torch.Tensor, classifier: LinearClassifier) -> float:
    """Mean KL(softmax(logits(x_i)) || softmax(logits(x'_i))) in nats; 0 if the classifier sees no difference.

    The MSAE paper (arXiv 2502.20578) reports it for a linear probe. It grows with the scale of the logits, so compare
    it only for the same classifier.
    """
    return _one_shot("kl", embeddings, reconstruction, classifier)


def probe_agreement(embeddings: torch.Tensor, reconstruction: torch.Tensor, classifier: LinearClassifier) -> float:
    """Fraction of samples whose most likely class is the same for x and x' (the MSAE authors' `accuracy`)."""
    return _one_shot("agreement", embeddings, reconstruction, classifier)


def accuracy_drop(
    embeddings: torch.Tensor, reconstruction: torch.Tensor, classifier: LinearClassifier, labels: torch.Tensor
) -> float | None:
    """Accuracy on embeddings minus accuracy on reconstructions; negative if these are classified better."""
    return _one_shot("accuracy_drop", embeddings, reconstruction, classifier, labels)


def _best_regularization(x: np.ndarray, numbers: np.ndarray, classes: tuple[str, ...], max_iter: int) -> float:
    """The value in `_GRID` whose probes predict held-out rows best."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold

    if len(x) > _MAX_CV_ROWS:
        rows = np.random.default_rng(0).choice(len(x), _MAX_CV_ROWS, replace=False)
        x, numbers = x[rows], numbers[rows]
    present, counts = np.unique(numbers, return_counts=True)
    if counts.min() < _FOLDS:
        raise ValueError(
            f"cross-validation needs {_FOLDS} rows of every class, but there {'is' if counts.min() == 1 else 'are'} "
            f"{counts.min()} of {classes[present[counts.argmin()]]}: leave this class out, or set the regularization "
            "to a number (for a command, --regularization 10)"
        )
    search = GridSearchCV(
        LogisticRegression(max_iter=max_iter),
        {"C": [1 / value for value in _GRID]},
        scoring="neg_log_loss",
        cv=StratifiedKFold(_FOLDS, shuffle=True, random_state=0),
        refit=False,
    )
    return 1 / search.fit(x, numbers).best_params_["C"]


def check_classes(classes: Sequence[str] | None) -> None:
    """Raise ValueError for names of classes that have no order, or of which two are the same: numbers choose names."""
    if isinstance(classes, Mapping | Set):
        raise ValueError(
            f"classes must be a list of names, the first that of class 0; got the {type(classes).__name__} {classes!r}"
        )
    names = [] if classes is None else list(map(str, classes))
    if twice := [name for place, name in enumerate(names) if name in names[:place]]:
        raise ValueError(f"two classes are called {twice[0]!r}")


def number_labels(
    labels: Sequence | np.ndarray | torch.Tensor, classes: Sequence[str] | None = None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return class numbers (N,) and class names of labels that are numbers (-1: unknown) or names.

    A label that is None, NaN or pd.NA, as pandas writes missing ones, is unknown.
    """
    refuse_masked("labels", labels)
    check_classes(classes)
    given, labels = labels, np.asarray(labels)
    is_text = labels.dtype.kind == "U" and not hasattr(given, "dtype")  # a NaN in a list has become the name "nan"
    if is_text or pd.api.types.is_extension_array_dtype(given):  # and NA has made fractions of pandas' whole numbers
        labels = np.asarray(given, dtype=object)
    if labels.ndim != 1 or labels.dtype.kind in "fc":
        raise ValueError(f"labels must be a flat list of class numbers or names, got {labels.dtype} {labels.shape}")
    if labels.dtype == object and pd.api.types.infer_dtype(labels) in ("boolean", "integer"):  # pandas' types with NA
        labels = np.where(pd.isna(labels), -1, labels).astype(np.int64)
    if labels.dtype.kind in "iub":
        numbers = labels.astype(np.int64)
        names = tuple(map(str, range(int(numbers.max(initial=-1)) + 1) if classes is None else classes))
        if numbers.min(initial=0) < -1 or numbers.max(initial=-1) >= len(names):
            raise ValueError(f"labels are {numbers.min()} to {numbers.max()}, but there are {len(names)} classes")
        return numbers, names
    known = pd.notna(labels)
    present = {str(label) for label in labels[known]}
    names = tuple(map(str, sorted(present) if classes is None else classes))
    if unknown := sorted(present - set(names)):
        some = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
        raise ValueError(f"the label {unknown[0]!r} is not among the classes: {some}")
    place = {name: number for number, name in enumerate(names)}
    numbers = np.full(len(labels), -1)
    numbers[known] = [place[str(label)] for label in labels[known]]
    return numbers, names


def _one_shot(name, embeddings, reconstruction, classifier, labels=None) -> float | None:
    accumulator = ClassificationAccumulator(classifier)
    accumulator.update(embeddings, reconstruction, labels)
    return accumulator.compute()[name]
