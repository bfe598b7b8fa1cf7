"""Classifiers of all kinds as functions from embeddings to probabilities."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from numbers import Integral
from typing import Any

import numpy as np
import torch

from .._utils.evaluating import evaluation_mode
from .._utils.tensors import as_tensor
from ..metrics import LinearClassifier

Classifier = Callable[[torch.Tensor], torch.Tensor]
_ROWS = 2**14
_ROUNDED = 0.01  # sums of probabilities in half precision are that near to 1
_FEW, _MANY, _NEAR_END = 5, 20, 0.05


def as_classifier(model: Any, positive: int | str = 1) -> Classifier:
    """Make a function from raw embeddings (B, d) to the probability of a class (B,).

    Args:
        model: A `LinearClassifier` (a probe, or zero-shot texts); a scikit-learn classifier with `predict_proba`; a
            torch module, on any device and of any floating-point type, that returns logits of shape (B, C), or of
            shape (B,) or (B, 1) for one class against the rest, as a tensor or as "logits" of a dict or an output of
            transformers; or a function that returns such probabilities, which is returned unchanged.
        positive: The class: for scikit-learn one of its labels, otherwise the name or the number of a class. A single
            logit is that of class 1; class 0 is the rest.

    Raises:
        TypeError: `model` is none of these, or a torch module returns no logits.
        ValueError: There is no such class, or a torch module returns probabilities.
    """
    if isinstance(model, LinearClassifier):
        place = _place(positive, list(model.classes))
        return lambda x: model.logits(x).softmax(dim=-1)[:, place]
    if hasattr(model, "predict_proba"):
        if not hasattr(model, "classes_"):
            raise ValueError(f"{type(model).__name__} has no classes_, the labels that it has learned: fit it first")
        place = _label_place(positive, list(model.classes_))
        return lambda x: torch.from_numpy(model.predict_proba(x.cpu().numpy())[:, place])
    if isinstance(model, torch.nn.Module):

        def probability(x: torch.Tensor) -> torch.Tensor:
            weight = next((each for each in model.parameters() if each.is_floating_point()), x)
            with evaluation_mode(model):  # no dropout, no batch statistics
                logits = _logits_in(model(x.to(weight.device, weight.dtype)))
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            _refuse_probabilities(logits.detach().reshape(len(x), -1))
            if logits.ndim == 1 or logits.shape[1] == 1:
                one = logits.reshape(-1).sigmoid()
                return torch.stack([1 - one, one], dim=1)[:, _place(positive, ["0", "1"])]
            return logits.softmax(dim=-1)[:, _place(positive, list(map(str, range(logits.shape[1]))))]

        return probability
    if callable(model):
        return model
    raise TypeError(
        f"{type(model).__name__} is not a classifier of embeddings: pass a LinearClassifier, a scikit-learn "
        "classifier with predict_proba, a torch module, or a function that returns probabilities"
    )


def _logits_in(output: Any) -> torch.Tensor:
    """Return the logits in what a module returns: a tensor, or what holds one as "logits", as in transformers."""
    named = isinstance(output, Mapping)
    logits = output.get("logits") if named else getattr(output, "logits", output)
    if not isinstance(logits, torch.Tensor):
        key = next(iter(output), "logits") if named else 0
        what = f"a {type(output).__name__}" + (f" of {', '.join(map(str, output))}" if named else "")
        raise TypeError(
            f"the torch module returns {what}, not logits (B, C): pass a function that returns the probability of the "
            f"class, such as lambda x: module.eval()(x)[{key!r}].softmax(-1)[:, 1]"
        )
    return logits


def _refuse_probabilities(logits: torch.Tensor) -> None:
    """Refuse rows (B, C) that are probabilities: their softmax or sigmoid would be far nearer to one half.

    Logits of a few rows may look like probabilities by chance. Single values are taken for such if they fill the range
    from 0 to 1 and are never beyond it, as logits of many rows would be.
    """
    rows, classes = logits.shape
    if rows < _FEW or logits.min() < 0 or logits.max() > 1:
        return
    if classes > 1:
        are = (logits.sum(dim=1) - 1).abs().max() < _ROUNDED
    else:
        are = rows >= _MANY and logits.min() < _NEAR_END and logits.max() > 1 - _NEAR_END
    if are:
        raise ValueError(
            f"the torch module returns probabilities, not logits: leave out its last "
            f"{'softmax' if classes > 1 else 'sigmoid'}, or pass a function that returns those of the class, such as "
            f"lambda x: module.eval()(x){'[:, 1]' if classes > 1 else ''}"
        )


def _label_place(positive: Any, labels: list[Any]) -> int:
    """Find a label, or one that prints alike. Taking it for a position could silently mean another class."""
    for candidates in (labels, list(map(str, labels))):
        if positive in candidates:
            return candidates.index(positive)
    raise ValueError(f"there is no class {positive!r}, only {', '.join(map(str, labels))}")


def _place(positive: int | str, classes: list[str]) -> int:
    place = classes.index(positive) if positive in classes else positive
    if not isinstance(place, Integral) or not 0 <= place < len(classes):
        raise ValueError(f"there is no class {positive!r}, only {', '.join(map(str, classes))}")
    return int(place)


def probabilities(ask: Classifier, x: torch.Tensor) -> np.ndarray:
    """Ask a classifier for the probabilities of embeddings, float64 (B,)."""
    answers = torch.cat([as_tensor(ask(part)).detach().cpu().double().reshape(-1) for part in x.split(_ROWS)])
    answers = answers.numpy()
    if len(answers) != len(x) or not ((answers >= 0) & (answers <= 1)).all():
        raise ValueError(
            f"the classifier must return one probability for each of {len(x)} embeddings, got {len(answers)} values "
            f"from {answers.min():.3g} to {answers.max():.3g}"
        )
    return answers
