"""Which methods can be told apart: paired tests of their gains in the same rows, combined over draws of a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import permutation_test, t

from ..statistics import mean_over_draws
from .damage import GROUPS, MIN_ROWS

Gains = list[list[np.ndarray]]
"""For each task that is not the same as another seed's, what was gained in each row, in groups of rows."""


@dataclass
class _Ranked:
    """A method's place: `p_values` has those of single tests against the best of each rank, down to its own."""

    rank: int
    method: str
    mean: float
    p_values: dict[str, float]
    note: str = ""


def rank_methods(gains: pd.DataFrame, shared: Mapping[str, float], name: str) -> pd.DataFrame:
    """Rank methods within each task by their net gain, as `SwordBenchResult.ranking` says.

    P-values are corrected for all pairs (Bonferroni): the best is chosen from the same rows, and Holm's steps over the
    others alone would be valid for a method that was fixed before.
    """
    rows, missing = [], left_out(gains)
    for task, of_task in gains[gains["biased"].map(len) > 0].groupby("task", sort=False):
        seeds = set.intersection(*(set(each["seed"]) for _, each in of_task.groupby("method")))
        of_task = of_task[of_task["seed"].isin(seeds)]
        found = {method: _by_test(each) for method, each in of_task.groupby("method", sort=False)} if seeds else {}
        means = {method: mean_over_draws(*_by_draw(each), shared[task]) for method, each in found.items()}
        ranked = _ranked(found, {method: float(mean) for method, (mean, _, _) in means.items()}, shared[task])
        p_values = [each.p_values[ranked[0].method] for each in ranked[1:]]
        pairs = len(ranked) * (len(ranked) - 1) / 2
        corrected = [np.nan, *np.minimum(1, np.array(p_values) * pairs)][: len(ranked)]
        for each, p_value in zip(ranked, corrected, strict=True):
            mean, error, freedom = means[each.method]
            is_small = any(len(part) < MIN_ROWS for parts in found[each.method] for part in parts)
            half = np.nan if is_small else t.ppf(0.975, freedom) * error
            figures = (each.mean, mean - half, mean + half, float(p_value))
            rows.append((task, each.rank, each.method, *figures, len(seeds), missing.get(task, ""), each.note))
    columns = ["task", "rank", "method", name, "low", "high", "p_value", "seeds", "missing", "note"]
    return pd.DataFrame(rows, columns=columns)


def left_out(gains: pd.DataFrame) -> dict[str, str]:
    """Say which methods and seeds the ranks of each task are without; tasks whose ranks have all are not there."""
    found = {}
    for task, of_task in gains.groupby("task", sort=False):
        methods = list(dict.fromkeys(of_task["method"]))
        defined = of_task[of_task["biased"].map(len) > 0]
        ranked = [method for method in methods if method in set(defined["method"])]
        parts = [f"without {', '.join(each for each in methods if each not in ranked)}"] * (len(ranked) < len(methods))
        for seed in dict.fromkeys(of_task["seed"]):
            there = set(defined.loc[defined["seed"] == seed, "method"])
            if lacking := [method for method in ranked if method not in there]:
                parts.append(f"without seed {seed} (not defined for {', '.join(lacking)})")
        if ranked and parts:
            found[task] = "; ".join(parts)
    return found


def _ranked(found: Mapping[str, Gains], means: Mapping[str, float], shared: float) -> list[_Ranked]:
    """Return the methods by rank, and by mean within a rank, with notes where ranks do not follow the means."""
    left = sorted(found, key=lambda method: -means[method])
    tested: dict[str, dict[str, float]] = {method: {} for method in left}
    ranked: list[_Ranked] = []
    while left:
        best, rank = left[0], len(ranked) + 1
        for each in left[1:]:
            tested[each][best] = _p_value(found[best], found[each], shared)
        tied = [each for each in left if tested[each].get(best, 1) > 0.05]
        ranked += [_Ranked(rank, each, means[each], tested[each]) for each in tied]
        left = [each for each in left if each not in tied]
    for place, each in enumerate(ranked):
        above = [other.method for other in ranked[place + 1 :] if other.mean > each.mean]
        below = [other for other in ranked[:place] if other.mean < each.mean]
        if above:
            best, p_value = list(each.p_values.items())[-1]
            each.note = f"not told from {best} (p = {p_value:.2g} of the two), as {_named(above)} of a higher mean is"
        elif below:
            best = next(other.method for other in ranked if other.rank == below[0].rank)
            names = _named([other.method for other in below])
            each.note = (
                f"told from {best} (p = {each.p_values[best]:.2g} of the two), as {names} of a lower mean is not"
            )
    return ranked


def _named(methods: Sequence[str]) -> str:
    return methods[0] if len(methods) == 1 else f"{methods[0]} and {len(methods) - 1} more"


def _by_test(gains: pd.DataFrame) -> Gains:
    """Return the gains in groups of rows, once for each set of test rows: means over its seeds."""
    found = []
    for _, same in gains.groupby("task_sha256", sort=True):
        biased, unbiased, aligned = (np.mean(list(same[group]), axis=0) for group in GROUPS)
        if not len(aligned) or aligned.mean() >= 0:  # what is kept of the bias's help is no gain
            aligned = np.zeros(len(aligned) or MIN_ROWS)
        found.append([biased, unbiased, aligned])
    return found


def _by_draw(parts_of_draws: Gains) -> tuple[np.ndarray, np.ndarray]:
    """Return the net gain of each draw of a task, and its standard error from the rows."""
    values = [sum(part.mean() for part in parts) for parts in parts_of_draws]
    variances = [sum(part.var(ddof=1) / len(part) for part in parts if len(part) > 1) for parts in parts_of_draws]
    return np.array(values), np.sqrt(variances)


def _p_value(a: Gains, b: Gains, shared: float) -> float:
    """Return the p-value of a two-sided test that the mean net gains of two methods are the same.

    Methods are paired in each row, and so in each draw. The standard error and the degrees of freedom of the mean
    difference are those of intervals (`mean_over_draws`): they have the rows and, for several draws, the draws.
    """
    differences = [[x - y for x, y in zip(one, other, strict=True)] for one, other in zip(a, b, strict=True)]
    differing = [part for parts in differences for part in parts if part.any()]
    if not differing:
        return 1.0
    mean, error, freedom = mean_over_draws(*_by_draw(differences), shared)
    of_mean = float(2 * t.sf(abs(mean) / error, freedom)) if error > 0 else float(mean == 0)
    if not any(len(part) < MIN_ROWS or np.ptp(part) == 0 for part in differing):
        return of_mean
    if len(a) == 1:
        return _by_signs(differing)
    # Twice the mean of p-values is one, whatever their dependence (Vovk and Wang, Biometrika 2020). What draws that
    # differ say of other draws is in the test of the mean alone.
    of_signs = 2 * float(np.mean([_by_signs(parts) for parts in differences])) if shared else _by_signs(differing)
    return min(1.0, max(of_mean, of_signs))


def _by_signs(parts: list[np.ndarray]) -> float:
    """Test by flipping the signs of rows: each row's difference is as likely to be its opposite."""
    terms = np.concatenate([part[part != 0] / len(part) for part in parts])
    if len(terms) < 2:
        return 1.0
    return float(permutation_test((terms,), np.sum, permutation_type="samples", batch=1000, rng=0).pvalue)
