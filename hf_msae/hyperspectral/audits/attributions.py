"""Attributions: which columns, bands and transformations the predictions rest on."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..._utils.wording import counted
from ...statistics import Finding, candidate, percentiles, resampled_means
from ..mean_spectrum import PATCHES_ONLY, ModelOfPatches
from ..subject import Subject
from .explainers import CORRELATED, clusters, explain
from .outcome import Outcome

NUM_EXPLAINED = 200
CANCELS = 2.0
"""Groups whose two attributions differ by more than this factor are flagged."""
_SHARES = (0.5, 0.9, 0.99)
_FEW, _HALF = 0.01, 0.5  # of the columns carry this share: the paper's claim
_FEWEST_COLUMNS = 100
FEATURE_COLUMNS = ["target", "feature", "transformation", "band", "wavelength", "level", "cluster"]
FEATURE_COLUMNS += ["attribution", "share", "low", "high"]
GROUP_COLUMNS = ["target", "grouping", "group", "features", "attribution", "share", "low", "high"]
GROUP_COLUMNS += ["absolute_first", "cancels"]


def attributions(subject: Subject) -> Outcome:
    """Attribute predictions of held-out rows to columns by SHAP values, and sum them by band, concept and the like.

    The rows of one fold are explained with the model that was fitted to the other folds. The attribution of a group of
    columns is mean_i |sum_j phi_ij|: signed values are summed before the absolute value is taken. Beside it stands
    mean_i sum_j |phi_ij|; where that is more than twice as large, columns of the group work against each other, and
    neither is a fair account of it. Correlated columns share credit arbitrarily, so clusters of columns with
    correlations of at least 0.95 are attributed as groups too.

    Tables: `attributions` (one row per target and column), `attribution_groups` (by band, transformation, band and
    transformation, cluster, and concept) and `concentration` (how many columns carry 50, 90 and 99%).
    """
    if isinstance(subject.model, ModelOfPatches):
        return Outcome({}, [], [PATCHES_ONLY.format("attributions are")])
    train, test, fitted = subject.fold_models[0]
    rng = np.random.default_rng(subject.seed)
    rows = np.sort(rng.permutation(test)[: subject.limits.get("num_explained", NUM_EXPLAINED)])
    background = np.sort(rng.permutation(train)[:100])
    explanation = explain(subject, fitted, rows, background)
    phi = explanation.values[:, :, : len(subject.targets)]
    correlated = clusters(subject.X)
    features, groups, concentration, candidates = [], [], [], []
    for place, target in enumerate(subject.targets):
        values = phi[:, :, place]
        total = np.abs(values).mean(axis=0).sum()
        if not total:
            continue
        features.append(_features(subject, values, target, correlated, total))
        groups.append(_groups(subject, values, target, correlated, total))
        records, tests = _concentration(subject, values, target)
        concentration += records
        candidates += tests
    remarks = [
        f"Attributions: {explanation.method}, of {len(rows)} held-out rows; values and predictions differ by at most "
        f"{explanation.largest_gap:.2g} and in the median by {explanation.median_gap:.2g} standard deviations.",
        *explanation.remarks,
        *_shared_credit(correlated),
    ]
    additivity = (explanation.method, len(rows), explanation.largest_gap, explanation.median_gap)
    tables = {
        "attributions": _put_together(features, FEATURE_COLUMNS),
        "attribution_groups": _put_together(groups, GROUP_COLUMNS),
        "concentration": pd.DataFrame(concentration, columns=["target", "share", "features", "low", "high"]),
        "additivity": pd.DataFrame([additivity], columns=["method", "rows", "largest_gap", "median_gap"]),
    }
    return Outcome(tables, [each for each in candidates if each is not None], remarks)


def _put_together(tables: list[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)


def _features(subject: Subject, values: np.ndarray, target: str, correlated: np.ndarray, total: float) -> pd.DataFrame:
    size = np.abs(values)
    draws = resampled_means(size, min(200, subject.num_resamples), subject.seed)
    low, high = np.quantile(draws, (0.025, 0.975), axis=0)
    table = subject.features.assign(
        target=target, cluster=correlated, attribution=size.mean(axis=0), low=low, high=high
    )
    table["share"] = table["attribution"] / total
    return table[FEATURE_COLUMNS]


def _groups(subject: Subject, values: np.ndarray, target: str, correlated: np.ndarray, total: float) -> pd.DataFrame:
    table = subject.features
    band = table["band"].map(lambda each: "none" if np.isnan(each) else f"{each:g}")
    shared = np.bincount(correlated)[correlated] > 1
    names = np.where(shared, correlated.astype(str), "none")
    groupings = {"transformation": table["transformation"].astype(str), "cluster": pd.Series(names)}
    if "concept" in table:
        groupings["concept"] = table["concept"]
    if (band != "none").any():
        groupings["band"] = band
        if table["transformation"].nunique() > 1:
            groupings["band and transformation"] = band + ", " + table["transformation"].astype(str)
    found = []
    for grouping, names in groupings.items():
        groups, places = np.unique(names, return_inverse=True)
        if len(groups) == 1:
            continue
        membership = np.zeros((len(places), len(groups)))
        membership[np.arange(len(places)), places] = 1
        signed = np.abs(values @ membership)
        attribution, absolute = signed.mean(axis=0), (np.abs(values) @ membership).mean(axis=0)
        draws = resampled_means(signed, min(200, subject.num_resamples), subject.seed)
        low, high = np.quantile(draws, (0.025, 0.975), axis=0)
        found.append(
            pd.DataFrame(
                {
                    "target": target,
                    "grouping": grouping,
                    "group": groups,
                    "features": membership.sum(axis=0).astype(int),
                    "attribution": attribution,
                    "share": attribution / total,
                    "low": low,
                    "high": high,
                    "absolute_first": absolute,
                    "cancels": absolute > CANCELS * np.maximum(attribution, 1e-12),
                }
            )
        )
    return _put_together(found, GROUP_COLUMNS)


def _concentration(subject: Subject, values: np.ndarray, target: str) -> tuple[list[tuple], list[Finding | None]]:
    size = np.abs(values)
    draws = resampled_means(size, min(200, subject.num_resamples), subject.seed)
    sizes = np.concatenate([size.mean(axis=0)[None], draws])
    lorenz = np.cumsum(-np.sort(-sizes, axis=1), axis=1) / np.maximum(sizes.sum(axis=1, keepdims=True), 1e-300)
    records = []
    for share in _SHARES:
        numbers = (lorenz < share - 1e-12).sum(axis=1) + 1
        records.append((target, share, int(numbers[0]), *percentiles(numbers[1:].astype(float))))
    p = size.shape[1]
    if p < _FEWEST_COLUMNS:
        return records, []
    few = max(1, round(_FEW * p))
    title = f"Predictions of {target} rest on {few} of {p} columns"
    evidence = (
        f"The {counted(few, 'strongest column carries', 'strongest columns carry')} {lorenz[0, few - 1]:.1%} of the "
        f"attribution of {target}; it takes {records[0][2]} to carry a half, and {records[1][2]} to carry 90%."
    )
    advice = (
        "Check that these columns measure the target and not an artifact; see the pruning curve for a smaller model."
    )
    arguments = ("attributions", "concentration", target, title, "share_of_top_percent", lorenz[0, few - 1])
    return records, [candidate(*arguments, lorenz[1:, few - 1], (_HALF,), evidence, advice)]


def _shared_credit(correlated: np.ndarray) -> list[str]:
    sizes = np.bincount(correlated)
    shared = int(sizes[sizes > 1].sum())
    if not shared:
        return []
    return [
        f"{shared} of {len(correlated)} columns are correlated at {CORRELATED} or more with others, in "
        f"{counted(int((sizes > 1).sum()), 'cluster')}: how credit is shared within one is arbitrary, so read "
        "clusters as groups."
    ]
