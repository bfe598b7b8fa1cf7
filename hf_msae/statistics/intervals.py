"""Confidence intervals: the bootstrap for any statistic of a sample, Wilson's for a proportion."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache

import numpy as np

_BATCH_ENTRIES = 2**22  # resampled values held at a time: 32 MiB
_SURE = 1e-9


def bootstrap_interval(
    values: np.ndarray,
    statistic: Callable[..., np.ndarray] = np.mean,
    level: float = 0.95,
    num_resamples: int = 1000,
    method: str = "percentile",
    seed: int | np.random.Generator = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Compute a bootstrap confidence interval of a statistic of a sample.

    The sample is drawn `num_resamples` times with replacement. The percentile interval runs from the
    (1 - level) / 2 quantile of the resampled statistic to its (1 + level) / 2 quantile; "bca" corrects these for bias
    and skewness. Several samples of equal size are resampled together, with the same draws, so that their differences
    are paired. (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 13 and 14; computed by
    `scipy.stats.bootstrap`.)

    Args:
        values: Samples of shape (..., n), at least 2 values each.
        statistic: Function of an array and `axis` that reduces this axis, as `numpy.mean` does.
        level: Confidence level, between 0 and 1.
        num_resamples: Number of resamples.
        method: "percentile", "basic" or "bca".
        seed: Seed of the resamples, or a generator.

    Returns:
        Lower and upper ends, each of shape (...).

    Raises:
        ValueError: There are fewer than 2 values, or an option is out of range.
    """
    values = np.asarray(values, dtype=np.float64)
    check_share("level", level)
    if values.ndim == 0 or values.shape[-1] < 2:
        raise ValueError(f"a bootstrap needs at least 2 values, got an array of shape {values.shape}")
    from scipy import stats  # here, since it takes most of a second

    found = stats.bootstrap(
        (values,),
        statistic,
        n_resamples=num_resamples,
        batch=max(1, _BATCH_ENTRIES // max(1, values.size)),
        vectorized=True,
        axis=-1,
        confidence_level=level,
        method=method,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return np.asarray(found.low), np.asarray(found.high)


_DRAWS_AT_ONCE = 2**18
_DRAWS_KEPT = 2**21
"""Draws that are kept for the next call with as many rows; those of eight calls take at most 32 MiB."""


def resampled_means(values: np.ndarray, num_resamples: int = 1000, seed: int = 0) -> np.ndarray:
    """Draw rows with replacement, again and again, and return the means of the columns.

    Whatever is a function of means, such as a ratio of gains, has the quantiles of that function of these means as its
    percentile interval. Columns are resampled together, so their differences are paired.

    Args:
        values: Rows and columns (n, m).
        num_resamples: Number of resamples.
        seed: Random seed; the same for all columns.

    Returns:
        The means (num_resamples, m).

    Raises:
        ValueError: There are no rows.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or not len(values):
        raise ValueError(f"resampling needs rows and columns, got an array of shape {values.shape}")
    return np.concatenate([counts @ values / len(values) for counts in _resamples(len(values), num_resamples, seed)])


def percentiles(draws: np.ndarray) -> tuple[float, float]:
    """Return the 95% percentile interval of the values (r,) of a statistic in bootstrap resamples.

    Resamples in which it is not defined (NaN or infinite) are left out; without two others, both ends are NaN.
    """
    draws = draws[np.isfinite(draws)]
    if len(draws) < 2:
        return np.nan, np.nan
    low, high = np.quantile(draws, (0.025, 0.975))
    return float(low), float(high)


def resampled_auroc(truth: np.ndarray, scores: np.ndarray, num_resamples: int = 1000, seed: int = 0) -> np.ndarray:
    """Draw rows with replacement, again and again, and return areas under the ROC curve; see `auroc`.

    The rows are those that `resampled_means` draws with the same seed, so differences between columns are paired.

    Args:
        truth: Which samples are positive, bool (n,).
        scores: Scores (n, m).
        num_resamples: Number of resamples.
        seed: Random seed; the same for all columns.

    Returns:
        The areas (num_resamples, m), NaN where a resample lacks positive or negative samples.
    """
    truth, found = np.asarray(truth, dtype=bool), []
    orders = np.argsort(scores, axis=0, kind="stable")
    for counts in _resamples(len(truth), num_resamples, seed):
        areas = np.empty((len(counts), scores.shape[1]))
        positives, negatives = (counts[:, which].sum(axis=1, dtype=float) for which in (truth, ~truth))
        for column, order in enumerate(orders.T):
            starts = np.flatnonzero(np.diff(scores[order, column], prepend=np.nan))  # of runs of equal scores
            up, down = (np.add.reduceat(counts[:, order] * which[order], starts, axis=1) for which in (truth, ~truth))
            with np.errstate(invalid="ignore"):
                areas[:, column] = (up * (down.cumsum(axis=1) - down / 2)).sum(axis=1) / (positives * negatives)
        found.append(areas)
    return np.concatenate(found)


def _resamples(n: int, num_resamples: int, seed: int) -> Iterable[np.ndarray]:
    """Return how often each of n rows is drawn in each resample, (resamples, n), a batch at a time."""
    if n * num_resamples > _DRAWS_KEPT:
        return _draw(n, num_resamples, seed)
    return (counts.astype(np.intp) for counts in _kept_draws(n, num_resamples, seed))


def _draw(n: int, num_resamples: int, seed: int) -> Iterator[np.ndarray]:
    rng, at_once = np.random.default_rng(seed), max(1, _DRAWS_AT_ONCE // n)
    for start in range(0, num_resamples, at_once):  # counts from rng.multinomial would take several times as long
        resamples = min(at_once, num_resamples - start)
        rows = rng.integers(n, size=(resamples, n), dtype=np.int32) + n * np.arange(resamples)[:, None]
        yield np.bincount(rows.ravel(), minlength=resamples * n).reshape(resamples, n)


@lru_cache(maxsize=8)
def _kept_draws(n: int, num_resamples: int, seed: int) -> list[np.ndarray]:
    """The same, kept: figures of the same rows, one after the other, are drawn alike, which takes most of the time."""
    return [counts.astype(np.min_scalar_type(n)) for counts in _draw(n, num_resamples, seed)]


def wilson_interval(
    successes: int | np.ndarray, trials: int | np.ndarray, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Compute Wilson's score interval of a proportion.

    With p = successes / trials, n = trials and z the (1 + level) / 2 quantile of the standard normal distribution:

        (p + z^2 / 2n  -+  z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)

    It stays within 0 and 1 and keeps its level also for few trials and proportions near 0 or 1. (Wilson, "Probable
    inference, the law of succession, and statistical inference", JASA 1927.)

    Args:
        successes: Counts between 0 and `trials`; any shape that broadcasts with `trials`.
        trials: Positive counts.
        level: Confidence level, between 0 and 1.

    Returns:
        Lower and upper ends.

    Raises:
        ValueError: The counts are impossible, or the level is out of range.
    """
    successes, n = np.asarray(successes, dtype=np.float64), np.asarray(trials, dtype=np.float64)
    check_share("level", level)
    if (n < 1).any() or (successes < 0).any() or (successes > n).any():
        raise ValueError(f"successes must lie between 0 and trials, and trials be positive: got {successes} of {n}")
    from scipy import stats

    p, z = successes / n, stats.norm.ppf((1 + level) / 2)
    center = p + z**2 / (2 * n)
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    low, high = (center - half) / (1 + z**2 / n), (center + half) / (1 + z**2 / n)
    return np.where(successes == 0, 0.0, low), np.where(successes == n, 1.0, high)


def auroc(truth: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Compute areas under the ROC curve, of one or many scores at once.

    It is the share of pairs of a positive and a negative sample in which the positive one has the larger score, where
    equal scores count half: (R - m (m + 1) / 2) / (m n), with R the sum of the ranks of m positives among all.

    Args:
        truth: Which samples are positive, bool (n,) with both values.
        scores: Scores (n,) or (n, columns).

    Returns:
        The areas, () or (columns,).
    """
    from scipy.stats import rankdata

    positives = int(truth.sum())
    ranks = rankdata(scores, axis=0)[truth].sum(axis=0)
    return (ranks - positives * (positives + 1) / 2) / (positives * (len(truth) - positives))


def auroc_shares(truth: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute for each sample the share of its pairs with samples of the other class that are ranked rightly.

    Equal scores count half. The mean over positive samples, and that over negative ones, is the area under the ROC
    curve, and their variances make its standard error. (DeLong, DeLong and Clarke-Pearson, "Comparing the areas under
    two or more correlated receiver operating characteristic curves", Biometrics 1988.)

    Args:
        truth: Which samples are positive, bool (n,) with both values.
        scores: Scores (n,).

    Returns:
        The shares of the positive samples (m,) and of the negative ones (n - m,).
    """
    positive, negative = scores[truth], scores[~truth]
    found = []
    for own, other in ((positive, np.sort(negative)), (-negative, np.sort(-positive))):
        order, shares = np.argsort(own), np.empty(len(own))  # searching for sorted scores takes half the time
        shares[order] = np.searchsorted(other, own[order], "left") + np.searchsorted(other, own[order], "right")
        found.append(shares / (2 * len(other)))
    return found[0], found[1]


def auroc_interval(
    auroc: float | np.ndarray, positives: int | np.ndarray, negatives: int | np.ndarray, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Compute a confidence interval of an area under the ROC curve A.

    With Q1 = A / (2 - A), Q2 = 2 A^2 / (1 + A) and n the mean of both counts, an area has the standard error

        sqrt((A (1 - A) + (n - 1) (Q1 - A^2) + (n - 1) (Q2 - A^2)) / (positives negatives))

    and the interval ends at the areas that lie just so many of their own standard errors away. Unlike an interval from
    the standard error of the area that was found, it has a width at an area of 1. (Newcombe, "Confidence intervals for
    an effect size measure based on the Mann-Whitney statistic, part 2", Statistics in Medicine 2006, method 5.)

    Args:
        auroc: Areas, between 0 and 1.
        positives: Numbers of positive samples, of any shape that broadcasts with `auroc`.
        negatives: Numbers of negative samples.
        level: Confidence level, between 0 and 1.

    Returns:
        Lower and upper ends.

    Raises:
        ValueError: The areas or counts are impossible, or the level is out of range.
    """
    from scipy import stats

    # Scalars, which are many times faster than arrays of no dimension.
    area, m, n = (np.asarray(each, dtype=np.float64)[()] for each in (auroc, positives, negatives))
    check_share("level", level)
    if (m < 1).any() or (n < 1).any() or (area < 0).any() or (area > 1).any():
        raise ValueError(
            f"areas must lie between 0 and 1, and counts be positive: got {auroc}, {positives}, {negatives}"
        )
    z = stats.norm.ppf((1 + level) / 2)
    return tuple(_root(area, end, lambda a: z**2 * _auroc_variance(a, m, n)) for end in (0, 1))


def auroc_standard_error(auroc: float, positives: int, negatives: int) -> float:
    """Return the standard error of an area under the ROC curve that `auroc_interval` has the formula of.

    At areas of 0 and 1 it is 0, which says nothing about other samples: there only the interval does.
    """
    area, m, n = (np.asarray(each, dtype=np.float64) for each in (auroc, positives, negatives))
    return float(np.sqrt(_auroc_variance(area, m, n)))


def _auroc_variance(area: np.ndarray, m: np.ndarray, n: np.ndarray) -> np.ndarray:
    of_positives, of_negatives, square = area / (2 - area), 2 * area**2 / (1 + area), area**2
    others = (m + n) / 2 - 1
    return (area * (1 - area) + others * (of_positives + of_negatives - 2 * square)) / (m * n)


def _root(area: np.ndarray, end: int, margin: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Find by bisection where (a - area)^2 = margin(a), with a between the area and 0 or 1."""
    inside, outside = area, np.full(np.broadcast_shapes(area.shape, margin(area).shape), float(end))[()]
    for _ in range(50):
        middle = (inside + outside) / 2
        is_inside = (middle - area) ** 2 <= margin(middle)
        inside, outside = np.where(is_inside, middle, inside)[()], np.where(is_inside, outside, middle)[()]
    return np.asarray((inside + outside) / 2)


def check_share(name: str, value: float) -> None:
    """Raise ValueError unless `value` lies strictly between 0 and 1."""
    if not 0 < value < 1:
        raise ValueError(f"{name} must lie between 0 and 1, got {value}")


def log_odds(probability: np.ndarray) -> np.ndarray:
    """Return the log-odds of probabilities; they are finite for 0 and 1, too."""
    kept = np.clip(probability, _SURE, 1 - _SURE)
    return np.log(kept) - np.log1p(-kept)
