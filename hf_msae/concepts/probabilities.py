"""What people have as classifiers, made into functions from embeddings to probabilities."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ..metrics import LinearClassifier

Classifier = Callable[[torch.Tensor], torch.Tensor]
_ROWS = 2**14
_SURE = 1e-9


def as_classifier(model: Any, positive: int | str = 1) -> Classifier:
    """What takes raw embeddings (B, d) and returns the probability of a class (B,), from what people have.

    Args:
        model: a `LinearClassifier` (a probe, or zero-shot texts), a scikit-learn classifier with `predict_proba`, a
            torch module of logits (B, C), or (B,) and (B, 1) for one class against the rest; or a function that
            returns such probabilities, which is returned as it is.
        positive: number, or name, of the class. (Of one logit it is that class.)

    Raises:
        TypeError: it is none of these.
        ValueError: there is no such class.
    """
    if isinstance(model, LinearClassifier):
        place = _place(positive, list(model.classes))
        return lambda x: model.logits(x).softmax(dim=-1)[:, place]
    if hasattr(model, "predict_proba"):
        place = _place(positive, [str(each) for each in model.classes_])
        return lambda x: torch.from_numpy(model.predict_proba(x.cpu().numpy())[:, place])
    if isinstance(model, torch.nn.Module):

        def probability(x: torch.Tensor) -> torch.Tensor:
            logits = model(x)
            if logits.ndim == 1 or logits.shape[1] == 1:
                return logits.reshape(-1).sigmoid()
            return logits.softmax(dim=-1)[:, _place(positive, list(map(str, range(logits.shape[1]))))]

        return probability
    if callable(model):
        return model
    raise TypeError(
        f"{type(model).__name__} is no classifier of embeddings: give a LinearClassifier, a scikit-learn classifier "
        "with predict_proba, a torch module, or a function that returns probabilities"
    )


def _place(positive: int | str, classes: list[str]) -> int:
    place = classes.index(positive) if positive in classes else positive
    if not isinstance(place, int) or not 0 <= place < len(classes):
        raise ValueError(f"there is no class {positive!r}, only {', '.join(map(str, classes))}")
    return place


def probabilities(ask: Classifier, x: torch.Tensor) -> np.ndarray:
    """The answers of a classifier, checked, float64 (B,).

    Raises:
        ValueError: they are no probabilities, or not one for each embedding.
    """
    answers = torch.cat([torch.as_tensor(ask(part)).detach().cpu().double().reshape(-1) for part in x.split(_ROWS)])
    answers = answers.numpy()
    if len(answers) != len(x) or not ((answers >= 0) & (answers <= 1)).all():
        raise ValueError(
            f"the classifier has to return one probability for each of {len(x)} embeddings, got {len(answers)} values "
            f"from {answers.min():.3g} to {answers.max():.3g}"
        )
    return answers


def log_odds(probability: np.ndarray) -> np.ndarray:
    """Finite also of a classifier that is sure of itself."""
    kept = np.clip(probability, _SURE, 1 - _SURE)
    return np.log(kept) - np.log1p(-kept)
