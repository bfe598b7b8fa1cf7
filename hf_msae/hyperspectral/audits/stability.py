"""Stability: what changes when folds, seeds and rows are drawn again, and what attacks do to attributions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import rankdata
from scipy.stats import t as student

from ...statistics import Finding, candidate, graded, percentiles, resampled_means
from ..mean_spectrum import PATCHES_ONLY, ModelOfPatches
from ..subject import Subject
from .explainers import SAMPLED, explain
from .outcome import Outcome

NUM_SEEDS = 4
TOP = 10
_CHANGED, _OTHERS = (0.5, 0.8), (0.5, 0.25)
_ROWS = 50
_LEAST_ERROR = 0.01
"""Overlaps are tenths: all of a few pairs may agree by chance."""


def stability(subject: Subject) -> Outcome:
    """Fit the model again with other seeds, folds and bootstrap samples of the rows.

    Figures of the table `stability`, one row per target and metric: r2_spread (standard deviation of R2 over seeds of
    folds and model); prediction_change (mean absolute difference between predictions of the same row by two such
    models, over the root mean squared error); rank_correlation (Spearman's, between the attributions of columns by
    models of two bootstrap samples) and top_overlap (share of their ten strongest columns that are the same).
    Intervals are over rows for prediction_change. For the last two, which are of twice as many bootstrap samples as
    there are seeds, they are over bootstrap samples: pairs that share a sample depend on each other (`over_samples`).
    """
    if subject.is_fixed:
        return Outcome({}, [], ["The model is not fitted again, so nothing is known of its stability."])
    number = max(2, subject.limits.get("num_seeds", NUM_SEEDS))
    predictions = [subject.predictions]
    for seed in range(1, number):
        rng = np.random.default_rng((subject.seed, seed))
        folds = subject.drawn_folds(subject.folds, rng)
        found = np.empty_like(subject.Y)
        for fold in np.unique(folds):
            test = folds == fold
            found[test] = subject.fit(np.flatnonzero(~test), seed=subject.seed + seed)(subject.X[test])
        predictions.append(found)
    with_columns = not isinstance(subject.model, ModelOfPatches)
    attributions = _attributions(subject, 2 * number) if with_columns else []
    records, tests = [], []
    pairs = list(combinations(range(number), 2))
    for place, target in enumerate(subject.targets):
        y = subject.Y[:, place]
        scores = [1 - ((y - each[:, place]) ** 2).mean() / y.var() for each in predictions]
        records.append((target, "r2_spread", float(np.std(scores, ddof=1)), np.nan, np.nan))
        differences = np.mean([np.abs(predictions[a][:, place] - predictions[b][:, place]) for a, b in pairs], axis=0)
        columns = np.stack([differences, subject.squared_errors[:, place]], axis=1)
        draws = resampled_means(columns, subject.num_resamples, subject.seed)
        change = columns[:, 0].mean() / np.sqrt(columns[:, 1].mean())
        change_draws = draws[:, 0] / np.sqrt(draws[:, 1])
        records.append((target, "prediction_change", change, *percentiles(change_draws)))
        evidence = (
            f"Two models of other seeds and folds differ by {differences.mean():.3g} in {target} on average, "
            f"{change:.2f} of the root mean squared error; R2 ranges from {min(scores):.3f} to {max(scores):.3f}."
        )
        title = f"Predictions of {target} depend on the draw"
        arguments = ("stability", "draw", target, title, "prediction_change", change, change_draws, _CHANGED)
        tests.append(candidate(*arguments, evidence, _AVERAGE))
        if not with_columns:
            continue
        of_pairs = agreement([each[:, place] for each in attributions])
        correlation, overlap = (over_samples(each, 2 * number) for each in of_pairs)
        records.append((target, "rank_correlation", correlation[0], *_ends(*correlation, 2 * number, -1)))
        records.append((target, "top_overlap", overlap[0], *_ends(*overlap, 2 * number, 0)))
        if np.mean(scores) > 0.05 and subject.X.shape[1] > TOP:
            tests.append(_ranking(target, *overlap, correlation[0], 2 * number))
    table = pd.DataFrame(records, columns=["target", "metric", "value", "low", "high"])
    remarks = [] if with_columns else [PATCHES_ONLY.format("the stability of attributions is")]
    return Outcome({"stability": table}, [each for each in tests if each is not None], remarks)


_AVERAGE = (
    "Average several models, or use more rows; do not read differences smaller than this as differences of soils."
)
_BANDS = "Do not name single columns as causes: read clusters, bands and transformations, which share their credit."


def over_samples(values: np.ndarray, number: int) -> tuple[float, float]:
    """Return the mean over all pairs of at least 3 samples, and its standard error by the jackknife over samples.

    The mean is a U-statistic of independent samples, pairs of which are not independent: what leaving out a sample,
    with all of its pairs, changes gives the standard error (Arvesen, "Jackknifing U-statistics", 1969), and Student's
    distribution with one degree of freedom less than there are samples the intervals. Values are in the order of
    `itertools.combinations`.
    """
    pairs = np.array(list(combinations(range(number), 2)))
    without = np.array([values[(pairs != sample).all(axis=1)].mean() for sample in range(number)])
    return float(values.mean()), float(np.sqrt((number - 1) / number * ((without - values.mean()) ** 2).sum()))


def _ends(value: float, error: float, number: int, least: float) -> tuple[float, float]:
    """Return the 95% interval of a mean over pairs, between `least` and 1."""
    half = float(student.ppf(0.975, number - 1)) * error
    return max(least, value - half), min(1.0, value + half)


def _ranking(target: str, overlap: float, error: float, correlation: float, number: int) -> Finding:
    evidence = (
        f"Between models of two of {number} bootstrap samples, the ten columns with the largest attributions for "
        f"{target} agree in {overlap:.0%}, and all ranks correlate at {correlation:.2f}."
    )
    title = f"Which columns matter for {target} depends on the draw"
    low, high = _ends(overlap, error, number, 0)
    severity = graded(low, high, _OTHERS, below=True)
    p_value = float(student.cdf((overlap - _OTHERS[0]) / max(error, _LEAST_ERROR), number - 1))
    found = (severity, title, "top_overlap", overlap, low, high, evidence, _BANDS, p_value)
    return Finding(*found, "stability", "ranking", target)


def _attributions(subject: Subject, number: int) -> list[np.ndarray]:
    """Return attributions (p, t) of the same rows by models of bootstrap samples of the other rows."""
    train, test, _ = subject.fold_models[0]
    rows = test[:_ROWS]
    found = []
    for seed in range(number):
        rng = np.random.default_rng((subject.seed, 2, seed))
        sample = rng.choice(train, len(train))
        if subject.classes is not None and len(np.unique(subject.Y[sample], axis=0)) < len(subject.classes):
            sample = train  # a class is missing
        values = explain(subject, subject.fit(sample, seed=subject.seed + seed), rows, np.unique(sample)[:100]).values
        found.append(np.abs(values).mean(axis=0)[:, : len(subject.targets)])
    return found


def agreement(attributions: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return Spearman's correlation and the share of the ten strongest columns in common, for every pair."""
    ranks = [rankdata(each) for each in attributions]
    tops = [set(np.argsort(-each, kind="stable")[:TOP]) for each in attributions]
    pairs = list(combinations(range(len(ranks)), 2))
    with np.errstate(all="ignore"):
        correlations = np.nan_to_num([np.corrcoef(ranks[a], ranks[b])[0, 1] for a, b in pairs])
    size = min(TOP, len(ranks[0]))
    return correlations, np.array([len(tops[a] & tops[b]) / size for a, b in pairs])


COLUMNS = ["attack", "target", "rows", "rank_correlation", "top_overlap"]
_BACKGROUND = 100


def attribution_shift(
    subject: Subject, rows: np.ndarray, attacked: Mapping[str, np.ndarray]
) -> tuple[pd.DataFrame, list[str]]:
    """Compare attributions of the same rows, by the same model, before and after attacks: a table, and remarks.

    The rows of one fold are explained, with the model that did not see them. rank_correlation is Spearman's, between
    the mean absolute SHAP values of all columns, and top_overlap the share of the ten strongest columns that stay.
    Sampled values are left out: their own noise would pass for a change. `attacked` is X of `rows` after each attack.
    """
    train, test, fitted = subject.fold_models[0]
    own = np.isin(rows, test)
    if subject.space is not None or isinstance(subject.model, ModelOfPatches) or own.sum() < 2:
        return pd.DataFrame(columns=COLUMNS), []

    def attributions(X: np.ndarray) -> np.ndarray | None:
        changed = subject.X.copy()
        changed[rows[own]] = X[own]
        found = explain(replace(subject, X=changed), fitted, rows[own], train[:_BACKGROUND])
        return None if found.method == SAMPLED else np.abs(found.values).mean(axis=0)[:, : len(subject.targets)]

    before = attributions(subject.X[rows])
    if before is None:
        return pd.DataFrame(columns=COLUMNS), ["How attacks change sampled attributions was not measured."]
    records = []
    for name, X in attacked.items():
        after = attributions(X)
        for place, target in enumerate(subject.targets):
            correlations, overlaps = agreement([before[:, place], after[:, place]])
            records.append((name, target, int(own.sum()), float(correlations[0]), float(overlaps[0])))
    table = pd.DataFrame(records, columns=COLUMNS)
    mean = table.groupby("attack", sort=False)["rank_correlation"].mean()
    lowest, highest = (f"{value:.2f}" for value in (mean.min(), mean.max()))
    span = lowest if lowest == highest else f"{lowest} ({mean.idxmin()}) to {highest} ({mean.idxmax()})"
    remark = (
        f"Under the attacks that a model has to survive, ranks of attributions correlate with those before at {span}."
    )
    return table, [remark]
