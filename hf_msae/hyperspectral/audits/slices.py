"""How good predictions are in each group and part of a target, at its extremes, and in rows far from the others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from ..._utils.wording import mentions
from ...statistics import Finding, candidate, percentiles, resampled_means
from ..subject import Subject, splits

FEWEST = 8
"""A slice with fewer rows is not judged."""
SLICE_COLUMNS = ["target", "grouping", "group", "rows", "mean", "error_ratio", "low", "high"]
SLICE_COLUMNS += ["residual", "residual_low", "residual_high"]
QUANTILES = {"decile": 10, "quintile": 5, "quartile": 4, "third": 3, "half": 2}
"""Parts of a target, from low to high, that errors are shown for: as many as have enough rows."""
_SLICE = (1.25, 1.75, 3.0)
_SPLIT = "State the error of this part on its own, and collect more rows of it, or fit a model of its own for it."


def slices(subject: Subject, useful: dict[str, bool]) -> tuple[pd.DataFrame, list[Finding | None]]:
    """Compare the errors in each group and each quantile of the target with those in all other rows.

    Errors of a classifier are first divided by the mean error of rows of the same class.
    """
    records, tests = [], []
    for place, target in enumerate(subject.targets):
        y, spread = subject.Y[:, place], subject.Y[:, place].std()
        error, residual = subject.squared_errors[:, place] / spread**2, (y - subject.predictions[:, place]) / spread
        if subject.classes is not None:  # a rarer class has larger errors: groups differ in how much they have of it
            usual = [error[y == each].mean() for each in (0, 1)]
            error = error / np.maximum(np.where(y == 1, usual[1], usual[0]), 1e-12)
        groupings = dict(subject.groups)
        # The finest parts that have enough rows; even halves may have too few.
        part = next((name for name, parts in QUANTILES.items() if len(y) // parts >= FEWEST), None)
        if subject.classes is None and part is not None:
            ranks = np.argsort(np.argsort(y, kind="stable"), kind="stable")
            groupings[part] = ranks * QUANTILES[part] // len(y) + 1
        for grouping, labels in groupings.items():
            names, places, sizes = np.unique(labels, return_inverse=True, return_counts=True)
            means_of_y = np.bincount(places, y) / sizes
            # Of others nothing is drawn: with a group for every few rows, that would take memory of rows times groups.
            judged = np.flatnonzero((sizes >= FEWEST) & (sizes <= len(y) - FEWEST))
            is_in = places[:, None] == judged[None]
            columns = np.concatenate(
                [error[:, None], is_in, is_in * error[:, None], is_in * residual[:, None]], axis=1
            )
            g = len(judged)

            def figures(means: np.ndarray, g: int = g) -> np.ndarray:
                share, inside = means[:, 1 : g + 1], means[:, g + 1 : 2 * g + 1]
                with np.errstate(all="ignore"):
                    ratio = (inside / share) / ((means[:, :1] - inside) / (1 - share))
                    return np.stack([ratio, means[:, 2 * g + 1 :] / share])

            (ratio, residuals) = figures(columns.mean(axis=0)[None])[:, 0]
            draws = figures(resampled_means(columns, subject.num_resamples, subject.seed))
            columns_of = {group: i for i, group in enumerate(judged.tolist())}
            for group, name in enumerate(names):
                n, i = int(sizes[group]), columns_of.get(group)
                ends = [np.nan] * 4 if i is None else [*percentiles(draws[0, :, i]), *percentiles(draws[1, :, i])]
                found = [np.nan] * 6 if i is None else (ratio[i], *ends[:2], residuals[i], *ends[2:])
                records.append((target, grouping, str(name), n, float(means_of_y[group]), *found))
                if i is not None and grouping != part and useful.get(target):
                    alike = "" if subject.classes is None else ", compared with rows of the same class,"
                    evidence = (
                        f"In the {n} rows with {grouping} {name} the {subject.error_name} of {target}{alike} is "
                        f"{ratio[i]:.2f} times that of the other rows, and predictions are "
                        f"{-residuals[i]:+.2f} standard deviations off on average."
                    )
                    title = f"{target} is predicted worse where {grouping} is {name}"
                    where = f"{target} where {grouping} is {name}"
                    arguments = ("performance", f"slice {grouping}", where, title, "error_ratio")
                    arguments += (ratio[i], draws[0, :, i], _SLICE, evidence, _SPLIT)
                    tests.append(candidate(*arguments, log=True))
    return pd.DataFrame(records, columns=SLICE_COLUMNS), tests


OUTLIER = 2.0
"""Standard deviations from the mean beyond which a target is an outlier."""
UNSEEN = (0.7, 0.55, 0.4)
"""Responses to outliers that are minor, moderate and severe."""
FLAT = (0.5, 0.3, 0.1)
"""Responses in the tails that are minor, moderate and severe: of skewed targets a sound model has 0.6."""


def unknown_ends(performance: pd.DataFrame, findings: Sequence[Finding]) -> dict[str, list[str]]:
    """Return of which extreme values of each target nothing is known, since rows are few or predictions weak.

    Those are values whose response may be as low as that of a severe finding, and those of which there are too few to
    say anything, unless a finding is about the ends of that target: no finding is no all-clear there.
    """
    far = f"values more than {OUTLIER:g} standard deviations from the mean"
    wide = {"tail_response": ("the more extreme half of its values", FLAT), "outlier_response": (far, UNSEEN)}
    found: dict[str, list[str]] = {}
    said = [f"{each.title} {each.evidence}" for each in findings if each.metric in wide]
    for row in performance[performance["metric"].isin(list(wide))].itertuples():
        if any(mentions(each, row.target) for each in said):
            continue
        what, limits = wide[row.metric]
        value, low, high = (np.nan if each is None else float(each) for each in (row.value, row.low, row.high))
        if not np.isfinite(value):
            why = f"fewer than {FEWEST} rows" if row.metric == "outlier_response" else "not defined"
            found.setdefault(row.target, []).append(f"{what} ({why})")
        elif low < limits[-1]:
            found.setdefault(row.target, []).append(f"{what} ({low:.2g} to {high:.2g})")
    return found


def slopes(a: np.ndarray, b: np.ndarray, p: np.ndarray, *products: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the slopes of p on a and b by least squares, from their means and the means of aa, ab, bb, ap, bp."""
    aa, ab, bb, ap, bp = products
    aa, ab, bb, ap, bp = aa - a * a, ab - a * b, bb - b * b, ap - a * p, bp - b * p
    determinant = aa * bb - ab * ab
    return (ap * bb - bp * ab) / determinant, (bp * aa - ap * ab) / determinant


def quantile_ratio(y: np.ndarray, p: np.ndarray, seed: int) -> tuple[float, float, float]:
    """Return the range from the 5th to the 95th percentile of p over that of y, and its bootstrap interval."""

    def ratio(rows: np.ndarray | slice) -> float:
        of_p, of_y = (np.diff(np.quantile(each[rows], (0.05, 0.95)))[0] for each in (p, y))
        return float(of_p / of_y) if of_y > 0 else np.nan

    random = np.random.default_rng(seed)  # drawn one at a time, since all draws of a million rows would take 5 GB
    draws = np.array([ratio(random.integers(len(y), size=len(y))) for _ in range(200)])
    return ratio(slice(None)), *percentiles(draws)


USUAL_SHARE = 0.05
"""Share of rows that are called far if nothing is special about them."""
_COMPONENTS, _NEIGHBORS = 10, 3


def far_rows(X: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Find rows that are farther from the rows of other folds than 95% of these are from each other.

    The distance is the mean distance to the three nearest rows, in up to ten principal components of the standardized
    columns.
    """
    far = np.zeros(len(X), dtype=bool)
    for train, test in splits(folds):
        scale = StandardScaler().fit(X[train])
        components = min(_COMPONENTS, X.shape[1], len(train) - 1)
        pca = PCA(components, svd_solver="randomized", random_state=0).fit(scale.transform(X[train]))
        known, new = pca.transform(scale.transform(X[train])), pca.transform(scale.transform(X[test]))
        number = min(_NEIGHBORS, len(train) - 1)
        nearest = NearestNeighbors(n_neighbors=number).fit(known)
        own = nearest.kneighbors(n_neighbors=number)[0].mean(axis=1)
        far[test] = nearest.kneighbors(new)[0].mean(axis=1) > np.quantile(own, 1 - USUAL_SHARE)
    return far


def unusual_rows(X: np.ndarray) -> np.ndarray:
    """Find the 5% of rows that are farthest from the mean.

    The distance is T^2, the squared length in up to ten whitened principal components of the standardized columns,
    plus Q, the squared length of what these leave over, each divided by its mean over the rows.
    """
    scaled = StandardScaler().fit_transform(X)
    components = min(_COMPONENTS, X.shape[1], len(X) - 1)
    pca = PCA(components, svd_solver="randomized", random_state=0).fit(scaled)
    scores = pca.transform(scaled)
    explained = (scores**2 / np.maximum(pca.explained_variance_, 1e-12)).sum(axis=1)
    left = np.maximum((scaled**2).sum(axis=1) - (scores**2).sum(axis=1), 0)
    distance = explained / explained.mean() + (left / left.mean() if left.mean() > 1e-9 else 0)
    return distance > np.quantile(distance, 1 - USUAL_SHARE)
