"""How few latents does it take to recognize a concept? Probes on the k most discriminative latents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm.auto import tqdm

from .._utils.tensors import as_tensor

if TYPE_CHECKING:
    import pandas as pd

_FIGURES = ("accuracy", "balanced_accuracy", "f1", "auroc")


@dataclass(frozen=True)
class SparseProbing:
    """Result of `sparse_probing`.

    Attributes:
        records: For each concept and k: concept, k, accuracy, balanced_accuracy, f1 and auroc on the test part, the
            chosen latents (most discriminative first), and prevalence, the concept's share of the test part.
    """

    records: list[dict[str, Any]]

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per concept and k."""
        import pandas as pd

        return pd.DataFrame(self.records)

    def summary(self) -> pd.DataFrame:
        """Return the mean of each figure over concepts, one row per k."""
        return self.to_pandas().groupby("k")[list(_FIGURES)].mean()

    def __str__(self) -> str:
        concepts = len({record["concept"] for record in self.records})
        means = f"\nmeans over {concepts} concepts" if concepts > 1 else ""
        return self.summary().to_string(float_format="{:.4f}".format) + means


def sparse_probing(
    train_latents: torch.Tensor | np.ndarray,
    train_labels: np.ndarray | torch.Tensor,
    test_latents: torch.Tensor | np.ndarray,
    test_labels: np.ndarray | torch.Tensor,
    ks: Sequence[int] = (1, 2, 5, 10, 20),
    concepts: Sequence[str] | None = None,
    progress: bool = True,
) -> SparseProbing:
    """Train a logistic regression per concept on the k latents whose mean activations differ most with the concept.

    As in SAEBench (arXiv 2503.09532, after Gurnee et al., arXiv 2305.01610), the k latents are those with the largest
    |mean(z_j | concept) - mean(z_j | no concept)|. Both the choice of latents and the regression use only the training
    part: with many latents to choose from, some would score high on the test part by chance. Latents are standardized
    by their training spread, and classes are weighted to balance; the regression is scikit-learn's with its default
    penalty. Pass embeddings instead of codes for the baseline.

    Args:
        train_latents: Codes (N, n).
        train_labels: Whether each concept is true, booleans (N, C) or (N,).
        test_latents: Codes of other samples, (M, n).
        test_labels: Booleans (M, C) or (M,).
        ks: Numbers of latents to probe with; those above n are left out.
        concepts: Names of the C concepts. Defaults to their numbers.
        progress: Show a progress bar.

    Returns:
        A `SparseProbing`. Concepts that are never or always true in one of the parts are left out.

    Raises:
        ValueError: The shapes do not fit, both parts share memory, or no concept can be probed.
    """
    train, truth = _part("training", train_latents, train_labels)
    test, test_truth = _part("test", test_latents, test_labels)
    if np.shares_memory(train, test):
        raise ValueError("the training and test parts share memory: measure on samples that are not used for training")
    if train.shape[1] != test.shape[1] or truth.shape[1] != test_truth.shape[1]:
        raise ValueError(
            f"the training and test parts differ in width: {train.shape[1]} and {test.shape[1]} latents, "
            f"{truth.shape[1]} and {test_truth.shape[1]} concepts"
        )
    names = tuple(map(str, range(truth.shape[1]) if concepts is None else concepts))
    if len(names) != truth.shape[1] or len(set(names)) < len(names):
        raise ValueError(f"there are {len(set(names))} different names for {truth.shape[1]} concepts")
    ks = sorted({int(k) for k in ks if k <= train.shape[1]})
    if not ks or ks[0] < 1:
        raise ValueError(f"ks must hold numbers from 1 to {train.shape[1]}, the number of latents")
    usable = [c for c in range(len(names)) if len(set(truth[:, c])) == len(set(test_truth[:, c])) == 2]
    if not usable:
        raise ValueError("no concept is true of some samples and false of others in both parts")
    records = []
    for c in tqdm(usable, desc="probing", unit="concept", disable=not progress):
        records += _probe_concept(train, truth[:, c], test, test_truth[:, c], ks, names[c])
    return SparseProbing(records)


def _probe_concept(train, truth, test, test_truth, ks: list[int], name: str) -> list[dict[str, Any]]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, roc_auc_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    means = [train[rows].mean(axis=0, dtype=np.float64) for rows in (truth, ~truth)]
    order = np.argsort(-np.abs(means[0] - means[1]), kind="stable")[: ks[-1]]
    records = []
    for k in ks:
        chosen = order[:k]
        probe = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))
        probe.fit(train[:, chosen].astype(np.float64), truth)
        score = probe.decision_function(test[:, chosen].astype(np.float64))
        guess = score > 0
        records.append(
            {
                "concept": name,
                "k": k,
                "accuracy": float(accuracy_score(test_truth, guess)),
                "balanced_accuracy": float(balanced_accuracy_score(test_truth, guess)),
                "f1": float(f1_score(test_truth, guess, zero_division=0.0)),
                "auroc": float(roc_auc_score(test_truth, score)),
                "prevalence": float(test_truth.mean()),
                "latents": chosen.tolist(),
            }
        )
    return records


def _part(what: str, latents: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """Codes (N, n), in float32 or wider, and truth (N, C) of the training or test part."""
    latents = as_tensor(latents).detach().cpu()
    codes = latents.to(torch.promote_types(latents.dtype, torch.float32)).numpy()
    if codes.ndim != 2 or not codes.size or not np.isfinite(codes).all():
        raise ValueError(f"{what} latents must be a matrix without NaN or infinity, got shape {codes.shape}")
    truth = np.asarray(labels)
    truth = truth[:, None] if truth.ndim == 1 else truth
    if truth.ndim != 2 or len(truth) != len(codes) or not np.isin(truth, (0, 1)).all():
        raise ValueError(f"{what} labels must be booleans ({len(codes)}, concepts), got {truth.dtype} {truth.shape}")
    return codes, truth.astype(bool)
