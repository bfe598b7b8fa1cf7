"""Confirm a label by pairs of images that differ in it: does the activation drop when the concept is taken away?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...statistics import Result, bootstrap_interval, wilson_interval
from ...statistics.intervals import check_share

_EXACT_PAIRS = 13  # all 2^13 signs are tried up to here
_MOST_FLIPS = 9_999


@dataclass(frozen=True)
class PairConfirmation(Result):
    """What taking a concept out of images does to a neuron.

    Attributes:
        drop: Mean drop of the activation.
        low: Lower end of its confidence interval.
        high: Upper end.
        share_of_range: The drop as a share of the range of the neuron's activations on other images.
        share: Share of pairs whose activation drops; it stays the same or rises in the others.
        share_low: Lower end of its confidence interval.
        share_high: Upper end.
        p_value: One-sided p-value of the sign-flip test.
        num_pairs: Number of pairs.
    """

    drop: float
    low: float
    high: float
    share_of_range: float
    share: float
    share_low: float
    share_high: float
    p_value: float
    num_pairs: int

    def verdict(self) -> str:
        """Say what was found."""
        return (
            f"without the concept, the activation drops in {self.share:.0%} of {self.num_pairs:,} pairs, on average "
            f"by {self.drop:.3g} [{self.low:.3g}, {self.high:.3g}], {self.share_of_range:.0%} of its range "
            f"(p = {self.p_value:.2g})"
        )


def confirm_by_pairs(
    with_concept: np.ndarray,
    without_concept: np.ndarray,
    reference: np.ndarray | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> PairConfirmation:
    """Compare activations on images with a concept and on the same images without it.

    Unlike scores of different images, pairs hold everything else fixed: a neuron for beaches that is labeled "sea" has
    a high AUC for "sea", but hardly drops when the sea is replaced. (The generative ablation of LINE, arXiv
    2604.08039. There, an image editor takes the concept out and sometimes fails; in scenes it is exact.)

    If the concept does not matter, each drop is as likely to be a rise. The p-value is the share of all assignments of
    signs whose mean is at least the one found: all of them for up to 13 pairs, or else of 9,999 random ones and the
    one found (Fisher's randomization test). The interval of the mean is the percentile bootstrap, and that of the
    share is Wilson's.

    Args:
        with_concept: Activations on images with the concept (n,).
        without_concept: Activations on the same images without it (n,), in the same order.
        reference: Activations on other images, whose largest minus smallest value is the range. Defaults to those of
            the pairs.
        level: Confidence level.
        seed: Random seed of bootstrap and signs.

    Raises:
        ValueError: There are fewer than 2 pairs, they do not match, or a value is not finite.
    """
    check_share("level", level)
    there, gone = (np.asarray(each, dtype=np.float64) for each in (with_concept, without_concept))
    if there.shape != gone.shape or there.ndim != 1 or len(there) < 2:
        raise ValueError(f"expected at least 2 pairs of activations (n,), got shapes {there.shape} and {gone.shape}")
    everything = np.concatenate([there, gone] if reference is None else [np.ravel(reference).astype(np.float64)])
    for values in (there, gone, everything):
        if not np.isfinite(values).all():
            raise ValueError(f"activations must be finite, got {values[~np.isfinite(values)][0]}")
    if not len(everything):
        raise ValueError("reference holds no activations to take the range from")
    drops, width = there - gone, float(np.ptp(everything))
    low, high = bootstrap_interval(drops, level=level, seed=seed) if np.ptp(drops) else (drops[0], drops[0])
    falls = int((drops > 0).sum())
    share_low, share_high = wilson_interval(falls, len(drops), level)
    return PairConfirmation(
        drop=float(drops.mean()),
        low=float(low),
        high=float(high),
        share_of_range=float(drops.mean()) / width if width else float("nan"),
        share=falls / len(drops),
        share_low=float(share_low),
        share_high=float(share_high),
        p_value=sign_flip_p_value(drops, seed),
        num_pairs=len(drops),
    )


def sign_flip_p_value(drops: np.ndarray, seed: int = 0) -> float:
    """Test whether differences (n,) have a positive mean, by flipping their signs; see `confirm_by_pairs`."""
    n, observed = len(drops), drops.sum()
    slack = 1e-12 * np.abs(drops).sum()  # sums in another order differ by rounding
    if n <= _EXACT_PAIRS:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        return float((signs @ drops >= observed - slack).mean())
    rng, as_large = np.random.default_rng(seed), 0
    for part in np.array_split(np.arange(_MOST_FLIPS), 10):
        as_large += int((rng.choice([-1.0, 1.0], (len(part), n)) @ drops >= observed - slack).sum())
    return (1 + as_large) / (1 + _MOST_FLIPS)
