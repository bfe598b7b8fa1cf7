"""Two sanity tests of measures: does a measure drop if a label loses half of what it fits, or fits too much?"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from .measures import MEASURES, Measure, checked_activations, checked_presence, known_measure, paired, unmeasurable

LEAST_DROP = 0.001
"""Share of a measure's range by which it has to drop."""

LEAST_SHARE = 0.9
"""Share of neurons whose measure has to drop."""


def missing_labels(presence: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Remove a concept from each image with the probability 1/2: a label that is too narrow."""
    return presence * (rng.random(presence.shape) < 0.5)


def extra_labels(presence: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add a concept to as many random images as show it, on average: a label that is too broad.

    Each of N images gets it with the probability C / (N - C), with C the number of those that show it. For concepts
    that at least half of the images show there are not enough others, and all values are NaN.
    """
    total = presence.sum(axis=0)
    rate = total / np.maximum(len(presence) - total, 1e-12)
    extra = np.minimum(presence + (rng.random(presence.shape) < rate), 1)
    return np.where(total < len(presence) / 2, extra, np.nan)


def sanity_tests(
    activations: np.ndarray,
    labels: np.ndarray,
    measures: Iterable[str | Measure] = tuple(MEASURES),
    seed: int = 0,
    repeats: int = 1,
) -> pd.DataFrame:
    """Test which measures notice that labels became too narrow or too broad.

    The two tests of Oikarinen, Yan and Weng ("Evaluating Neuron Explanations: A Unified Framework with Sanity Checks",
    ICML 2025, arXiv 2506.05774, section 4), for neurons with good labels:

    - **Missing labels**: each image loses the label with the probability 1/2.
    - **Extra labels**: as many random images as show the label get it too.

    A measure passes if in *both* tests it drops by more than 0.001 of its range for more than 90% of the neurons. To
    pass is necessary for a good measure, not sufficient. Measures tend to fail where labels are rare, as AUC does
    below about one image in 250, so test with labels as frequent as those that are to be measured.

    Measures of binarized activations take the same active images for all three: the top alpha, with alpha the share
    of images that show the true label. Labels that at least half of the images show are left out.

    Args:
        activations: Activations of n neurons (N, n).
        labels: In which images the label of neuron i is true, in column i: bool or between 0 and 1, (N, n).
        measures: Names of measures, or measures of your own.
        seed: Random seed of the perturbations, which are the same for all measures.
        repeats: Number of perturbations, over which the measure is averaged.

    Returns:
        One row per measure: measure, value (mean over neurons), missing_drop and extra_drop (mean drops, as shares of
        the range), missing_share and extra_share (of neurons that drop by more than 0.001), passes, published (the
        verdict in the paper, None for measures of your own), num_neurons.

    Raises:
        ValueError: There is not one label for each neuron, no neuron can be tested, or a measure is unknown.
    """
    activations, labels = checked_activations(activations), checked_presence(labels)
    if activations.shape != labels.shape:
        raise ValueError(
            f"activations have shape {activations.shape}, and labels {labels.shape}; expected one column of both for "
            "each neuron"
        )
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}")
    reasons = [unmeasurable(a[:, None], c[:, None])[0, 0] for a, c in zip(activations.T, labels.T, strict=True)]
    kept = (np.array(reasons) == "") & (labels.mean(axis=0) < 0.5)
    if not kept.any():
        raise ValueError(
            f"none of {activations.shape[1]} neurons can be tested: activations must vary, and labels be true of some "
            "images, but of less than half of them"
        )
    activations, labels = activations[:, kept], labels[:, kept]
    rows = []
    for measure, value, missing, extra in _perturbed(activations, labels, measures, seed, repeats):
        drops = {"missing": (value - missing) / measure.width, "extra": (value - extra) / measure.width}
        shares = {test: (drop > LEAST_DROP).mean() for test, drop in drops.items()}
        rows.append(
            {
                "measure": measure.name,
                "value": value.mean(),
                **{f"{test}_drop": np.nanmean(drop) for test, drop in drops.items()},
                **{f"{test}_share": share for test, share in shares.items()},
                "passes": all(share > LEAST_SHARE for share in shares.values()),
                "published": measure.published,
                "num_neurons": activations.shape[1],
            }
        )
    return pd.DataFrame(rows)


def label_sanity(
    activations: np.ndarray,
    presence: np.ndarray,
    measures: Iterable[str | Measure] = tuple(MEASURES),
    seed: int = 0,
    repeats: int = 20,
) -> pd.DataFrame:
    """Apply the perturbations of `sanity_tests` to one label, to be shown beside its figures.

    A measure that does not drop would be as high if the label fitted half or twice as many images, so its value is no
    evidence for the label's breadth.

    Args:
        activations: Activations of the neuron (N,).
        presence: How much of the label each image shows, between 0 and 1 (N,).
        measures: Names of measures, or measures of your own.
        seed: Random seed of the perturbations.
        repeats: Number of perturbations, over which measures are averaged.

    Returns:
        One row per measure: measure, value, missing and extra (values of the perturbed label), missing_drop and
        extra_drop (as shares of the measure's range), drops (whether both are above 0.001), reason (why figures are
        NaN, or "").

    Raises:
        ValueError: Shapes differ, or a measure is unknown.
    """
    activations, presence = checked_activations(activations), checked_presence(presence)
    if activations.shape != presence.shape or activations.shape[1] != 1:
        raise ValueError(
            f"expected activations (N,) and presence (N,), got shapes {activations.shape} and {presence.shape}"
        )
    reason = unmeasurable(activations, presence)[0, 0]
    if not reason and presence.mean() >= 0.5:
        reason = "at least half of the images show the concept, so as many cannot be added"
    rows = []
    for measure, (value,), (missing,), (extra,) in _perturbed(activations, presence, measures, seed, repeats):
        drops = [(value - perturbed) / measure.width for perturbed in (missing, extra)]
        rows.append(
            {
                "measure": measure.name,
                "value": value,
                "missing": missing,
                "extra": extra,
                "missing_drop": drops[0],
                "extra_drop": drops[1],
                "drops": all(drop > LEAST_DROP for drop in drops),
                "reason": reason,
            }
        )
    return pd.DataFrame(rows)


def _perturbed(
    activations: np.ndarray, labels: np.ndarray, measures: Iterable[str | Measure], seed: int, repeats: int
) -> list[tuple[Measure, np.ndarray, np.ndarray, np.ndarray]]:
    """Measure true labels, and those that are too narrow and too broad, averaged over repeats, (n,) each.

    A perturbation that no measure can be taken of does not count.
    """
    chosen = [known_measure(each) if isinstance(each, str) else each for each in measures]
    share = labels.mean(axis=0)
    alpha = np.where((share > 0) & (share < 1), share, 0.5)  # labels with another share have NaN as measures anyway

    def values(measure: Measure, presence: np.ndarray) -> np.ndarray:
        possible = np.isfinite(presence).all(axis=0)
        found = np.full(len(possible), np.nan)
        found[possible] = paired(measure, activations[:, possible], presence[:, possible], alpha[possible])
        return found

    rng, sums = np.random.default_rng(seed), {}
    counts = {}
    for _ in range(repeats):
        for test, perturb in (("missing", missing_labels), ("extra", extra_labels)):
            perturbed = perturb(labels, rng)
            for place, measure in enumerate(chosen):
                found = values(measure, perturbed)
                sums[place, test] = sums.get((place, test), 0) + np.nan_to_num(found)
                counts[place, test] = counts.get((place, test), 0) + np.isfinite(found)
    with np.errstate(invalid="ignore"):
        means = {key: sums[key] / counts[key] for key in sums}
    return [
        (measure, values(measure, labels), means[place, "missing"], means[place, "extra"])
        for place, measure in enumerate(chosen)
    ]
