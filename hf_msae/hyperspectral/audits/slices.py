"""Slices: how good predictions are in each group, and in each tenth of a target, or as fine a part as rows allow."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ...statistics import Finding, candidate, resampled_means
from ..subject import Subject
from .outcome import interval

FEWEST = 8
"""A slice with fewer rows is not judged."""
SLICE_COLUMNS = ["target", "grouping", "group", "rows", "mean", "error_ratio", "low", "high"]
SLICE_COLUMNS += ["residual", "residual_low", "residual_high"]
QUANTILES = {"decile": 10, "quintile": 5, "quartile": 4, "third": 3, "half": 2}
"""Parts of a target, from low to high, that errors are shown for: as many as have enough rows."""
_SLICE = (1.25, 1.75, 3.0)
_SPLIT = "State the error of this part on its own, and collect more rows of it, or fit a model of its own for it."


def quantile_for(rows: int) -> str | None:
    """Return the finest of `QUANTILES` whose parts have enough rows, None if even halves have not."""
    return next((name for name, parts in QUANTILES.items() if rows // parts >= FEWEST), None)


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
        part = quantile_for(len(y))
        if subject.classes is None and part is not None:
            ranks = np.argsort(np.argsort(y, kind="stable"), kind="stable")
            groupings[part] = ranks * QUANTILES[part] // len(y) + 1
        for grouping, labels in groupings.items():
            names, places = np.unique(labels, return_inverse=True)
            is_in = places[:, None] == np.arange(len(names))[None]
            columns = np.concatenate(
                [error[:, None], is_in, is_in * error[:, None], is_in * residual[:, None]], axis=1
            )
            g = len(names)

            def figures(means: np.ndarray, g: int = g) -> np.ndarray:
                share, inside = means[:, 1 : g + 1], means[:, g + 1 : 2 * g + 1]
                with np.errstate(all="ignore"):
                    ratio = (inside / share) / ((means[:, :1] - inside) / (1 - share))
                    return np.stack([ratio, means[:, 2 * g + 1 :] / share])

            (ratio, residuals) = figures(columns.mean(axis=0)[None])[:, 0]
            draws = figures(resampled_means(columns, subject.num_resamples, subject.seed))
            for i, name in enumerate(names):
                n = int(is_in[:, i].sum())
                known = FEWEST <= n <= len(y) - FEWEST
                ends = [*interval(draws[0, :, i]), *interval(draws[1, :, i])] if known else [np.nan] * 4
                found = (ratio[i], *ends[:2], residuals[i], *ends[2:]) if known else [np.nan] * 6
                records.append((target, grouping, str(name), n, float(y[is_in[:, i]].mean()), *found))
                if known and grouping != part and useful.get(target):
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
