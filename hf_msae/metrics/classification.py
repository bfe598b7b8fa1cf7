"""What a linear classifier of embeddings makes of their reconstructions: probes and zero-shot labels."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ._inputs import as_matrix, as_pair, normalized_rows
from .accumulator import SumAccumulator

# What cross-validation chooses from, and what it looks at.
_GRID = (1.0, 10.0, 100.0, 1000.0, 10_000.0)
_FOLDS, _MAX_CV_ROWS = 5, 20_000


@dataclass(frozen=True)
class LinearClassifier:
    """Logits of embeddings x: (x / ||x||) @ weight.T + bias. A trained probe, or the texts of a zero-shot classifier.

    It is always made from *original* embeddings; reconstructions are then put through the same one.

    Attributes:
        weight: float64 (C, d).
        bias: float64 (C,).
        classes: names of the C classes.
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
        """A linear probe: multinomial logistic regression (scikit-learn's, L2) on standardised unit embeddings.

        Deterministic; with `regularization` it has one solution, unlike early-stopped probes of other works.

        Where classes can nearly be separated, a probe of little regularization leans on every direction a little, on
        those in which embeddings hardly vary most of all. Its accuracy does not suffer; but ask what it relies on, and
        the answer is drowned out. "cv" chooses what predicts best.

        Args:
            embeddings: original ones, of data that nothing is measured on, (N, d).
            labels: N class numbers, or names. Rows with the number -1 are left out.
            classes: names by number; by default the sorted distinct labels.
            regularization: inverse of scikit-learn's C, above 0; or "cv": of 1, 10, ..., 10,000 the one with the
                lowest log-loss in five-fold cross-validation (on at most 20,000 rows).
            max_iter: steps of its solver, which warns where they are not enough.

        Raises:
            ValueError: numbers of rows and labels differ, a label is not among `classes`, or only one class is there.
        """
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler

        if regularization != "cv" and (isinstance(regularization, str) or not regularization > 0):
            raise ValueError(f'regularization must be above 0, or "cv"; got {regularization!r}')
        x = normalized_rows(as_matrix("embeddings", embeddings)).cpu().numpy()
        numbers, classes = number_labels(labels, classes)
        if len(numbers) != len(x):
            raise ValueError(f"there are {len(x)} embeddings, but {len(numbers)} labels")
        x, numbers = x[numbers >= 0], numbers[numbers >= 0]
        present = np.unique(numbers)
        if len(present) < 2:
            raise ValueError(f"a probe needs embeddings of two classes or more, got those of {len(present)}")
        scaler = StandardScaler().fit(x)
        if regularization == "cv":
            regularization = _best_regularization(scaler.transform(x), numbers, classes, max_iter)
        regression = LogisticRegression(C=1 / regularization, max_iter=max_iter).fit(scaler.transform(x), numbers)
        weight, bias = regression.coef_, regression.intercept_
        if len(present) == 2:  # scikit-learn keeps the second class' half alone
            weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        weight = weight / scaler.scale_
        bias = bias - weight @ scaler.mean_
        if len(present) < len(classes):
            absent = [classes[number] for number in range(len(classes)) if number not in present]
            warnings.warn(f"no embedding to train the probe on is of {', '.join(absent)}", stacklevel=2)
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
        """CLIP's zero-shot classifier: logits are the scaled cosines of an embedding with a text of each class.

        Args:
            text_embeds: one for each class, of any length, (C, d).
            classes: names of the C classes.
            logit_scale: what cosines are multiplied by, exp(model.logit_scale). Changes the KL divergence only.
            logit_bias: what is added, for SigLIP models; changes nothing here, where classes exclude each other.

        Raises:
            ValueError: texts and classes differ in number, or a text embedding is zero.
        """
        texts = as_matrix("text_embeds", text_embeds)
        if len(texts) != len(classes):
            raise ValueError(f"there are {len(texts)} text embeddings, but {len(classes)} classes")
        if not texts.norm(dim=1).all():
            raise ValueError(f"the text embedding of {classes[int(texts.norm(dim=1).argmin())]!r} is zero")
        bias = torch.full((len(texts),), float(logit_bias), dtype=torch.float64, device=texts.device)
        return cls(logit_scale * normalized_rows(texts), bias, tuple(map(str, classes)))

    def logits(self, embeddings: torch.Tensor) -> torch.Tensor:
        """(N, C) in float64, for embeddings (N, d); those of a zero vector are the bias.

        Raises:
            ValueError: another width, or values that are not finite.
        """
        x = as_matrix("embeddings", embeddings)
        if x.shape[1] != self.weight.shape[1]:
            raise ValueError(f"embeddings have {x.shape[1]} columns, but the classifier takes {self.weight.shape[1]}")
        return normalized_rows(x) @ self.weight.to(x).T + self.bias.to(x)


class ClassificationAccumulator(SumAccumulator):
    """How alike a classifier treats embeddings and their reconstructions, for data that arrives batch by batch.

    Args:
        classifier: of original embeddings.
    """

    def __init__(self, classifier: LinearClassifier) -> None:
        names = ("samples", "kl", "agreement", "labelled", "correct", "correct_reconstruction")
        super().__init__(**{name: () for name in names})
        self.classifier = classifier

    def update(
        self, embeddings: torch.Tensor, reconstruction: torch.Tensor, labels: torch.Tensor | None = None
    ) -> None:
        """Count a batch.

        Args:
            embeddings: x, (B, d).
            reconstruction: x', (B, d).
            labels: true class numbers (B,); -1 where the truth is not known. None: it is not known of any.

        Raises:
            ValueError: shapes differ, a value is not finite, or a label is no class.
        """
        x, y = as_pair("embeddings", embeddings, "reconstruction", reconstruction)
        before, after = (self.classifier.logits(each).log_softmax(dim=1) for each in (x, y))
        guess, guess_after = before.argmax(dim=1), after.argmax(dim=1)
        probability = before.exp()
        # 0 log 0 = 0, also for classes the probe has never seen, whose logit is -inf on both sides
        divergence = torch.where(probability > 0, probability * (before - after), 0.0).sum()
        self.add(samples=len(x), kl=divergence, agreement=(guess == guess_after).sum())
        if labels is not None:
            labels = self._checked(labels, len(x)).to(x.device)
            self.add(
                labelled=(labels >= 0).sum(),
                correct=(guess == labels).sum(),
                correct_reconstruction=(guess_after == labels).sum(),
            )

    def _checked(self, labels: torch.Tensor, rows: int) -> torch.Tensor:
        labels = torch.as_tensor(labels)
        if labels.shape != (rows,):
            raise ValueError(f"labels must have shape ({rows},), got {tuple(labels.shape)}")
        classes = len(self.classifier.classes)
        if labels.is_floating_point() or labels.is_complex():
            raise ValueError(f"labels must be class numbers, got {labels.dtype}")
        if ((labels < -1) | (labels >= classes)).any():
            raise ValueError(f"labels must be class numbers from 0 to {classes - 1}, or -1 where unknown")
        return labels

    def compute(self) -> dict[str, float | int | None]:
        """kl: mean KL(p || p') in nats, of the probabilities from x and from x'; agreement: how often the likeliest
        class is the same; and, None where there are no labels, accuracy on the x, accuracy_reconstruction on the x',
        accuracy_drop (the first less the second); num_labelled, the samples that these three are of.
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
    """mean_i KL(softmax(logits(x_i)) || softmax(logits(x'_i))) in nats; 0 where the classifier sees no difference.

    Of a linear probe in the MSAE paper (arXiv 2502.20578). It grows with the scale of the logits, so compare it for
    one and the same classifier only.
    """
    return _one_shot("kl", embeddings, reconstruction, classifier)


def probe_agreement(embeddings: torch.Tensor, reconstruction: torch.Tensor, classifier: LinearClassifier) -> float:
    """How often the likeliest class of x and x' is the same. (What the MSAE authors' code calls accuracy.)"""
    return _one_shot("agreement", embeddings, reconstruction, classifier)


def accuracy_drop(
    embeddings: torch.Tensor, reconstruction: torch.Tensor, classifier: LinearClassifier, labels: torch.Tensor
) -> float | None:
    """Accuracy on embeddings less accuracy on reconstructions; negative where these are classified better."""
    return _one_shot("accuracy_drop", embeddings, reconstruction, classifier, labels)


def _best_regularization(x: np.ndarray, numbers: np.ndarray, classes: tuple[str, ...], max_iter: int) -> float:
    """Of `_GRID` the one whose probes predict rows that they have not seen best."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold

    if len(x) > _MAX_CV_ROWS:
        rows = np.random.default_rng(0).choice(len(x), _MAX_CV_ROWS, replace=False)
        x, numbers = x[rows], numbers[rows]
    counts = np.bincount(numbers)
    if min(counts[counts > 0]) < _FOLDS:
        rare = classes[int(np.argmin(np.where(counts > 0, counts, len(x))))]
        raise ValueError(
            f"cross-validation needs {_FOLDS} rows of every class, but there are {min(counts[counts > 0])} of {rare}: "
            "give a number as regularization"
        )
    search = GridSearchCV(
        LogisticRegression(max_iter=max_iter),
        {"C": [1 / value for value in _GRID]},
        scoring="neg_log_loss",
        cv=StratifiedKFold(_FOLDS, shuffle=True, random_state=0),
        refit=False,
    )
    return 1 / search.fit(x, numbers).best_params_["C"]


def number_labels(
    labels: Sequence | np.ndarray | torch.Tensor, classes: Sequence[str] | None = None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Class numbers (N,) and class names, for labels that are numbers (-1: unknown) or names (None: unknown).

    Raises:
        ValueError: a label that is not among `classes`, or labels that are not a flat list of numbers or names.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1:
        raise ValueError(f"labels must be a flat list, one for each row, got shape {labels.shape}")
    if np.issubdtype(labels.dtype, np.integer) or labels.dtype == bool:
        numbers = labels.astype(np.int64)
        names = tuple(map(str, range(int(numbers.max(initial=-1)) + 1) if classes is None else classes))
        if numbers.min(initial=0) < -1 or numbers.max(initial=-1) >= len(names):
            raise ValueError(
                f"labels range from {numbers.min()} to {numbers.max()}, but there are {len(names)} classes"
            )
        return numbers, names
    if np.issubdtype(labels.dtype, np.inexact):
        raise ValueError(f"labels must be class numbers or names, got {labels.dtype}")
    present = [str(label) for label in labels if label is not None]
    names = tuple(map(str, sorted(set(present)) if classes is None else classes))
    place = {name: number for number, name in enumerate(names)}
    unknown = sorted(set(present) - set(names))
    if unknown:
        some = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
        raise ValueError(f"the label {unknown[0]!r} is not among the classes: {some}")
    return np.array([-1 if label is None else place[str(label)] for label in labels], dtype=np.int64), names


def _one_shot(name, embeddings, reconstruction, classifier, labels=None) -> float | None:
    accumulator = ClassificationAccumulator(classifier)
    accumulator.update(embeddings, reconstruction, labels)
    return accumulator.compute()[name]
