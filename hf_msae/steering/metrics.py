"""Is a concept found, is it gone after removal, and is it gone for probes that are fitted anew?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from ..statistics import auroc, auroc_interval, auroc_shares, auroc_standard_error, percentiles, resampled_means
from .cross_validation import few_rows
from .direction import scores_of
from .edit import Edit
from .tasks import Task

MOST_PROBE_ROWS = 5_000
"""Training rows that a probe is fitted to, at most."""

MOST_CROSS_ROWS = 2_000
"""Test rows of the matrix of concepts, about: it has K^2 fields."""

MOST_VARIED_ROWS = 1_000
"""Test rows that the variance of directions is estimated from, at most."""

_KERNEL_FEATURES = 300
_Z = 1.959963984540054  # half the width of a 95% interval, in standard errors
_SAME = 1e-4  # of the spread before a removal: what differs by less after it is the same but for rounding

Figure = tuple[float, float, float]
"""A value, and the lower and upper end of its 95% interval."""


def concept_figures(edit: Edit, task: Task, concept: str, seed: int) -> dict[str, Figure]:
    """Measure how well an edit finds its concept in test rows, and what is left of it after removal.

    - `detection_auroc`: AUROC of the score for the concept, and `detection_auroc_se`, its standard error
      (`auroc_standard_error`), which has no interval.
    - `separability`: (m+ - m-) / sqrt(v+ + v-), the means and variances of the score with the concept and without it.
    - `removal_auroc`: AUROC of the score after removal; 0.5 if it finds nothing any more.
    - `leakage_linear`, `leakage_nonlinear`: AUROC of probes that are fitted to training rows after removal: a
      logistic regression, and one of 300 features of a Gaussian kernel (Nystroem). They see standardized coordinates,
      and 0 for those whose spread is less than 1e-4 of what it was before the removal.
    """
    X, truth = task.features[task.test], task.concepts[concept][task.test]
    removed, score = edit.remove(X), edit.score(X).astype(np.float64)
    detection = auroc_figure(truth, score)
    figures = {
        "detection_auroc": detection,
        "detection_auroc_se": (auroc_standard_error(detection[0], truth.sum(), (~truth).sum()), np.nan, np.nan),
        "separability": _separability(truth, score, seed),
        "removal_auroc": auroc_figure(truth, _without_rounding_errors(edit.score(removed), score)),
    }
    rows = task.train
    rows = rows[few_rows(task.concepts[concept][rows], MOST_PROBE_ROWS, seed)]
    left = edit.remove(task.features[rows])
    scaler = StandardScaler().fit(left)
    # Of some coordinates only rounding errors are left, which may go with the concept: they become 0.
    gone = np.sqrt(scaler.var_) < _SAME * task.features[rows].std(axis=0, dtype=np.float64)
    scaler.scale_ = np.where(gone, np.inf, scaler.scale_)
    left, removed = scaler.transform(left), scaler.transform(removed)
    has, kernel = task.concepts[concept][rows], _Kernel(left, seed)
    probe = LogisticRegression(max_iter=1000).fit(left, has)
    figures["leakage_linear"] = auroc_figure(truth, probe.decision_function(removed))
    probe = LogisticRegression(max_iter=1000).fit(kernel(left) @ kernel.normalization, has)
    score = kernel(removed) @ (kernel.normalization @ probe.coef_[0])
    figures["leakage_nonlinear"] = auroc_figure(truth, score)
    return figures


@dataclass(frozen=True)
class CrossConcepts:
    """How well each concept is found after each was removed.

    `areas` has the AUROC of the score for each pair (found, removed), with None for `removed` that before. `shares`
    has for each found concept the shares of pairs that each row with it, and each row without it, is ranked rightly in
    (`auroc_shares`): one column for each `removed`, in the order of `areas`.
    """

    areas: dict[tuple[str, str | None], float]
    shares: dict[str, tuple[np.ndarray, np.ndarray]]


def cross_concept_figures(edits: Mapping[str, Edit], task: Task) -> CrossConcepts:
    """Measure whether removing one concept leaves the others where their edits find them.

    If there are more than `MOST_CROSS_ROWS` test rows, that many are sampled, and up to 100 of each class of each
    concept.
    """
    few = [few_rows(task.concepts[concept][task.test], 200, seed=0) for concept in edits]
    some = np.random.default_rng(0).permutation(len(task.test))[:MOST_CROSS_ROWS]
    rows = task.test[np.unique(np.concatenate([some, *few]))]
    truth = {found: task.concepts[found][rows] for found in edits}
    X = task.features[rows]
    before = scores_of(list(edits.values()), X)
    shares = {found: [auroc_shares(truth[found], score)] for found, score in zip(edits, before, strict=True)}
    for eraser in edits.values():
        after = scores_of(list(edits.values()), eraser.remove(X))
        for found, score, earlier in zip(edits, after, before, strict=True):
            shares[found].append(auroc_shares(truth[found], _without_rounding_errors(score, earlier)))
    areas = {
        (found, removed): float(with_concept.mean())
        for found, of_found in shares.items()
        for removed, (with_concept, _) in zip((None, *edits), of_found, strict=True)
    }
    stacked = {
        found: tuple(np.stack(part, axis=1) for part in zip(*of_found, strict=True))
        for found, of_found in shares.items()
    }
    return CrossConcepts(areas, stacked)


def robustness_figures(concept: str, cross: CrossConcepts, seed: int = 0) -> dict[str, Figure]:
    """Summarize how a concept is still found after the others were removed.

    - `robustness`: mean over other concepts of AUROC after removal / AUROC before.
    - `robustness_worst`: the smallest of these ratios.
    - `robustness_change`: 1 - mean |AUROC before - AUROC after|.

    Intervals are of areas drawn from a normal distribution around those that were found, with their covariance between
    removals over the test rows (DeLong et al., "Comparing the areas under two or more correlated receiver operating
    characteristic curves", Biometrics 1988). There are none (NaN) for a single row with the concept or without it.
    """
    removed = [removed for found, removed in cross.areas if found == concept]
    others = [place for place, each in enumerate(removed) if each not in (concept, None)]
    if not others:
        return {}
    areas = np.array([cross.areas[concept, each] for each in removed])
    parts = cross.shares[concept]
    if min(map(len, parts)) > 1:
        covariance = sum(np.cov(part, rowvar=False) / len(part) for part in parts)
        draws = np.random.default_rng(seed).multivariate_normal(areas, covariance, size=1000, method="eigh")
    else:
        draws = np.full((1, len(areas)), np.nan)

    def figures(values: np.ndarray) -> dict[str, np.ndarray]:
        before, after = values[..., :1], values[..., others]
        with np.errstate(invalid="ignore", divide="ignore"):
            ratios = after / before
        return {
            "robustness": ratios.mean(axis=-1),
            "robustness_worst": ratios.min(axis=-1),
            "robustness_change": 1 - np.abs(before - after).mean(axis=-1),
        }

    drawn, result = figures(draws), {}
    for name, value in figures(areas).items():
        low, high = percentiles(drawn[name])
        # What is drawn around no change is a change: the mean size of changes may lie outside of all that are drawn.
        result[name] = (float(value), float(np.minimum(low, value)), float(np.maximum(high, value)))
    return result


def orthogonality_figures(edits: Mapping[str, Edit], task: Task) -> dict[str, dict[str, Figure]]:
    """Measure how different the directions of concepts are.

    An edit's direction is the mean of what `add` changes in the test rows; for edits along a direction it is that.
    With K concepts, and the cosine of the directions of c and c':

    - `orthogonality`: 1 - (1/K) sum over c' != c of |cosine|, as in the code of Erogullari et al. (2025),
    - `orthogonality_mean`: the same with 1 / (K - 1), which is 0 if all directions are the same.

    The standard error of an interval is that of the sum's linear approximation, of the variance of what `add` changes
    between test rows, at most `MOST_VARIED_ROWS` of them. An edit that changes all rows by the same has an interval of
    no width: its direction depends on training rows alone, so it varies over seeds.

    Not defined for an edit whose `add` changes nothing; its direction counts as orthogonal to all others.
    """
    if not edits:
        return {}
    X = task.features[task.test]
    rows = np.random.default_rng(0).permutation(len(X))[:MOST_VARIED_ROWS]
    means, varied = [], []
    for edit in edits.values():
        change = edit.add(X) - X
        means.append(change.mean(axis=0, dtype=np.float64))
        varied.append((change[rows] - means[-1]).astype(np.float32))
    lengths = np.maximum(np.linalg.norm(means, axis=1), 1e-30)
    units = np.stack(means) / lengths[:, None]
    cosines = units @ units.T
    np.fill_diagonal(cosines, 0)
    others = np.abs(cosines).sum(axis=1)
    others[~units.any(axis=1)] = np.nan
    # d|cos| = sign (u' - cos u) dm / |m|, for the change dm of either mean; here for each row and each pair.
    along = np.stack([each @ units.T / length for each, length in zip(varied, lengths, strict=True)])  # (K, rows, K)
    result = {}
    for place, (concept, total) in enumerate(zip(edits, others, strict=True)):
        cosine, sign = cosines[place], np.sign(cosines[place])
        own = along[place] @ sign - along[place][:, place] * np.abs(cosine).sum()
        theirs = sum(
            sign[k] * (along[k][:, place] - cosine[k] * along[k][:, k]) for k in range(len(edits)) if k != place
        )
        error = _Z * np.std(own + theirs) / np.sqrt(len(X))
        result[concept] = {
            name: tuple(float(1 - (total + end * error) / over) for end in (0, 1, -1))
            for name, over in (("orthogonality", len(edits)), ("orthogonality_mean", max(1, len(edits) - 1)))
        }
    return result


def auroc_figure(truth: np.ndarray, score: np.ndarray) -> Figure:
    """Return an AUROC with Newcombe's interval."""
    area = float(auroc(truth, score))
    low, high = auroc_interval(area, truth.sum(), (~truth).sum())
    return area, float(low), float(high)


def _without_rounding_errors(score: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Round scores to a small part of their spread before the removal: what differs by less is the same."""
    step = _SAME * float(before.std())
    return np.round(score / step) if step > 0 else score


def _separability(truth: np.ndarray, score: np.ndarray, seed: int) -> Figure:
    groups = [np.stack([score[rows], score[rows] ** 2], axis=1) for rows in (truth, ~truth)]

    def separability(with_concept: np.ndarray, without: np.ndarray) -> np.ndarray:
        variances = sum(np.maximum(means[..., 1] - means[..., 0] ** 2, 0) for means in (with_concept, without))
        with np.errstate(invalid="ignore", divide="ignore"):
            return (with_concept[..., 0] - without[..., 0]) / np.sqrt(variances)

    draws = separability(*(resampled_means(group, seed=seed + place) for place, group in enumerate(groups)))
    return (float(separability(*(group.mean(axis=0) for group in groups))), *percentiles(draws))


class _Kernel:
    """The Gaussian kernel of rows with some of them, in the rows' own precision: scikit-learn's takes twice the time.

    Its products with `normalization` are the features of scikit-learn's `Nystroem`.
    """

    def __init__(self, rows: np.ndarray, seed: int):
        found = Nystroem(n_components=min(_KERNEL_FEATURES, len(rows)), random_state=seed).fit(rows)
        self.normalization, self._basis = found.normalization_.T, found.components_

    def __call__(self, X: np.ndarray) -> np.ndarray:
        distances = X @ (-2 * self._basis.T)
        distances += (X**2).sum(axis=1)[:, None]
        distances += (self._basis**2).sum(axis=1)
        return np.exp(np.maximum(distances, 0, out=distances) / -X.shape[1])
