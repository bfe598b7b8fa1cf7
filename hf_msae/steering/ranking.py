"""Which methods can be told apart: paired tests of their gains in the same rows, combined over draws of a task."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.stats import norm, permutation_test, t

from ..statistics import holm, mean_over_draws
from .damage import GROUPS, MIN_ROWS

Gains = list[list[np.ndarray]]
"""For each task that is not the same as another seed's, what was gained in each row, in groups of rows."""


def rank_methods(gains: pd.DataFrame, shared: Mapping[str, float], name: str) -> pd.DataFrame:
    """Rank methods within each task by their net gain, as `SwordBenchResult.ranking` says.

    Args:
        gains: What was gained in rows: task, method, seed, task_sha256 and the groups.
        shared: For each task, the share of test rows that two seeds have in common.
        name: Name of the column of net gains.

    Returns:
        One row per task and method: task, rank, method, the net gain, low, high, p_value.
    """
    rows = []
    for task, of_task in gains[gains["biased"].map(len) > 0].groupby("task", sort=False):
        seeds = set.intersection(*(set(each["seed"]) for _, each in of_task.groupby("method")))
        of_task = of_task[of_task["seed"].isin(seeds)]
        found = {method: _by_test(each) for method, each in of_task.groupby("method", sort=False)} if seeds else {}
        means = {method: mean_over_draws(*_by_draw(each), shared[task]) for method, each in found.items()}
        order = sorted(found, key=lambda method: -means[method][0])
        pairs = [(a, b) for i, a in enumerate(order) for b in order[i + 1 :]]
        corrected = holm([_p_value(found[a], found[b], shared[task]) for a, b in pairs]) if pairs else []
        p_values = dict(zip(pairs, corrected, strict=True))
        rank, left = 1, order
        while left:
            tied = [each for each in left if each == left[0] or p_values[left[0], each] > 0.05]
            for each in tied:
                mean, error, freedom = means[each]
                half = t.ppf(0.975, freedom) * error if _has_interval(found[each]) else np.nan
                p_value = p_values.get((order[0], each), np.nan)
                rows.append((task, rank, each, float(mean), mean - half, mean + half, p_value))
            rank, left = rank + len(tied), [each for each in left if each not in tied]
    return pd.DataFrame(rows, columns=["task", "rank", "method", name, "low", "high", "p_value"])


def _by_test(gains: pd.DataFrame) -> Gains:
    """Return the gains in groups of rows, once for each set of test rows: means over its seeds."""
    found = []
    for _, same in gains.groupby("task_sha256", sort=True):
        biased, unbiased, aligned = (np.mean(list(same[group]), axis=0) for group in GROUPS)
        if not len(aligned) or aligned.mean() >= 0:  # what is kept of the bias's help is no gain
            aligned = np.zeros(max(1, len(aligned)))
        found.append([biased, unbiased, aligned])
    return found


def _has_interval(gains: Gains) -> bool:
    return not any(len(part) < MIN_ROWS for parts in gains for part in parts if part.any())


def _by_draw(parts_of_draws: Gains) -> tuple[np.ndarray, np.ndarray]:
    """Return the net gain of each draw of a task, and its standard error from the rows."""
    values = [sum(part.mean() for part in parts) for parts in parts_of_draws]
    variances = [sum(part.var(ddof=1) / len(part) for part in parts if len(part) > 1) for parts in parts_of_draws]
    return np.array(values), np.sqrt(variances)


def _p_value(a: Gains, b: Gains, shared: float) -> float:
    """Return the p-value of a two-sided test that the mean net gains of two methods are the same.

    Methods are paired in each row, and so in each draw. Common rows of two draws count as one: the variance of the
    mean over S draws is e^2 (1 + (S - 1) shared) / S, with e^2 the mean over draws of the variance from their rows.
    """
    differences = [[x - y for x, y in zip(one, other, strict=True)] for one, other in zip(a, b, strict=True)]
    differing = [part for parts in differences for part in parts if part.any()]
    if not differing:
        return 1.0
    if any(len(part) < MIN_ROWS or np.ptp(part) == 0 for part in differing):
        if len(a) == 1 or not shared:
            return _by_signs(differing)
        # Twice the mean of p-values is one, whatever their dependence (Vovk and Wang, Biometrika 2020).
        return min(1.0, 2 * float(np.mean([_by_signs(parts) for parts in differences])))
    values, errors = _by_draw(differences)
    error = np.sqrt((errors**2).mean() * (1 + (len(a) - 1) * shared) / len(a))
    return float(2 * norm.sf(abs(values.mean()) / error))


def _by_signs(parts: list[np.ndarray]) -> float:
    """Test by flipping the signs of rows: each row's difference is as likely to be its opposite."""
    terms = np.concatenate([part[part != 0] / len(part) for part in parts])
    if len(terms) < 2:
        return 1.0
    return float(permutation_test((terms,), np.sum, permutation_type="samples", batch=1000, rng=0).pvalue)
