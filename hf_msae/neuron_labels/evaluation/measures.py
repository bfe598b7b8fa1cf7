"""How well the presence of a concept matches a neuron's activations on real images, and where nothing can be said."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Measure:
    """A measure of activations (N, n) and presence (N, m) that gives an array (n, m); large values are good.

    Attributes:
        name: Name in tables.
        function: Takes activations, presence and, if `binarized`, alpha. Its arguments are checked, float64.
        width: Distance between the lowest and the highest value that the measure can have.
        binarized: Whether it looks only at which activations are among the top share alpha.
        published: Whether it passes the sanity tests in arXiv 2506.05774.
    """

    name: str
    function: Callable[..., np.ndarray]
    width: float = 1.0
    binarized: bool = False
    published: bool | None = None

    def __call__(self, activations: np.ndarray, presence: np.ndarray, alpha: float | None = None) -> np.ndarray:
        """Measure every neuron against every concept.

        Args:
            activations: Activations (N, n), or (N,) of one neuron.
            presence: How much of each concept is in each image, between 0 and 1 (N, m), or (N,) for one concept.
            alpha: Share of images that count as active, if `binarized`. Defaults to each concept's own share.

        Returns:
            Values (n, m). They are NaN where a neuron's activations are all the same, or where a concept is in no
            image or in all of them; `unmeasurable` says which.

        Raises:
            ValueError: Shapes differ, or a value is not finite or not between 0 and 1.
        """
        activations, presence = checked_activations(activations), checked_presence(presence)
        if len(activations) != len(presence):
            raise ValueError(f"there are activations of {len(activations)} images, but presence in {len(presence)}")
        if alpha is not None and not 0 < alpha < 1:
            raise ValueError(f"alpha must lie between 0 and 1, got {alpha}")
        extra = (alpha,) if self.binarized else ()
        with np.errstate(invalid="ignore", divide="ignore"):
            values = self.function(activations, presence, *extra)
        return np.where(unmeasurable(activations, presence) == "", values, np.nan)


def midranks(activations: np.ndarray) -> np.ndarray:
    """Rank the activations of each neuron from 0.5, with the mean of ties, float64 (N, n)."""
    from scipy import stats  # here, since it takes most of a second

    return stats.rankdata(activations, axis=0) - 0.5


def auroc(activations: np.ndarray, presence: np.ndarray) -> np.ndarray:
    """Compute the area under the ROC curve of activations as a detector of the concept.

    The probability that an image with the concept activates the neuron more than one without it; ties count half. An
    image with presence c is one with the weight c and one without with the weight 1 - c. With ranks r from 0.5 and C
    the sum of c over N images: (sum c r - C^2 / 2) / (C (N - C)).
    """
    total = presence.sum(axis=0)
    return (midranks(activations).T @ presence - total**2 / 2) / (total * (len(presence) - total))


def auprc(activations: np.ndarray, presence: np.ndarray) -> np.ndarray:
    """Compute the area under the precision-recall curve of activations as a detector of the concept.

    The average precision: the sum over thresholds k of (R_k - R_(k-1)) P_k, with P_k and R_k precision and recall of
    the activations of at least the k-th largest value. Equal activations pass a threshold together, as in
    scikit-learn. Chance level is the concept's share (`chance_auprc`). arXiv 2506.05774 calls it inverse AUPRC, since
    there the label detects the neuron's active images; both pass except where the concept is in half of all images.
    """
    values = np.empty((activations.shape[1], presence.shape[1]))
    for neuron, column in enumerate(activations.T):
        size, inside = _ties(column, presence)
        found = np.cumsum(inside, axis=0)
        values[neuron] = (inside / found[-1] * found / np.cumsum(size)[:, None]).sum(axis=0)
    return values


def chance_auprc(presence: np.ndarray) -> np.ndarray:
    """Return what `auprc` is for a neuron that has nothing to do with the concept: its share of images (m,)."""
    return checked_presence(presence).mean(axis=0)


def correlation(activations: np.ndarray, presence: np.ndarray) -> np.ndarray:
    """Compute Pearson's correlation of activations and presence."""
    activations, presence = activations - activations.mean(axis=0), presence - presence.mean(axis=0)
    return cosine(activations, presence)


def cosine(activations: np.ndarray, presence: np.ndarray) -> np.ndarray:
    """Compute the cosine of activations and presence as vectors over images.

    A constant part of the activations raises it for every frequent concept: prefer the correlation.
    """
    norms = np.linalg.norm(activations, axis=0)[:, None] * np.linalg.norm(presence, axis=0)
    return activations.T @ presence / norms


def mean_difference(activations: np.ndarray, presence: np.ndarray) -> np.ndarray:
    """Compute mean(a | concept) - mean(a | no concept), as a share of the range of the activations.

    It is the MAD of arXiv 2506.05774, which leaves out the division. CoSy's MAD divides by the standard deviation of
    the controls instead.
    """
    total, sums = presence.sum(axis=0), activations.T @ presence
    without = (activations.sum(axis=0)[:, None] - sums) / (len(presence) - total)
    return (sums / total - without) / np.ptp(activations, axis=0)[:, None]


def top_overlap(
    activations: np.ndarray, presence: np.ndarray, alpha: float | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count the images that are both (n, m), active (m,) and show the concept (m,).

    The active images of a neuron are the alpha N with the largest activations, by default as many as show the concept.
    Activations that are tied at the threshold count in part, so that their number is the same for every neuron: the
    result is what random choices among them give on average.
    """
    shown = presence.sum(axis=0)
    active = shown if alpha is None else np.full(len(shown), alpha * len(presence))
    both = np.empty((activations.shape[1], len(shown)))
    for neuron, column in enumerate(activations.T):
        size, inside = _ties(column, presence)
        before = np.cumsum(size) - size
        part = np.clip((active - before[:, None]) / size[:, None], 0, 1)  # of each group of ties, for each concept
        both[neuron] = (part * inside).sum(axis=0)
    return both, active, shown


def _ties(column: np.ndarray, presence: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Group images with the same activation, the highest first: sizes (groups,), and presence in each (groups, m)."""
    order = np.argsort(-column, kind="stable")
    first = np.flatnonzero(np.append(True, np.diff(column[order]) != 0))
    return np.diff(first, append=len(column)), np.add.reduceat(presence[order], first, axis=0)


def f1(activations: np.ndarray, presence: np.ndarray, alpha: float | None = None) -> np.ndarray:
    """Compute the F1 score 2 both / (active + shown) of `top_overlap`."""
    both, active, shown = top_overlap(activations, presence, alpha)
    return 2 * both / (active + shown)


def iou(activations: np.ndarray, presence: np.ndarray, alpha: float | None = None) -> np.ndarray:
    """Compute the intersection over union both / (active + shown - both) of `top_overlap`."""
    both, active, shown = top_overlap(activations, presence, alpha)
    return both / (active + shown - both)


def recall(activations: np.ndarray, presence: np.ndarray, alpha: float | None = None) -> np.ndarray:
    """Compute which share of the active images shows the concept: both / active of `top_overlap`.

    As in arXiv 2506.05774, the label predicts which images are active. A label that fits everything has a recall of 1.
    """
    both, active, _ = top_overlap(activations, presence, alpha)
    return both / active


def precision(activations: np.ndarray, presence: np.ndarray, alpha: float | None = None) -> np.ndarray:
    """Compute which share of the images with the concept is active: both / shown of `top_overlap`.

    As in arXiv 2506.05774, the label predicts which images are active. A label that is too narrow keeps it.
    """
    both, _, shown = top_overlap(activations, presence, alpha)
    return both / shown


MEASURES: dict[str, Measure] = {
    measure.name: measure
    for measure in (
        Measure("auprc", auprc, published=True),
        Measure("correlation", correlation, width=2, published=True),
        Measure("f1", f1, binarized=True, published=True),
        Measure("iou", iou, binarized=True, published=True),
        Measure("cosine", cosine, width=2, published=True),
        Measure("auc", auroc, published=False),
        Measure("mean_difference", mean_difference, width=2, published=False),
        Measure("recall", recall, binarized=True, published=False),
        Measure("precision", precision, binarized=True, published=False),
    )
}
"""All measures, first those that pass the sanity tests of arXiv 2506.05774, then those that fail them."""

TRUSTED = tuple(name for name, measure in MEASURES.items() if measure.published)
"""Names of the measures that pass the sanity tests of arXiv 2506.05774."""


def paired(
    measure: Measure, activations: np.ndarray, presence: np.ndarray, alpha: np.ndarray | None = None
) -> np.ndarray:
    """Measure neuron i against concept i only, (n,); `alpha` has one value for each pair."""
    alphas = [None] * activations.shape[1] if alpha is None else alpha.tolist()
    each = enumerate(alphas)
    return np.array([measure(activations[:, [i]], presence[:, [i]], share)[0, 0] for i, share in each])


def measure_labels(
    activations: np.ndarray, presence: np.ndarray, measures: Iterable[str] = MEASURES, alpha: float | None = None
) -> pd.DataFrame:
    """Measure each neuron's label by the images that show it.

    Args:
        activations: Activations of n neurons on real images (N, n).
        presence: How much of the label of neuron i each image shows, in column i, between 0 and 1 (N, n).
        measures: Names of measures.
        alpha: Share of images that count as active for f1, iou, recall and precision. Defaults to the label's own.

    Returns:
        One row per neuron: neuron, share (of images that show the label, the chance level of auprc), a column for each
        measure, and reason, which says why measures are NaN and is "" otherwise.

    Raises:
        ValueError: There is not one label for each neuron, a measure is unknown, or values are out of range.
    """
    activations, presence = checked_activations(activations), checked_presence(presence)
    if activations.shape != presence.shape:
        raise ValueError(
            f"activations have shape {activations.shape}, and the presence of labels {presence.shape}; expected one "
            "column of both for each neuron"
        )
    chosen = {name: known_measure(name) for name in measures}
    shares = None if alpha is None else np.full(activations.shape[1], alpha)
    reasons = [unmeasurable(a[:, None], c[:, None])[0, 0] for a, c in zip(activations.T, presence.T, strict=True)]
    return pd.DataFrame(
        {
            "neuron": np.arange(activations.shape[1]),
            "share": presence.mean(axis=0),
            **{name: paired(measure, activations, presence, shares) for name, measure in chosen.items()},
            "reason": reasons,
        }
    )


def known_measure(name: str) -> Measure:
    """Return the measure with this name; a ValueError has the names if there is none."""
    if name not in MEASURES:
        raise ValueError(f"there is no measure {name!r}; the measures are {', '.join(MEASURES)}")
    return MEASURES[name]


def checked_activations(activations: np.ndarray) -> np.ndarray:
    """Return activations as float64 (N, n); one neuron may be (N,)."""
    return _columns("activations", activations)


def checked_presence(presence: np.ndarray) -> np.ndarray:
    """Return presence, between 0 and 1, as float64 (N, m); one concept may be (N,)."""
    presence = _columns("presence", presence)
    outside = (presence < 0) | (presence > 1)
    if outside.any():
        raise ValueError(f"presence must lie between 0 and 1, got {presence[outside][0]}")
    return presence


def unmeasurable(activations: np.ndarray, presence: np.ndarray) -> np.ndarray:
    """Say for every neuron and concept why no measure can compare them; "" if measures can, (n, m)."""
    total = presence.sum(axis=0)
    reasons = np.full((activations.shape[1], presence.shape[1]), "", dtype=object)
    reasons[:, total == 0] = "no image shows the concept"
    reasons[:, total == len(presence)] = "every image shows the concept"
    reasons[np.ptp(activations, axis=0) == 0] = "the activation is the same in all images"
    return reasons


def _columns(name: str, values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or len(values) < 2:
        raise ValueError(f"{name} must be an array (images, columns) of at least 2 images, got shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} holds {values[~np.isfinite(values)][0]}; all values must be finite")
    return values
